"""The world models: dynamics against gymnasium, measures against oracles, the command from end to end."""

import json
import sys

import numpy as np
import pytest
import torch

from examples import world_model
from examples.worlds import episodes, planning
from examples.worlds.cells import Cell
from examples.worlds.environments import ENVIRONMENTS
from examples.worlds.models import PREDICTORS, REGULARIZERS, WorldModel
from examples.worlds.prediction import auc
from examples.worlds.probes import fit_linear, fit_mlp, r_squared
from examples.worlds.transformer import CausalTransformer

gymnasium = pytest.importorskip("gymnasium")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_steps_are_gymnasiums(name):
    environment, generator = ENVIRONMENTS[name](), torch.Generator().manual_seed(0)
    reference = gymnasium.make(environment.gym_id).unwrapped
    reference.reset(seed=0)
    state = environment.sample(20, generator)
    for _ in range(10):
        action = torch.randint(-1, 2, (20, 1), generator=generator).double()
        after = environment.step(state, action)
        for i in range(20):
            reference.state = state[i].numpy().copy()
            given = action[i].numpy() * (2 if name == "pendulum" else 1)
            reference.step(int(action[i, 0]) + 1 if name == "acrobot" else given)
            torch.testing.assert_close(after[i], torch.tensor(np.asarray(reference.state)).double(), rtol=0, atol=1e-6)
        state = after


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_energy_is_that_of_the_dynamics(name):
    """Without action it stays, but for the step size's error, while its two parts go up and down."""
    environment = ENVIRONMENTS[name]()
    state = start = environment.sample(200, torch.Generator().manual_seed(1))
    for _ in range(16):
        state = environment.frame(state, torch.zeros(200, 1, dtype=torch.float64))
    half = start.shape[1] // 2
    swapped = torch.cat((state[:, :half], start[:, half:]), 1)  # the potential of the end, the motion of the start
    before, then, wrong = (environment.energy(environment.observe(x)) for x in (start, state, swapped))
    assert (then - before).abs().median() < 0.12 * before.std()
    assert (wrong - before).abs().median() > 0.3 * before.std()


def test_double_gravity_pulls_twice_as_hard():
    pendulum = ENVIRONMENTS["pendulum"]()
    state = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    none = torch.zeros(1, 1, dtype=torch.float64)
    once, twice = (pendulum.step(state, none, gravity=g)[0, 1] for g in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_frames_show_the_positions_only(name):
    environment = ENVIRONMENTS[name]()
    states = environment.sample(3, torch.Generator().manual_seed(2))
    half = states.shape[1] // 2
    faster = torch.cat((states[:, :half], states[:, half:] + 0.01), 1)
    frames = environment.render(torch.cat((states, faster)), 32)
    assert frames.shape == (6, 32, 32)
    assert frames.dtype == torch.uint8
    assert torch.equal(frames[:3], frames[3:])
    assert not torch.equal(frames[0], frames[1])


def test_auc_counts_pairs():
    generator = torch.Generator().manual_seed(0)
    normal, changed = torch.randint(0, 9, (50,), generator=generator), torch.randint(3, 12, (40,), generator=generator)
    pairs = (changed[:, None] > normal).double() + 0.5 * (changed[:, None] == normal)
    assert auc(normal.float(), changed.float()) == pytest.approx(pairs.mean().item())


def test_probes_read_what_is_there():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 4, generator=generator)
    linear, bent = z @ torch.randn(4, 2, generator=generator) + 3, (z[:, :1] * z[:, 1:2])
    assert (r_squared(fit_linear(z[:3000], linear[:3000]), z[3000:], linear[3000:]) > 0.9999).all()
    assert (r_squared(fit_linear(z[:3000], bent[:3000]), z[3000:], bent[3000:]) < 0.05).all()
    assert (r_squared(fit_mlp(z[:3000], bent[:3000]), z[3000:], bent[3000:]) > 0.95).all()


def test_the_planner_finds_a_known_minimum():
    best = torch.linspace(-0.8, 0.8, planning.FRAMES * 3).reshape(planning.FRAMES, 1, 3, 1)
    found = planning.cross_entropy(lambda actions: (actions - best).square().sum((0, 3)), 3)
    assert (found - best[:, 0]).square().mean() < 0.1 * best.square().mean()


def test_gradients_find_a_known_minimum_too_and_nan_stops_no_other_episode():
    best = torch.linspace(-0.8, 0.8, planning.FRAMES * 3).reshape(planning.FRAMES, 1, 3, 1)
    weights = torch.tensor([1.0, float("nan"), 1.0])
    found = planning.descend(lambda actions: weights * (actions - best).square().sum((0, 3)), 3)
    assert (found - best[:, 0])[:, [0, 2]].square().mean() < 0.1 * best.square().mean()
    assert found.isfinite().all()


def test_the_transformer_looks_back_only_and_continues_its_own_past():
    torch.manual_seed(0)
    model = CausalTransformer(2, control_dim=1).double()
    z, u = torch.randn(8, 5, 4).double(), torch.randn(9, 5, 1).double()
    later = z.clone()
    later[5:] += 1
    out, other = model(z, u[:8]), model(later, u[:8])
    torch.testing.assert_close(out[:5], other[:5])
    assert not torch.allclose(out[5], other[5])
    path = model.rollout(z[:3], u[:4])
    torch.testing.assert_close(path[0], model(z[:3], u[:3])[-1])
    torch.testing.assert_close(path[1], model(torch.cat((z[:3], path[:1])), u[:4])[-1])


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_every_predictor_trains_and_imagines(predictor):
    torch.manual_seed(0)
    for regularizer in REGULARIZERS if predictor == "separable" else REGULARIZERS[:1]:
        model = WorldModel(predictor, regularizer, dim=4, width=16)
        frames = torch.randint(0, 256, (10, 12, 32, 32), dtype=torch.uint8)
        states, actions = model.encode(frames), torch.rand(9, 12, 1)
        loss, _ = model.objective(states, actions[1:])
        loss.backward()
        unused = [name for name, x in model.named_parameters() if x.grad is None]
        assert loss.isfinite()
        assert unused == []
        path = model.imagine(states[:2], actions[1:6])
        assert path.shape == (4, 12, 8)
        if predictor != "transformer":
            one = model.objective.prediction.predictor(states[1], control=actions[2])
            torch.testing.assert_close(path[0], one)


def test_the_command_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(episodes, "TEST_EPISODES", 12)
    command = ["world_model", "--episodes", "64", "--steps", "3", "--dim", "4", "--out", str(tmp_path)]
    names = ["potential", "transformer"]
    monkeypatch.setattr(sys, "argv", [*command, "--predictors", *names])
    world_model.main()
    printed = capsys.readouterr().out
    assert (tmp_path / "report.md").read_text() in printed
    assert all(f"| {name} | 1 |" in printed for name in names)
    assert (tmp_path / "pendulum-floors-64-d4.png").stat().st_size > 10_000
    cell = Cell("pendulum", "potential", "floors", 64, 0, dim=4, steps=3)
    record = cell.result(tmp_path)
    assert set(record["surprise"]) == {"teleport", "reversed time", "half gravity", "double gravity"}
    record["loss"] = 12345.0  # a finished cell is read, not run again
    (cell.folder(tmp_path) / "cell.json").write_text(json.dumps(record))
    monkeypatch.setattr(sys, "argv", [*command, "--predictors", "potential"])
    world_model.main()
    assert "1.2e+04" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--predictors", "potential", "--steps", "4"])
    with pytest.raises(SystemExit, match="other settings|was made with"):
        world_model.main()


def test_unknown_names_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["world_model", "--predictors", "mlp"])
    with pytest.raises(SystemExit):
        world_model.main()
    assert "--predictors must be all or of separable" in capsys.readouterr().err

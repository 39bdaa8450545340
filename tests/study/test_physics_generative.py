"""Symplectic ODE-Net and the Hamiltonian generative network: their mathematics in float64, and both commands."""

import sys

import pytest
import torch

import symplectic_jepa as sj
from examples.physics import hgn, report
from examples.physics import symplectic_ode_net as ode

ANGLE, EMBEDDED = ode.TASKS
F64 = torch.float64


@pytest.fixture
def pendulum():
    """States ``(T, N, 2)`` and torques ``(N, 1)``, in float64."""
    starts, controls = (
        torch.randn(6, 2, dtype=F64),
        torch.tensor([[-2.0], [-1.0], [0.0], [0.0], [1.0], [2.0]], dtype=F64),
    )
    return ode.simulate(starts, controls, frames=20), controls


def test_the_true_pendulum_conserves_its_energy_minus_the_work_of_the_torque(pendulum):
    states, controls = pendulum
    total = ode.energy(ANGLE, states) - controls[:, 0] * states[..., 0]
    assert (total - total[0]).abs().max() < 1e-7
    assert (states[1:] - states[:-1]).abs().max() > 0.1


def test_both_observations_of_a_state_have_its_energy(pendulum):
    states, _ = pendulum
    expected = ode.PENDULUM(*sj.split_state(states))
    for task in ode.TASKS:
        torch.testing.assert_close(ode.energy(task, ode.observe(task, states)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("task", ode.TASKS)
@pytest.mark.parametrize("build", ode.MODELS.values())
def test_decoding_the_encoded_observation_returns_it(task, build, pendulum):
    x = ode.observe(task, pendulum[0])
    model = build(task).double()
    torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=1e-12, atol=1e-12)


def test_the_loss_is_that_of_a_trajectory_objective(pendulum):
    states, controls = pendulum
    model = ode.SymplecticODENet(ANGLE).double()
    objective = sj.TrajectoryObjective(model.predictor, horizon=ode.HORIZON, match="qp", starts="first")
    losses = [
        objective(states[t : t + ode.HORIZON + 1], controls.expand(ode.HORIZON, *controls.shape))[0]
        for t in range(len(states) - ode.HORIZON)
    ]
    found = ode.loss(model, *ode.windows(states, controls))
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-12, atol=0)


def test_the_true_functions_predict_the_true_motion_to_the_order_of_the_integrator(pendulum):
    states, controls = pendulum
    for task in ode.TASKS:
        model = ode.SymplecticODENet(task)
        model.energy = sj.MassMatrixHamiltonian(
            lambda q: torch.full((*q.shape, 1), 3**0.5, dtype=F64), ode.PENDULUM.potential
        )
        model.system = sj.ControlledHamiltonian(model.energy, lambda q: torch.ones(*q.shape, 1, dtype=F64))
        x, errors = ode.observe(task, states), []
        for steps in (1, 2):
            model.predictor = sj.HamiltonianPredictor(
                model.system, dt=ode.FRAME / steps, steps=steps, integrator=sj.implicit_midpoint
            )
            errors.append((ode.predict(model, x[0], controls, frames=4) - x[1:5]).abs().mean())
        assert errors[0] < 0.02
        assert 3.5 < errors[0] / errors[1] < 4.5
        torch.testing.assert_close(ode.functions(model, ode.ANGLES.double()), ode.truth(ode.ANGLES.double()))


def test_functions_do_not_depend_on_the_scale_that_velocities_leave_open(pendulum):
    states, controls = pendulum
    model, q, alpha = ode.SymplecticODENet(EMBEDDED).double(), ode.ANGLES.double(), 3.0
    x = ode.observe(EMBEDDED, states)
    with torch.no_grad():
        before = ode.functions(model, q), ode.predict(model, x[0], controls, frames=4)
        model.energy.floor /= alpha
        for network, scale in (
            (model.energy.factor, alpha**-0.5),
            (model.energy.potential, alpha),
            (model.system.input_matrix, alpha),
        ):
            network[-2].weight *= scale
            network[-2].bias *= scale
        mass = model.energy.inverse_mass(q).mean()
        after = ode.functions(model, q), ode.predict(model, x[0], controls, frames=4)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)  # to the six iterations of the solver
    assert mass < 2


def test_the_angle_and_the_energy_of_a_video_are_those_of_the_states():
    states = hgn.simulate(5, 40, torch.Generator().manual_seed(0))
    q, p = states[..., :1], states[..., 1:]
    video = hgn.render(q)
    assert video.shape == (40, 5, hgn.PIXELS, hgn.PIXELS)
    torch.testing.assert_close(hgn.angle(video), q[..., 0], rtol=0, atol=5e-3)
    true = hgn.Pendulum()(q, p)
    assert (true - true[0]).abs().max() < 1e-8
    assert (hgn.video_energy(video) - true[1:-1]).abs().max() < 0.15  # central differences over ± 0.1 s


def test_the_network_draws_positions_only_and_runs_backwards():
    torch.manual_seed(0)
    model = hgn.VideoModel(hgn.predictors()["HGN"]).double()
    seen = hgn.render(hgn.simulate(3, hgn.SEEN, torch.Generator().manual_seed(0))[..., :1])
    states = model.states(seen, frames=30)
    q, p = sj.split_state(states)
    torch.testing.assert_close(model.draw(sj.join_state(q, p + 1)), model.draw(states), rtol=0, atol=0)
    assert (model.draw(sj.join_state(q + 1, p)) - model.draw(states)).abs().max() > 1e-3
    back = model.predictor.rollout(states[-1], steps=30, direction=-1)
    torch.testing.assert_close(back.flip(0), states[:-1], rtol=1e-10, atol=1e-10)


def test_cells_of_several_seeds_are_means_and_deviations():
    runs = [{"a": {"x": 1.0, "y": 2e-5}, "b": {"x": 0.0}}, {"a": {"x": 3.0, "y": 2e-5}, "b": {"x": 0.0}}]
    assert report.over_seeds(runs) == [["model", "x", "y"], ["a", "2 ± 1.41", "2.0e-05 ± 0"], ["b", "0 ± 0", "–"]]
    assert report.markdown([["model", "x"], ["a", "1"]]) == "| model | x |\n| --- | --- |\n| a | 1 |"


@pytest.mark.parametrize(
    ("module", "small"),
    [(ode, {"STARTS": 2, "FREE": 45}), (hgn, {"TRAIN": 4, "TEST": 2})],
    ids=["symplectic_ode_net", "hgn"],
)
def test_the_command_writes_its_table_and_its_figure(module, small, tmp_path, monkeypatch, capsys):
    name = module.__name__.rpartition(".")[2]
    for key, value in small.items():
        monkeypatch.setattr(module, key, value)
    monkeypatch.setattr(sys, "argv", [name, "--seed", "0", "1", "--steps", "1", "--out", str(tmp_path / "new")])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    module.main()
    page = (tmp_path / "new" / f"{name}.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() in page
    assert "±" in page
    assert "nan" not in page
    assert f"python -m examples.physics.{name} --seed 0 1 --steps 1" in page
    assert (tmp_path / "new" / f"{name}.png").read_bytes().startswith(b"\x89PNG")

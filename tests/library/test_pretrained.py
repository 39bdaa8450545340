"""Weights and settings come back equal."""

import dataclasses
import inspect

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.pretrained import Pretrained
from tests.helpers.cases import CASES, MAPS, USER_ENERGIES, D
from tests.helpers.folders import call, scramble, settings, weights

WRITABLE = [name for name in CASES if name not in USER_ENERGIES]


def samples(module):
    torch.manual_seed(1)
    if isinstance(module, sj.predictors.Predictor):
        return torch.randn(5, 2 * D)
    return torch.randn(2, 24, 2 * D)


@pytest.mark.parametrize("name", WRITABLE)
def test_a_module_comes_back_equal(name, tmp_path):
    module = scramble(CASES[name]())
    x = samples(module)
    for _ in range(3):  # counters of random draws move on
        call(module, x)
    module.save_pretrained(tmp_path)
    loaded = type(module).from_pretrained(tmp_path)
    assert type(loaded) is type(module)
    assert not any(part.training for part in loaded.modules())
    loaded.save_pretrained(tmp_path / "again")
    for file in tmp_path.glob("*.*"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    loaded.train()
    for _ in range(3):
        assert torch.equal(call(loaded, x), call(module, x))


@pytest.mark.parametrize("name", CASES)
def test_every_argument_of_every_part_can_be_read(name):
    """And a module built from its settings has them: a property that reads another setting would show."""
    for part in CASES[name]().modules():
        if isinstance(part, Pretrained):
            config = part.config()
            inspect.signature(type(part)).bind(**config)
            named = [x for x in inspect.signature(type(part)).parameters.values() if x.kind is not x.VAR_KEYWORD]
            assert {x.name for x in named} <= config.keys()
            again = type(part)(**config).config()
            for key, x in config.items():
                same = torch.equal(again[key], x) if isinstance(x, torch.Tensor) else again[key] == x
                assert same or isinstance(x, nn.ModuleDict), key


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (sj.SeparableHamiltonian, {"dim": 3, "depth": 4, "activation": "tanh", "residual_scale": 0.25}),
        (sj.ResidualMLPPredictor, {"dim": 3, "hidden_dim": 5, "depth": 3, "dt": 0.3, "steps": 7, "learn_dt": True}),
        (sj.SIGReg, {"slices": 3, "knots": 5, "t_max": 4.1, "seed": 6, "sync": False}),
        (sj.SpectralFloors, {"log_det": -1.0, "top_share": 0.4, "proj_dim": 7, "eps": 0.1, "seed": 6}),
        (
            sj.geometries.RadialGeometry,
            {"grid": (2, 3), "knots": 4, "max_condition": 9.0, "initial_condition": 3.0, "boundary": "periodic"},
        ),
    ],
)
def test_settings_can_be_read_are_printed_and_come_back(module, options, tmp_path):
    built = module(**options)
    assert options.items() <= built.config().items()
    shown = ", ".join(f"{k}={x:g}" if isinstance(x, float) else f"{k}={x!r}" for k, x in options.items())
    assert built.extra_repr() == shown
    built.save_pretrained(tmp_path)
    assert settings(tmp_path)["arguments"].keys() == options.keys()  # defaults are left out
    assert module.from_pretrained(tmp_path).config() == built.config()


@pytest.mark.parametrize("options", [{}, {"stem": "imagenet", "token_layer": 2, "token_channels": 8, "grid": 2}])
def test_an_encoder_comes_back_equal(options, tmp_path):
    encoder = scramble(sj.PhaseSpaceTokenEncoder.resnet18(**options)).to(memory_format=torch.channels_last)
    encoder(torch.randn(4, 3, 32, 32))  # BatchNorm's statistics move
    encoder.save_pretrained(tmp_path)
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path)
    state, expected = loaded.state_dict(), encoder.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[k], expected[k]) for k in state)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), encoder.eval()(images))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_are_kept(dtype, tmp_path):
    objective = sj.hamjepa_cifar100(MAPS["leapfrog"]()).to(dtype)
    objective.save_pretrained(tmp_path)
    loaded = sj.HamJEPAObjective.from_pretrained(tmp_path)
    dtypes = {key: x.dtype for key, x in objective.state_dict().items()}
    assert {key: x.dtype for key, x in loaded.state_dict().items()} == dtypes
    assert {x.dtype for x in loaded.parameters()} == {dtype}
    assert all(x.requires_grad for x in loaded.parameters())


def test_a_module_without_values_can_be_printed():
    with torch.device("meta"):
        assert repr(sj.SeparableHamiltonian(3)).startswith("SeparableHamiltonian(\n  dim=3\n")


def test_tensor_arguments_and_integrators_of_every_kind(tmp_path):
    systems = [
        sj.QuadraticHamiltonian(D, geometry=3.0 * torch.eye(D)),
        sj.ControlledHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=4), torch.randn(D, 2)),
        sj.ControlledHamiltonian(sj.QuadraticHamiltonian(D), nn.Parameter(torch.randn(D, 2))),
    ]
    mclachlan = sj.integrators.Splitting("mine", kicks=(0.2, 0.6, 0.2), drifts=(0.5, 0.5), order=2)
    integrators = [sj.leapfrog, sj.integrators.SPLITTINGS["leapfrog"], sj.yoshida4, mclachlan]
    integrators += [sj.implicit_midpoint, sj.integrators.ImplicitMidpoint(iterations=3)]
    z = torch.randn(3, 2 * D)
    for system in systems:
        for integrator in integrators:
            predictor = sj.HamiltonianPredictor(system, integrator=integrator, dt=0.3, steps=3)
            predictor.save_pretrained(tmp_path)
            loaded = sj.HamiltonianPredictor.from_pretrained(tmp_path)
            assert loaded.integrator == integrator
            assert torch.equal(loaded(z), predictor(z))
            if isinstance(integrator, sj.integrators.Splitting):
                assert dataclasses.asdict(loaded.integrator) == dataclasses.asdict(integrator)
    assert isinstance(loaded.hamiltonian.input_matrix, nn.Parameter)
    assert load_file(weights(tmp_path)).keys() == {"hamiltonian.input_matrix"}  # once, though argument and state


def test_settings_changed_after_the_construction_are_written(tmp_path):
    objective = sj.hamjepa_cifar100(MAPS["leapfrog"]())
    objective.predictor = sj.HamiltonianPredictor(sj.SeparableHamiltonian(D, hidden_dim=5), steps=7)
    objective.penalties["mean"].weight = 0.5
    del objective.penalties["budget_q"]
    objective.save_pretrained(tmp_path)
    loaded = sj.HamJEPAObjective.from_pretrained(tmp_path)
    assert (loaded.predictor.steps, loaded.penalties["mean"].weight) == (7, 0.5)
    assert list(loaded.penalties) == list(objective.penalties)


def test_shared_parts_stay_shared(tmp_path):
    geometry = sj.geometries.RadialGeometry((2, 2))
    shared = sj.HamSIGReg(geometry, slices=4)
    penalties = {
        "q": sj.Penalty(shared, views="separate"),
        "p": sj.Penalty(shared),
        "z": sj.Penalty(sj.HamSIGReg(geometry, slices=5)),
    }
    objective = sj.LeJEPAObjective(penalties)
    objective.save_pretrained(tmp_path)
    loaded = sj.LeJEPAObjective.from_pretrained(tmp_path)
    assert len(list(loaded.parameters())) == len(list(objective.parameters())) == 1
    q, p, z = (loaded.penalties[name].regularizer for name in "qpz")
    assert q is p
    assert q is not z
    assert q.geometry is z.geometry
    assert [key for key in load_file(weights(tmp_path)) if key.endswith("theta")] == [
        "penalties.q.regularizer.geometry.theta"
    ]


def test_tied_weights_stay_tied(tmp_path):
    predictor = sj.ResidualMLPPredictor(2, hidden_dim=4, depth=3)
    predictor.residual[4].weight = predictor.residual[2].weight
    matrix = nn.Parameter(torch.randn(2, 1))
    predictor.save_pretrained(tmp_path)
    loaded = sj.ResidualMLPPredictor.from_pretrained(tmp_path)
    assert loaded.residual[4].weight is loaded.residual[2].weight
    assert sum(x.numel() for x in loaded.parameters()) == sum(x.numel() for x in predictor.parameters())
    inner = sj.ControlledHamiltonian(sj.QuadraticHamiltonian(2), matrix)
    sj.ControlledHamiltonian(inner, matrix).save_pretrained(tmp_path)
    assert len(list(sj.ControlledHamiltonian.from_pretrained(tmp_path).parameters())) == 1

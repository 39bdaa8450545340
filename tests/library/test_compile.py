"""One graph: every module compiles whole, once, waits for no device, and may be held still for a CUDA graph."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode

import symplectic_jepa as sj
from tests.helpers.cases import CASES, DRIVEN, MAPS, USER_ENERGIES, D
from tests.helpers.systems import Coupled

USER = lambda: sj.HamiltonianPredictor(Coupled().float(), integrator=sj.integrators.ImplicitMidpoint(4))  # noqa: E731
EVERY = {**CASES, **DRIVEN, "user energy": USER}


def run(module, x):
    """Loss, and its gradient by the input and by every parameter that has one."""
    output = module(x)
    loss = output[0] if isinstance(output, tuple) else output.square().mean()
    wanted = [x, *module.parameters()]
    return [loss, *torch.autograd.grad(loss, wanted, allow_unused=True)]


@pytest.fixture
def states():
    torch.manual_seed(0)
    return torch.randn(2, 32, 2 * D, requires_grad=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_compiles_whole_and_once_and_equals_eager(name, states):
    torch.manual_seed(1)
    module = EVERY[name]()
    reference = copy.deepcopy(module)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    for step in range(4):
        if step == 2:  # the warm-ups of a training run
            for m in (*module.modules(), *reference.modules()):
                if hasattr(m, "set_residual_scale"):
                    m.set_residual_scale(0.5)
                if hasattr(m, "set_regularizer_scale"):
                    m.set_regularizer_scale(0.5)
        for got, wanted in zip(run(compiled, states), run(reference, states), strict=True):
            if wanted is None:
                assert got is None
            else:
                torch.testing.assert_close(got, wanted, rtol=2e-5, atol=1e-6)
    assert counter.frame_count == 1
    expected = reference.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())


@pytest.mark.slow
def test_the_whole_objective_through_inductor(states):
    module = sj.HamJEPAObjective(MAPS["leapfrog"](), penalties={**sj.hamjepa_penalties(), **sj.sigreg_penalties()})
    reference = copy.deepcopy(module)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True)
    for _ in range(2):
        for got, wanted in zip(run(compiled, states), run(reference, states), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_waits_for_the_device(name):
    """A fake tensor has no values: ``.item()``, ``bool(x)``, ``nonzero`` and the like raise on it, in either pass."""
    with torch.device("meta"):
        module = EVERY[name]()
    with FakeTensorMode(allow_non_fake_inputs=True):
        module.to_empty(device="cpu")
        states = torch.randn(2, 32, 2 * D, requires_grad=True)
        loss, grad, *_ = run(module, states)
    assert loss.shape == ()
    assert grad.shape == states.shape


def test_the_fake_mode_would_catch_a_wait():
    with FakeTensorMode(), pytest.raises(Exception, match=r"item|_local_scalar_dense|data-dependent"):
        torch.randn(3).sum().item()


STATELESS = ["EnergyBudget", "VarianceFloor", "MeanPenalty", "VICReg", "BarlowTwins", "CodingRate", "MMD", *MAPS]


@pytest.mark.parametrize("name", [n for n in STATELESS if n not in USER_ENERGIES])
def test_what_has_no_state_can_be_exported(name, states):
    module = CASES[name]()
    exported = torch.export.export(module, (states.detach(),)).module()
    torch.testing.assert_close(exported(states), module(states), rtol=1e-5, atol=1e-6)


def test_an_objective_without_draws_can_be_exported(states):
    penalties = {"budget": sj.Penalty(sj.EnergyBudget(), on="q"), "mean": sj.Penalty(sj.MeanPenalty())}
    module = sj.HamJEPAObjective(MAPS["leapfrog"](), penalties=penalties)
    exported = torch.export.export(module, (states.detach(),)).module()
    torch.testing.assert_close(exported(states)[0], module(states).loss, rtol=1e-5, atol=1e-6)


def test_the_encoder_compiles_and_can_be_exported():
    torch.manual_seed(0)
    encoder = sj.PhaseSpaceTokenEncoder(nn.Conv2d(3, 8, 4, 4), in_channels=8, token_channels=4, grid=2)
    images = torch.randn(4, 3, 16, 16)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(copy.deepcopy(encoder), fullgraph=True, backend=counter)
    torch.testing.assert_close(compiled(images), encoder(images))
    assert counter.frame_count == 1
    encoder.eval()
    torch.testing.assert_close(torch.export.export(encoder, (images,)).module()(images), encoder(images))


# Held draws: what a captured graph reads


@pytest.mark.parametrize("name", ["HamJEPA", "LeJEPA", "SpectralFloors", "SIGReg"])
@pytest.mark.parametrize("done", [0, 3])  # steps before, as after a resume
def test_held_draws_that_are_advanced_give_the_same_losses(name, done, states):
    torch.manual_seed(1)
    automatic = CASES[name]()
    held = copy.deepcopy(automatic)
    for module in (automatic, held):
        for _ in range(done):
            module(states)
    sj.hold_draws(held)
    for _ in range(2):  # warm-up calls count no step
        held(states)
    matrices = [m._matrix for m in held.modules() if hasattr(m, "_matrix")]
    places = [m.data_ptr() for m in matrices]
    for _ in range(5):
        sj.advance_draws(held)
        for got, wanted in zip(run(held, states), run(automatic, states), strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    assert [m.data_ptr() for m in matrices] == places
    expected = automatic.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in held.state_dict().items())


def test_held_draws_refuse_what_they_do_not_hold(states):
    floor = sj.SpectralFloors(log_det=0.0)
    sj.hold_draws(floor)
    with pytest.raises(RuntimeError, match="call hold"):
        sj.advance_draws(floor)
    floor(states)
    with pytest.raises(ValueError, match=r"returns one matrix, \(16, 16\) torch.float32"):
        floor(states[..., :D])

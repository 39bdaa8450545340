"""What a step is: one forward pass by default, or what `set_step` says, so that several passes use one draw."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import symplectic_jepa as sj
from symplectic_jepa.regularizers import unit_directions
from symplectic_jepa.regularizers.draws import Schedule
from tests.helpers.cases import REGULARIZERS, D

WIDE = 130  # of q and of p: more than the presets' projections keep


def predictor():
    return sj.HamiltonianPredictor(sj.SeparableHamiltonian(WIDE, hidden_dim=8))


DRAWING = {name: REGULARIZERS[name] for name in ("ProjectedLogDetFloor", "ParticipationRatioFloor", "SIGReg")}
DRAWING |= {name: make for name, make in REGULARIZERS.items() if name.startswith("HamSIGReg")}
DRAWING |= {
    "SpectralFloors": lambda: sj.SpectralFloors(log_det=1.0, participation=0.9, top_share=0.1, proj_dim=6),
    "TopEigenvalueCeiling": REGULARIZERS["TopEigenvalueCeiling"],
    "SlicedMMD": REGULARIZERS["SlicedMMD"],
}
PRESETS = {
    "hamjepa_cifar100": lambda: sj.hamjepa_cifar100(predictor()),
    "hamjepa_imagenet100": lambda: sj.hamjepa_imagenet100(predictor()),
    "sigreg_baseline": sj.sigreg_baseline,
}
CASES = {**DRAWING, **PRESETS}


def steps(module):
    return {int(m.step) for m in module.modules() if isinstance(m, Schedule)}


def build(name):
    torch.manual_seed(1)
    return CASES[name]().double()


def states(module):
    """Small for a regularizer, wide for a preset, with a spectrum that falls fast enough to violate every floor."""
    n, dim = (260, 2 * WIDE) if hasattr(module, "penalties") else (48, 2 * D)
    generator = torch.Generator().manual_seed(0)
    falling = torch.logspace(0, -2, dim // 2, dtype=torch.float64).repeat(2)
    return torch.randn(2, n, dim, generator=generator, dtype=torch.float64) * falling


def loss_of(module, x=None):
    output = module(states(module) if x is None else x)
    return output[0] if isinstance(output, tuple) else output


def run(module, function=loss_of):
    """Loss of one pass, and its gradient by the input and by every parameter."""
    x = states(module).requires_grad_()
    loss = function(module, 1.0 * x)
    loss.backward()
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    return [loss.detach(), x.grad, *grads]


def recomputed(reentrant):
    return lambda module, x: checkpoint(lambda x: loss_of(module, x), x, use_reentrant=reentrant)


def test_every_regularizer_that_draws_is_a_case():
    def counts(module):
        module(torch.randn(2, 48, 2 * D))
        return steps(module) == {1}

    every = [make() for make in REGULARIZERS.values()]
    assert {type(module) for module in every if counts(module)} == {type(build(name)) for name in DRAWING}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_every_case_depends_on_the_draw(name):
    """Otherwise the tests below could not fail."""
    module = build(name)
    grads = []
    for step in (0, 40):
        module.set_step(step)
        grads.append(run(module)[1])
    assert (grads[0] - grads[1]).norm() > 1e-3 * grads[0].norm()


# Recomputation


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_recomputed_gradient_equals_the_plain_one(name, reentrant):
    plain, module = build(name), build(name)
    for step in (3, 5):
        for m in (plain, module):
            m.set_step(step)
        for got, wanted in zip(run(module, recomputed(reentrant)), run(plain), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14)
        assert steps(module) == {step}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", CASES)
def test_recomputation_without_a_step_is_refused(name, mode, reentrant):
    module = build(name).train(mode == "train")
    with pytest.raises(RuntimeError, match=r"inside a backward pass .*call set_step\(step\) on the objective"):
        run(module, recomputed(reentrant))
    assert steps(module) == {int(mode == "train")}
    module.set_step(None)
    run(module)  # a pass of its own still counts


@pytest.mark.slow
@pytest.mark.parametrize("order", ["checkpoint in graph", "graph in checkpoint"])
def test_a_compiled_graph_that_recomputes_is_exact_or_refused(order):
    module, plain = build("sigreg_baseline"), build("sigreg_baseline")
    torch._dynamo.reset()
    if order == "checkpoint in graph":
        compiled = torch.compile(lambda x: recomputed(False)(module, x), backend="aot_eager", fullgraph=True)
        function = lambda _, x: compiled(x)  # noqa: E731
    else:
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        function = lambda _, x: recomputed(False)(compiled, x)  # noqa: E731
    with pytest.raises(RuntimeError, match="call set_step"):
        run(module, function)
    for m in (plain, module):
        m.set_step(7)
    for got, wanted in zip(run(module, function), run(plain), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


# The step that was set


@pytest.mark.parametrize("name", CASES)
def test_a_set_step_has_the_draw_of_counting_to_it(name):
    counting, module = build(name), build(name)
    losses = [loss_of(counting) for _ in range(20)]
    for step in (0, 17, 4, 4):
        module.set_step(step)
        assert all(torch.equal(loss_of(module), losses[step]) for _ in range(2))
    module.set_step(None)  # counts from there
    assert all(torch.equal(loss_of(module), losses[step]) for step in (4, 5, 6))
    assert steps(module) == {7}


def test_a_step_is_set_in_every_part_of_a_model():
    model = nn.ModuleDict(
        {"encoder": nn.Linear(2, 2), "objective": build("hamjepa_cifar100"), "other": build("SIGReg")}
    )
    sj.set_step(model, 9)
    assert steps(model) == {9}
    sj.set_step(nn.Linear(2, 2), 9)
    sj.VarianceFloor().set_step(9)


def test_a_checkpoint_contains_the_step_but_not_that_it_was_set():
    module, resumed = build("hamjepa_cifar100"), build("hamjepa_cifar100")
    module.set_step(33)
    resumed.load_state_dict(module.state_dict())
    assert torch.equal(loss_of(resumed), loss_of(module))
    assert (steps(module), steps(resumed)) == ({33}, {34})


def test_held_matrices_follow_a_set_and_a_loaded_step():
    counting, held = build("hamjepa_cifar100"), build("hamjepa_cifar100")
    losses = [loss_of(counting) for _ in range(40)]
    sj.hold_draws(held)
    loss_of(held)
    for step in (17, 3, 39):  # in the middle of a window of 16 steps
        held.set_step(step)
        sj.advance_draws(held)
        assert torch.equal(loss_of(held), losses[step])
    assert steps(held) == {39}
    held.set_step(None)
    loaded = build("hamjepa_cifar100")
    loaded.set_step(20)
    held.load_state_dict(loaded.state_dict())
    sj.advance_draws(held)
    assert torch.equal(loss_of(held), losses[20])
    assert steps(held) == {21}


def test_setting_the_step_compiles_nothing_again():
    module, plain = build("sigreg_baseline"), build("sigreg_baseline")
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    for step in (None, 0, 1, 1, 40, None, None):
        for m in (compiled, plain):
            m.set_step(step)
        torch.testing.assert_close(loss_of(compiled), loss_of(plain), rtol=1e-12, atol=0)
    assert counter.frame_count == 1
    assert steps(module) == steps(plain) == {42}


@pytest.mark.parametrize("step", [-1, True, 1.0, "3", 2**63])
def test_a_bad_step_is_named(step):
    for setter in (build("SIGReg").set_step, build("sigreg_baseline").set_step):
        with pytest.raises(ValueError, match=r"step must be an int from 0 to 2\*\*63 - 1, or None, got"):
            setter(step)


# Several passes in one step


def formula(step):
    """The directions of ``SIGReg(slices=16)`` at a step."""
    generator = torch.Generator().manual_seed(step)  # its seed is 0
    return unit_directions(2 * D, 16, generator, torch.float64)


def test_the_closures_of_lbfgs_minimise_one_function():
    ends = []
    for given in (None, formula(6)):
        torch.manual_seed(0)
        layer, penalty = nn.Linear(2 * D, 2 * D).double(), sj.SIGReg(slices=16)
        x = torch.randn(2, 48, 2 * D, dtype=torch.float64)
        optimizer = torch.optim.LBFGS(layer.parameters(), line_search_fn="strong_wolfe")
        penalty.set_step(6)

        def closure(x=x, layer=layer, penalty=penalty, optimizer=optimizer, given=given):
            optimizer.zero_grad()
            loss = penalty(layer(x), directions=given)
            loss.backward()
            return loss

        first, last = optimizer.step(closure), closure()
        assert last < 0.5 * first
        ends.append(layer.weight.detach())
    assert torch.equal(*ends)


def test_both_passes_of_sam_have_one_draw():
    grads, x = [], torch.randn(48, 2 * D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for given in (None, formula(2)):
        weight, penalty = torch.eye(2 * D, dtype=torch.float64).requires_grad_(), sj.SIGReg(slices=16)
        penalty.set_step(2)
        uphill = torch.autograd.grad(penalty(x @ weight, directions=given), weight)[0]
        sharper = (weight + 0.05 * uphill / uphill.norm()).detach().requires_grad_()
        grads.append(torch.autograd.grad(penalty(x @ sharper, directions=given), sharper)[0])
    assert torch.equal(*grads)


def test_accumulated_passes_have_one_draw_and_are_one_step():
    """The gradient of the mean loss of four parts, over steps that cross a redraw."""
    weights = []
    for parts_at_once in (True, False):
        torch.manual_seed(0)
        layer, floor = nn.Linear(2 * D, 2 * D).double(), sj.SpectralFloors(log_det=1.0, proj_dim=6, refresh_every=2)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for step in range(5):
            parts = torch.randn(4, 24, 2 * D, dtype=torch.float64)
            optimizer.zero_grad()
            if parts_at_once:
                floor(layer(parts)).backward()  # averages over leading dimensions; counts by itself
            else:
                floor.set_step(step)
                for part in parts:
                    (floor(layer(part)) / len(parts)).backward()
            optimizer.step()
        weights.append(copy.deepcopy(layer.weight.detach()))
    torch.testing.assert_close(*weights, rtol=1e-10, atol=1e-12)

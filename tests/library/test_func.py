"""The transforms of ``torch.func`` through every module: equal to autograd, or refused by name."""

import copy

import pytest
import torch
from torch.func import functional_call, grad, jacrev, vjp, vmap

import symplectic_jepa as sj
from symplectic_jepa.theory._inputs import symmetric_root
from tests.helpers.cases import CASES, DRIVEN, REGULARIZERS, D
from tests.helpers.samples import spd
from tests.helpers.systems import Coupled, by_weights, small_predictor

USER = lambda: sj.HamiltonianPredictor(Coupled(), integrator=sj.implicit_midpoint)  # noqa: E731
EVERY = {**CASES, **DRIVEN, "user energy": USER}


@pytest.fixture
def states():
    return torch.randn(2, 32, 2 * D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def make(name):
    torch.manual_seed(1)
    return EVERY[name]().double()


def scalar(output):
    output = output[0] if isinstance(output, tuple) else output
    return output if output.ndim == 0 else (output * torch.linspace(-1, 2, output.numel()).reshape(output.shape)).sum()


def by_autograd(module, x):
    """Loss, and its gradient by the states and by the weights."""
    x, weights = x.clone().requires_grad_(), dict(module.named_parameters())
    loss = scalar(module(x))
    found = torch.autograd.grad(loss, [x, *weights.values()], allow_unused=True, materialize_grads=True)
    return loss.detach(), found[0], dict(zip(weights, found[1:], strict=True))


@pytest.mark.parametrize("name", EVERY)
def test_grad_and_vjp_equal_autograd(name, states):
    module = make(name)
    loss, by_states, by_weights = by_autograd(copy.deepcopy(module), states)

    def run(weights, x):
        return scalar(functional_call(copy.deepcopy(module), weights, (x,)))

    weights = {key: x.detach() for key, x in module.named_parameters()}
    got_weights, got_states = grad(run, argnums=(0, 1))(weights, states)
    torch.testing.assert_close(got_states, by_states, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(got_weights, by_weights, rtol=1e-10, atol=1e-13)
    value, pull_back = vjp(run, weights, states)
    torch.testing.assert_close(value, loss, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(pull_back(torch.ones_like(value))[1], by_states, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_vmap_of_the_gradient_is_one_gradient_after_the_other(name, states):
    module = make(name).eval()  # one draw for all
    batch = torch.stack((states, 2 * states, states.flip(-1)))
    expected = torch.stack([by_autograd(module, x)[1] for x in batch])
    torch.testing.assert_close(vmap(grad(module))(batch), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(vmap(module)(batch), torch.stack([module(x) for x in batch]))


@pytest.mark.parametrize("name", ["SIGReg", "MMD", "SlicedMMD", "ProjectedLogDetFloor", "CodingRate", "LeJEPA"])
def test_a_second_derivative_that_would_be_zero_is_refused(name, states):
    module = make(name).eval()
    with pytest.raises(RuntimeError, match="can be differentiated only once"):
        grad(lambda x: grad(lambda x: scalar(module(x)))(x).square().sum())(states)
    with pytest.raises(RuntimeError, match="can be differentiated only once"):
        jacrev(grad(lambda x: scalar(module(x))))(states)
    x = states.clone().requires_grad_()
    (first,) = torch.autograd.grad(scalar(module(x)), x, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated only once"):
        first.square().sum().backward()


def test_a_matrix_root_has_its_derivative_and_refuses_a_second():
    matrix = spd(4)

    def run(m):
        return symmetric_root((m + m.mT) / 2).sin().sum()

    leaf = matrix.clone().requires_grad_()
    expected = torch.autograd.grad(run(leaf), leaf)[0]
    torch.testing.assert_close(grad(run)(matrix), expected)
    torch.testing.assert_close(vmap(grad(run))(torch.stack((matrix, matrix))), torch.stack((expected, expected)))
    with pytest.raises(RuntimeError, match="can be differentiated only once"):
        grad(lambda m: grad(run)(m).square().sum())(matrix)


def test_the_hessian_of_a_rollout_equals_that_of_autograd(states):
    """The dynamics, and the participation floor, are differentiable any number of times."""
    floor = sj.ParticipationRatioFloor(0.9, proj_dim=None)
    leapfrog, midpoint, z = small_predictor(D), USER(), states[0, :3]
    for run in (lambda z: leapfrog(z).sin().sum(), lambda z: midpoint(z).sin().sum(), floor):
        expected = torch.autograd.functional.hessian(run, z)
        assert expected.any()
        torch.testing.assert_close(jacrev(grad(run))(z), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["user potential", "user energy"])
def test_a_force_by_autograd_knows_the_transform(name, states):
    """Also if only the weights are transformed, or rows are mapped."""
    system, (q, p) = make(name).hamiltonian, states.split(D, dim=-1)
    run, weights = by_weights(system, lambda system: sum(x.square().sum() for x in system.gradient(q, p)))
    expected = torch.autograd.grad(run(*weights), weights, allow_unused=True, materialize_grads=True)
    got = grad(run, argnums=tuple(range(len(weights))))(*(x.detach() for x in weights))
    torch.testing.assert_close(got, expected)
    with torch.no_grad():
        torch.testing.assert_close(vmap(system.gradient)(q, p), system.gradient(q, p))


def test_the_reversible_gradient_is_refused(states):
    predictor = small_predictor(D, gradient="reversible")
    with pytest.raises(RuntimeError, match="which torch.func cannot transform; use gradient='stored'"):
        grad(lambda z: predictor(z).sum())(states)

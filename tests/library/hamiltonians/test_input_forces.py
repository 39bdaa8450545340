"""How an input enters: the force of ``V(q, u)`` against its energy, and a general system under ``B(q)u``."""

import itertools

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.hamiltonians import AbstractSeparable
from tests.helpers.actions import (
    F64,
    GENERAL,
    MATRIX,
    SEPARABLE,
    D,
    M,
    Turning,
    Wells,
    build,
    by_action,
    inputs,
    midpoint,
    residual_mlp,
)
from tests.helpers.systems import Coupled

# The force of V(q, u)


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh", "softplus"])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("shape", [(5, M), (M,), (1, M)])
def test_the_force_is_minus_the_partial_derivative_by_position(activation, depth, shape):
    torch.manual_seed(0)
    h = by_action(activation=activation, depth=depth).double()
    q, u = torch.randn(5, D, **F64, requires_grad=True), torch.randn(*shape, **F64)
    joined = torch.cat((q, u.expand(5, M)), -1)
    by_hand = 0.05 * q.square().sum(-1) + _mlp(h, joined)
    torch.testing.assert_close(h.potential(q, u), by_hand, rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(by_hand.sum(), q)
    torch.testing.assert_close(h.force(q, u), -slope, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        for i, e in enumerate(1e-5 * torch.eye(D, **F64)):
            quotient = (h.potential(q + e, u) - h.potential(q - e, u)) / 2e-5
            torch.testing.assert_close(h.force(q, u)[:, i], -quotient, rtol=1e-7, atol=1e-9)


def _mlp(h, x):
    act = {
        "gelu": nn.functional.gelu,
        "silu": nn.functional.silu,
        "tanh": torch.tanh,
        "softplus": lambda a: (1 + a.exp()).log(),
    }
    for layer in h.hidden:
        x = act[h.activation](x @ layer.weight.T + layer.bias)
    return h.residual_scale * (x @ h.output.weight.T).squeeze(-1)


@pytest.mark.parametrize("make", [by_action, SEPARABLE["user V(q, u)"], SEPARABLE["V(q, u) and B"]])
def test_gradients_reach_state_input_and_weights(make):
    predictor, (z, u) = build(make, steps=2), inputs(2)
    assert torch.autograd.gradcheck(lambda z, u: predictor(z, control=u), (z.requires_grad_(), u.requires_grad_()))
    predictor(z, control=u).square().sum().backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in predictor.parameters())


def test_a_users_force_is_that_by_hand_in_every_mode():
    h, (z, u) = sj.PotentialHamiltonian(Wells(), control_dim=M).double(), inputs(4)
    q = z[:, :D]
    expected = h.potential_fn.force(q, u).detach()
    for control in (u, u.clone().requires_grad_()):
        torch.testing.assert_close(h.with_control(control).force(q), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(h.force(q, u), expected, rtol=1e-12, atol=1e-12)
    with torch.inference_mode():
        torch.testing.assert_close(h.force(q.clone(), u.clone()), expected, rtol=1e-12, atol=1e-12)
        assert u.clone().is_inference()


def test_without_control_dim_nothing_has_changed():
    """Names, shapes and draws are those of the layers written out; a control only widens the first layer."""
    torch.manual_seed(0)
    h = sj.SeparableHamiltonian(D, hidden_dim=8)
    mlp = sj.ResidualMLPPredictor(D, hidden_dim=8)
    torch.manual_seed(0)
    layers = [nn.Linear(D, 8), nn.Linear(8, 8), nn.Linear(8, 1, bias=False)]
    residual = [nn.Linear(2 * D, 8), nn.Linear(8, 8), nn.Linear(8, 2 * D)]
    assert list(h.state_dict()) == [
        "residual_scale", "hidden.0.weight", "hidden.0.bias", "hidden.1.weight", "hidden.1.bias", "output.weight"
    ]  # fmt: skip
    for module, written in ((h, layers), (mlp, residual)):
        expected = [x for layer in written for x in layer.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), expected, strict=True))
        assert not module.takes_control
    assert list(by_action().state_dict()) == list(h.state_dict())
    assert by_action().hidden[0].weight.shape == (8, D + M)
    assert list(residual_mlp().state_dict()) == list(mlp.state_dict())
    assert residual_mlp().residual[0].weight.shape == (8, 2 * D + M)


# A general Hamiltonian under B u and B(q) u


@pytest.mark.parametrize("turning", [False, True])
def test_a_general_system_follows_its_equations_of_motion(turning):
    """``q̇ = ∂H/∂p``, ``ṗ = −∂H/∂q + B(q)u`` by Runge–Kutta of order 4; the midpoint rule has order 2."""
    free, (z, u) = Coupled(), inputs(5)
    z, u, matrix = 0.5 * z, 0.5 * u, Turning() if turning else MATRIX
    strength = free.strength.item()

    def field(z):
        q, p = z.chunk(2, -1)
        b = matrix(q) if turning else MATRIX.expand(5, D, M)
        dq = strength * q * p.square() + q.sin()
        return torch.cat((p * (1 + strength * q.square()), -dq + torch.einsum("bdm,bm->bd", b, u)), -1)

    truth, h = z, 1 / 200
    for _ in range(200):
        a = field(truth)
        b = field(truth + h / 2 * a)
        c = field(truth + h / 2 * b)
        d = field(truth + h * c)
        truth = truth + h / 6 * (a + 2 * b + 2 * c + d)
    system = sj.ControlledHamiltonian(free, matrix)
    errors = [
        (sj.HamiltonianPredictor(system, dt=1 / n, steps=n, integrator=midpoint)(z, control=u) - truth).abs().max()
        for n in (10, 20, 40)
    ]
    assert errors[-1] < 3e-3
    assert all(3.5 < a / b < 4.5 for a, b in itertools.pairwise(errors))
    dq, dp = free.by_hand(*z.chunk(2, -1))
    got = system.with_control(u).gradient(*z.chunk(2, -1))
    torch.testing.assert_close(torch.cat((got[1], -got[0]), -1), field(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat(system.gradient(*z.chunk(2, -1)), -1), torch.cat((dq, dp), -1))


@pytest.mark.parametrize("make", GENERAL.values())
def test_a_general_system_is_not_taken_for_a_separable_one(make):
    torch.manual_seed(0)
    system, (z, u) = make().double(), inputs(4)
    q, p = z.chunk(2, -1)
    for h in (system, system.with_control(u)):
        assert not isinstance(h, AbstractSeparable)
        with pytest.raises(TypeError, match="hamiltonian must be separable"):
            sj.leapfrog(h, q, p, dt=0.1)
    torch.testing.assert_close(system(q, p), system.hamiltonian(q, p), rtol=0, atol=0)
    expected = system.hamiltonian(q, p) - torch.einsum("bd,dm,bm->b", q, MATRIX, u)
    torch.testing.assert_close(system.with_control(u)(q, p), expected, rtol=1e-12, atol=1e-12)
    free = sj.HamiltonianPredictor(system.hamiltonian, integrator=midpoint)
    assert torch.equal(sj.HamiltonianPredictor(system, integrator=midpoint)(z), free(z))
    with pytest.raises(TypeError, match=r"energy only for a constant input_matrix, got B\(q\)"):
        sj.ControlledHamiltonian(system.hamiltonian, Turning()).with_control(u)(q, p)


def test_a_system_in_two_parts_takes_the_same_input_in_both():
    torch.manual_seed(0)
    inner = by_action().double()
    system, (z, u) = sj.ControlledHamiltonian(inner, MATRIX), inputs(4)
    q, p = z.chunk(2, -1)
    driven = system.with_control(u)
    torch.testing.assert_close(driven.force(q), inner.force(q, u) + u @ MATRIX.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(driven(q, p), inner.with_control(u)(q, p) - (q * (u @ MATRIX.T)).sum(-1))


def test_training_finds_the_input_matrix_of_a_general_system():
    """From one frame of random states; potential and coupling are known, ``B`` is not."""
    z, u = (x.float() for x in inputs(64))
    world = sj.ControlledHamiltonian(Coupled().float(), MATRIX.float())
    model = sj.ControlledHamiltonian(Coupled().float().requires_grad_(False), nn.Parameter(torch.zeros(D, M)))
    predictors = [sj.HamiltonianPredictor(h, dt=0.1, integrator=sj.implicit_midpoint) for h in (world, model)]
    target = predictors[0](z, control=u).detach()
    optimizer = torch.optim.Adam([model.input_matrix], lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        (predictors[1](z, control=u) - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(model.input_matrix.detach(), MATRIX.float(), rtol=0, atol=1e-2)

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from symplectic_jepa import PotentialHamiltonian, QuadraticHamiltonian, SeparableHamiltonian, leapfrog
from symplectic_jepa.geometries import MatrixGeometry
from symplectic_jepa.hamiltonians import GeneralHamiltonian
from tests.helpers.systems import Well, by_weights

ACTIVATIONS = {"gelu": nn.GELU(), "silu": nn.SiLU(), "tanh": nn.Tanh(), "softplus": nn.Softplus(threshold=1e9)}


def minus_gradient(energy, q):
    q = q.detach().requires_grad_()
    (grad,) = torch.autograd.grad(energy(q).sum(), q)
    return -grad


@given(
    activation=st.sampled_from(list(ACTIVATIONS)),
    dim=st.integers(1, 6),
    hidden=st.integers(1, 9),
    depth=st.integers(1, 4),
    batch=st.lists(st.integers(1, 3), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_closed_form_force_is_minus_the_gradient_of_the_potential(activation, dim, hidden, depth, batch):
    h = SeparableHamiltonian(
        dim, hidden_dim=hidden, depth=depth, activation=activation, base_coeff=0.3, residual_scale=0.7
    ).double()
    q = 3 * torch.randn(*batch, dim, dtype=torch.float64)
    assert h.potential(q).shape == q.shape[:-1]
    torch.testing.assert_close(h.force(q), minus_gradient(h.potential, q), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_potential_is_the_formula_with_a_textbook_mlp(activation):
    h = SeparableHamiltonian(5, hidden_dim=7, depth=2, activation=activation, base_coeff=0.1, residual_scale=0.5)
    h = h.double()
    act = ACTIVATIONS[activation]
    q, p = torch.randn(2, 4, 5, dtype=torch.float64)
    f = h.output(act(h.hidden[1](act(h.hidden[0](q)))))[:, 0]
    expected = 0.5 * p.square().sum(-1) + 0.05 * q.square().sum(-1) + h.residual_scale * f
    torch.testing.assert_close(h(q, p), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_force_has_right_second_derivatives_in_states_and_weights(activation):
    h = SeparableHamiltonian(3, hidden_dim=4, depth=2, activation=activation, residual_scale=1.0).double()
    force, weights = by_weights(h, lambda h, q: h.force(q))
    assert torch.autograd.gradcheck(force, (torch.randn(2, 3, dtype=torch.float64, requires_grad=True), *weights))


def test_every_parameter_gets_a_gradient_from_the_force():
    h = SeparableHamiltonian(3, hidden_dim=4)
    h.force(torch.randn(5, 3)).square().sum().backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in h.parameters())


def test_residual_scale_is_a_buffer_that_warm_up_sets_in_place():
    h = SeparableHamiltonian(3, hidden_dim=4, residual_scale=0.5)
    buffer, q = h.residual_scale, torch.randn(2, 3)
    assert "residual_scale" in h.state_dict()
    h.set_residual_scale(0.0)
    assert h.residual_scale is buffer
    torch.testing.assert_close(h.force(q), -0.1 * q)
    with pytest.raises(ValueError, match=r"scale must be a finite number, got nan"):
        h.set_residual_scale(float("nan"))


def test_quadratic_is_half_qhq_with_force_minus_hq():
    a = torch.randn(4, 4, dtype=torch.float64)
    geometry = a @ a.T + torch.eye(4, dtype=torch.float64)
    q, p = torch.randn(2, 6, 4, dtype=torch.float64)
    h = QuadraticHamiltonian(4, geometry=geometry)
    expected = 0.5 * torch.einsum("bi,ij,bj->b", q, geometry, q) + 0.5 * p.square().sum(-1)
    torch.testing.assert_close(h(q, p), expected)
    torch.testing.assert_close(h.force(q), minus_gradient(h.potential, q))
    assert torch.equal(QuadraticHamiltonian(4, geometry=MatrixGeometry(geometry))(q, p), h(q, p))
    identity = QuadraticHamiltonian(4)
    torch.testing.assert_close(identity(q, p), 0.5 * (q.square() + p.square()).sum(-1))
    assert not list(h.parameters())


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (torch.eye(3), r"shape \(2, 2\), got \(3, 3\)"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (torch.tensor([[1.0, 0.0], [0.0, -1.0]]), "positive definite, got smallest eigenvalue -1"),
        (MatrixGeometry(torch.eye(3)), r"shape \(2, 2\), got \(3, 3\)"),
    ],
)
def test_quadratic_refuses_what_is_no_geometry(geometry, message):
    with pytest.raises(ValueError, match=message):
        QuadraticHamiltonian(2, geometry=geometry)
    with pytest.raises(TypeError, match="geometry must be a floating-point tensor, got list"):
        QuadraticHamiltonian(2, geometry=[[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize("make", [QuadraticHamiltonian, SeparableHamiltonian, GeneralHamiltonian])
def test_positions_and_momenta_do_not_broadcast(make):
    q, p = torch.randn(2, 3, 4)
    for call in (make(4), make(4).gradient):
        with pytest.raises(ValueError, match=r"q and p must share a shape \(..., d\), got \(3, 4\) and \(4,\)"):
            call(q, p[0])


def test_softplus_keeps_its_digits_where_torchs_own_becomes_the_identity():
    """One hidden unit, ``V(q) = log(1 + e^q)``: at 25 it differs from 25 by 1.4e-11, the force as much from −1."""
    h = SeparableHamiltonian(1, hidden_dim=1, depth=1, activation="softplus", base_coeff=0, residual_scale=1).double()
    for x in h.parameters():
        nn.init.ones_(x)
    nn.init.zeros_(h.hidden[0].bias)
    for x in (21.0, 25.0, 30.0):
        q = torch.tensor([x], dtype=torch.float64)
        assert abs(h.potential(q).item() - x - math.log1p(math.exp(-x))) < 1e-14
        torch.testing.assert_close(h.force(q), minus_gradient(h.potential, q), rtol=1e-15, atol=0)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_user_potential_has_its_force_in_every_grad_mode(mode):
    wells = Well().double()
    h = PotentialHamiltonian(wells)
    with mode():
        q = torch.randn(5, 2, dtype=torch.float64)
        force = h.force(q)
        torch.testing.assert_close(force, wells.depth * q.sin())
        assert not q.requires_grad
        assert force.requires_grad == (mode is torch.enable_grad)


def test_force_carries_a_graph_only_where_something_requires_a_gradient():
    q, p = torch.randn(2, 5, 2, dtype=torch.float64)
    fixed = PotentialHamiltonian(lambda q: (1 - q.cos()).sum(-1))
    assert not any(x.requires_grad for x in leapfrog(fixed, q, p, dt=0.1, steps=3))
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    for captured in (scale, scale * 2):  # a leaf, and a result of one, as an encoder's output would be
        force = PotentialHamiltonian(lambda q, c=captured: (c * q.cos()).sum(-1)).force(q)
        (got,) = torch.autograd.grad(force.sum(), scale)
        torch.testing.assert_close(got, (captured.detach() * q.sin()).sum())
    assert fixed.force(q.requires_grad_()).requires_grad


def test_user_potential_trains_its_parameters_and_passes_gradients_on():
    wells, q = Well().double(), torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    h = PotentialHamiltonian(wells)
    got = torch.autograd.grad(h.force(q).square().sum(), (q, wells.depth))
    expected = torch.autograd.grad((wells.depth * q.sin()).square().sum(), (q, wells.depth))
    torch.testing.assert_close(got, expected)
    assert list(h.parameters()) == [wells.depth]


def test_user_potential_errors_name_the_fault():
    q = torch.randn(5, 2)
    with pytest.raises(ValueError, match=r"expected \(5,\), got \(5, 1\)"):
        PotentialHamiltonian(lambda q: q.sum(-1, keepdim=True)).force(q)
    with pytest.raises(RuntimeError, match="depend on q through autograd"):
        PotentialHamiltonian(lambda q: q.detach().sum(-1)).force(q)
    with pytest.raises(TypeError, match="a module or a function, got int"):
        PotentialHamiltonian(3)


def test_bad_arguments_are_named():
    for arguments, message in (
        ({"dim": 0}, "dim must be an int >= 1, got 0"),
        ({"dim": 2, "depth": 0}, "depth must be an int >= 1, got 0"),
        ({"dim": 2, "activation": "relu"}, "activation must be one of 'gelu', .*got 'relu'"),
        ({"dim": 2, "base_coeff": float("inf")}, "base_coeff must be a finite number, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            SeparableHamiltonian(**arguments)
    with pytest.raises(ValueError, match=r"q must have shape \(..., 2\), got \(4, 3\)"):
        SeparableHamiltonian(2).force(torch.randn(4, 3))

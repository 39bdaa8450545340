"""Energies that are not separable, learned and the user's own, against autograd and formulas by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from symplectic_jepa import HamiltonianPredictor, QuadraticHamiltonian, SeparableHamiltonian
from symplectic_jepa.hamiltonians import AbstractSeparable, Hamiltonian
from symplectic_jepa.integrators import SPLITTINGS
from tests.helpers.samples import states
from tests.helpers.systems import Coupled, general

ACTIVATIONS = ("gelu", "silu", "tanh", "softplus")


def partials(energy, q, p):
    q, p = q.detach().requires_grad_(), p.detach().requires_grad_()
    return torch.autograd.grad(energy(q, p).sum(), (q, p))


def coupling(h, q, p):
    """``Σ ∂²H/∂q∂p``, zero for any separable energy."""
    q = q.detach().requires_grad_()
    return torch.autograd.grad(h.gradient(q, p)[1].sum(), q)[0]


@given(
    activation=st.sampled_from(ACTIVATIONS),
    dim=st.integers(1, 5),
    depth=st.integers(1, 3),
    batch=st.lists(st.integers(1, 3), max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_closed_form_gradient_is_the_one_of_the_energy(activation, dim, depth, batch):
    h = general(dim, activation=activation, depth=depth)
    q, p = states(*batch, dim)
    assert h(q, p).shape == q.shape[:-1]
    torch.testing.assert_close(h.gradient(q, p), partials(h, q, p), rtol=1e-12, atol=1e-12)


def test_energy_is_the_formula_with_a_textbook_mlp():
    h, (q, p) = general(3, scale=0.7), states(4, 3)
    z = torch.cat((q, p), -1)
    gelu = nn.functional.gelu
    f = h.output(gelu(h.hidden[1](gelu(h.hidden[0](z)))))[:, 0]
    torch.testing.assert_close(h(q, p), 0.5 * z.square().sum(-1) + h.residual_scale * f, rtol=1e-12, atol=1e-12)
    h.set_residual_scale(0.0)
    torch.testing.assert_close(h.gradient(q, p), (q, p))


def test_base_coefficient_scales_the_fixed_part_of_energy_and_gradient():
    h, (q, p) = general(3, scale=0.7, base_coeff=0.3), states(4, 3)
    fixed = general(3, scale=0.7, base_coeff=0.0)
    fixed.load_state_dict(h.state_dict())
    z = torch.cat((q, p), -1)
    torch.testing.assert_close(h(q, p) - fixed(q, p), 0.15 * z.square().sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(h.gradient(q, p), partials(h, q, p), rtol=1e-12, atol=1e-12)
    fixed.set_residual_scale(0.0)
    assert not fixed(q, p).any()


@pytest.mark.parametrize("h", [Coupled(), general(2), QuadraticHamiltonian(2)], ids=lambda h: type(h).__name__)
def test_vector_field_is_hamiltons_equations_and_conserves_the_energy(h):
    q, p = states(5, 2)
    dq, dp = partials(h, q, p)
    velocity, push = h.vector_field(q, p)
    torch.testing.assert_close((velocity, push), (dp, -dq), rtol=1e-12, atol=1e-12)
    assert ((dq * velocity).sum(-1) + (dp * push).sum(-1)).abs().max() < 1e-12


def test_an_energy_is_learned_through_its_vector_field():
    h, (q, p) = general(2), states(5, 2)
    loss = sum(x.square().sum() for x in h.vector_field(q, p))
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(loss, [*h.parameters()]))


def test_it_is_not_separable_and_leapfrog_on_it_raises():
    h, (q, p) = general(), states(4, 3)
    assert not isinstance(h, AbstractSeparable)
    assert coupling(h, q, p).abs().max() > 1e-3
    with pytest.raises(TypeError, match=r"must be separable, .* got GeneralHamiltonian: .* implicit_midpoint"):
        HamiltonianPredictor(h)(torch.cat((q, p), -1))
    for splitting in SPLITTINGS.values():
        with pytest.raises(TypeError, match="must be separable"):
            splitting(h, q, p, dt=0.1)


def test_separable_gradient_is_minus_force_and_velocity():
    for h in (SeparableHamiltonian(3, hidden_dim=8, learn_mass=True).double(), QuadraticHamiltonian(3)):
        q, p = states(4, 3)
        torch.testing.assert_close(h.gradient(q, p), partials(h, q, p), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_user_energy_has_its_gradient_in_every_grad_mode(mode):
    h = Coupled()
    with mode():
        q, p = states(5, 2)
        got = h.gradient(q, p)
        torch.testing.assert_close(got, h.by_hand(q, p))
        assert not q.requires_grad
        assert all(g.requires_grad == (mode is torch.enable_grad) for g in got)


def test_user_gradient_is_partial_where_one_state_depends_on_the_other():
    """In a rollout p is computed from q; the derivative by q must not run through p."""
    h, q = Coupled(), states(5, 2)[0].requires_grad_()
    p = q.sin()
    got = h.gradient(q, p)
    expected = h.by_hand(q, p)
    torch.testing.assert_close(got, expected)
    total = torch.autograd.grad(got[0].square().sum(), (q, h.strength), retain_graph=True)
    torch.testing.assert_close(total, torch.autograd.grad(expected[0].square().sum(), (q, h.strength)))


class Free(Hamiltonian):
    def forward(self, q, p):
        return p.square().sum(-1)


class Constant(Hamiltonian):
    def forward(self, q, p):
        return torch.ones(q.shape[:-1])


class Misshapen(Hamiltonian):
    def forward(self, q, p):
        return q * p


def test_user_energies_that_lack_a_variable_or_are_none():
    q, p = states(5, 2)
    torch.testing.assert_close(Free().gradient(q, p), (torch.zeros_like(q), 2 * p))
    with pytest.raises(RuntimeError, match=r"Constant\(q, p\) must depend on q or p through autograd"):
        Constant().gradient(q, p)
    with pytest.raises(ValueError, match=r"Misshapen must map .* q, p of shape \(5, 2\) expected \(5,\), got \(5, 2\)"):
        Misshapen().gradient(q, p)

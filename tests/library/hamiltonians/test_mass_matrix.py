"""Energies with a mass that depends on the position, against a double pendulum by hand and autograd."""

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from tests.helpers.samples import states

midpoint = sj.integrators.ImplicitMidpoint(iterations=60)
SYMPLECTIC_FORM = torch.kron(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.eye(2)).double()


def double_pendulum_mass(q):
    """``M(q)`` of two unit masses on unit rods; q are the angles to the vertical."""
    coupling = (q[..., 0] - q[..., 1]).cos()
    return torch.stack((torch.full_like(coupling, 2.0), coupling, coupling, torch.ones_like(coupling)), -1).unflatten(
        -1, (2, 2)
    )


def double_pendulum():
    def factor(q):
        return torch.linalg.cholesky(torch.linalg.inv(double_pendulum_mass(q)))

    return sj.MassMatrixHamiltonian(factor, lambda q: -2 * q[..., 0].cos() - q[..., 1].cos())


def learned(dim=2, rank=2, floor=0.2):
    torch.manual_seed(0)
    factor = nn.Sequential(nn.Linear(dim, 8), nn.Tanh(), nn.Linear(8, dim * rank), nn.Unflatten(-1, (dim, rank)))
    potential = nn.Sequential(nn.Linear(dim, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(-2))
    return sj.MassMatrixHamiltonian(factor, potential, floor=floor).double()


@pytest.mark.parametrize("floor", [0.0, 0.7])
@pytest.mark.parametrize("rank", [1, 3])
def test_energy_is_half_p_times_the_inverse_mass_times_p_plus_the_potential(rank, floor):
    h, (q, p) = learned(3, rank, floor), states(2, 5, 3)
    factor = h.factor(q)
    inverse = torch.einsum("...ik,...jk->...ij", factor, factor) + floor * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(h.inverse_mass(q), inverse, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        h(q, p), 0.5 * torch.einsum("...i,...ij,...j", p, inverse, p) + h.potential(q), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(h.gradient(q, p)[1], (inverse @ p.unsqueeze(-1)).squeeze(-1), rtol=1e-12, atol=1e-12)


def test_the_floor_bounds_the_inverse_mass_from_below():
    q, _ = states(50, 3)
    low = torch.linalg.eigvalsh(learned(3, rank=1, floor=0.2).inverse_mass(q)).amin()
    torch.testing.assert_close(low, torch.tensor(0.2, dtype=torch.float64), rtol=1e-10, atol=0)


def test_double_pendulum_moves_as_its_lagrangian_says():
    """``M(q) q̈`` against the Euler-Lagrange equations written by hand, with the momenta ``p = M(q) q̇``."""
    h, (q, velocity) = double_pendulum(), states(20, 2)
    p = (double_pendulum_mass(q) @ velocity.unsqueeze(-1)).squeeze(-1)
    dq, dp = h.gradient(q, p)
    torch.testing.assert_close(dp, velocity, rtol=1e-12, atol=1e-12)
    twist = velocity[:, 0] * velocity[:, 1] * (q[:, 0] - q[:, 1]).sin()
    expected = torch.stack((-twist - 2 * q[:, 0].sin(), twist - q[:, 1].sin()), -1)  # ∂L/∂q
    torch.testing.assert_close(-dq, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("make", [double_pendulum, learned])
def test_midpoint_of_it_is_symplectic_and_conserves_the_energy_to_second_order(make):
    h, (q, p) = make(), 0.5 * states(4, 2)
    z = torch.cat((q, p), -1)
    predictor = sj.HamiltonianPredictor(h, dt=0.05, steps=2, integrator=midpoint)
    for x in z:
        jacobian = torch.autograd.functional.jacobian(lambda x: predictor(x[None])[0], x)
        torch.testing.assert_close(jacobian.T @ SYMPLECTIC_FORM @ jacobian, SYMPLECTIC_FORM, rtol=0, atol=1e-11)
    drifts = []
    for steps in (20, 40):
        end = sj.HamiltonianPredictor(h, dt=1 / steps, steps=steps, integrator=midpoint)(z)
        drifts.append((h(*end.chunk(2, -1)) - h(q, p)).abs().mean())
    assert 3.3 < drifts[0] / drifts[1] < 4.7


def test_constant_diagonal_mass_is_that_of_the_separable_energy():
    mass, (q, p) = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64), states(4, 3)
    h = sj.MassMatrixHamiltonian(lambda q: (1 / mass).sqrt().diag().expand(*q.shape, 3), lambda q: q.cos().sum(-1))
    dq, dp = h.gradient(q, p)
    torch.testing.assert_close((dq, dp), (-q.sin(), p / mass), rtol=1e-12, atol=1e-12)


def test_scaling_mass_potential_and_input_together_changes_no_position():
    """The freedom that remains if only positions and velocities are known."""
    alpha, h, (q, velocity) = 3.0, learned(), states(5, 2)
    other = sj.MassMatrixHamiltonian(
        lambda q: h.factor(q) / alpha**0.5, lambda q: alpha * h.potential(q), floor=h.floor / alpha
    )
    matrix, control = torch.tensor([[0.3], [-1.0]], dtype=torch.float64), torch.ones(5, 1, dtype=torch.float64)
    paths = []
    for system, scale in ((h, 1.0), (other, alpha)):
        p = torch.linalg.solve(system.inverse_mass(q), velocity.unsqueeze(-1)).squeeze(-1)
        controlled = sj.ControlledHamiltonian(system, scale * matrix)
        predictor = sj.HamiltonianPredictor(controlled, dt=0.1, steps=4, integrator=midpoint)
        paths.append(predictor(torch.cat((q, p), -1), control=control).chunk(2, -1)[0])
    torch.testing.assert_close(*paths, rtol=1e-11, atol=1e-11)


def test_training_gradient_equals_finite_differences():
    h, (q, p) = learned(), states(3, 2)
    weight = h.factor[0].weight
    predictor = sj.HamiltonianPredictor(h, dt=0.1, steps=2, integrator=sj.integrators.ImplicitMidpoint(iterations=4))

    def loss():
        return predictor(torch.cat((q, p), -1)).square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    with torch.no_grad():
        for i in (0, 5):
            ends = []
            for step in (1e-5, -1e-5):
                weight.view(-1)[i] += step
                ends.append(loss())
                weight.view(-1)[i] -= step
            torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, gradient.reshape(-1)[i], rtol=1e-6, atol=1e-8)


def test_it_refuses_factors_and_potentials_of_another_shape_and_explicit_integrators():
    q, p = states(4, 2)
    flat = sj.MassMatrixHamiltonian(lambda q: q, lambda q: q.sum(-1))
    with pytest.raises(ValueError, match=r"factor must map \(..., d\) to \(..., d, k\): for q of shape \(4, 2\) got"):
        flat(q, p)
    column = sj.MassMatrixHamiltonian(lambda q: q.diag_embed(), lambda q: q)
    with pytest.raises(ValueError, match=r"potential must map \(..., d\) to \(...\)"):
        column.gradient(q, p)
    with pytest.raises(TypeError, match=r"must be separable, .* got MassMatrixHamiltonian"):
        sj.leapfrog(learned(), q, p, dt=0.1)

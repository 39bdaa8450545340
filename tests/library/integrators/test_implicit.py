"""The integrator that is symplectic for any energy, separable or not."""

import itertools
import math

import pytest
import torch
from scipy.integrate import solve_ivp
from torch._subclasses.fake_tensor import FakeTensorMode

from symplectic_jepa import HamiltonianPredictor, QuadraticHamiltonian
from symplectic_jepa.evaluation import symplecticity_defect
from symplectic_jepa.hamiltonians import GeneralHamiltonian, Hamiltonian
from symplectic_jepa.integrators import ImplicitMidpoint, implicit_midpoint
from tests.helpers.samples import states
from tests.helpers.systems import Coupled, by_weights, general


def strongly_coupled():
    """A residual that is no small correction: the Hessian's eigenvalues reach beyond 3 and below -1."""
    h = general(3, scale=60.0)
    q, p = states(64, 3)
    z = torch.cat((q, p), -1)
    hessians = [torch.autograd.functional.hessian(lambda z: h(*z.chunk(2)), state) for state in z]
    return h, z, torch.linalg.eigvalsh(torch.stack(hessians))


def test_implicit_midpoint_is_symplectic_where_the_residual_dominates():
    h, z, eigenvalues = strongly_coupled()
    assert eigenvalues.max() > 3
    assert eigenvalues.min() < -1
    predictor = HamiltonianPredictor(h, dt=0.05, steps=3, integrator=implicit_midpoint)
    for direction in (1, -1):
        defect = symplecticity_defect(lambda z, d=direction: predictor(z, direction=d), z[:8])
        assert defect.max() < 1e-9


def test_user_energy_is_integrated_symplectically_too():
    predictor = HamiltonianPredictor(Coupled(), dt=0.1, steps=3, integrator=implicit_midpoint)
    z = 2 * torch.rand(8, 4, dtype=torch.float64) - 1
    assert symplecticity_defect(predictor, z).max() < 1e-9
    far = torch.full((1, 2), 4.0, dtype=torch.float64)  # the Hessian grows with q and p: no contraction there
    assert not implicit_midpoint.residual(Coupled(), far, far, dt=0.1, steps=3) < 1e-6


def test_too_few_iterations_fail_the_same_check_and_show_in_the_residual():
    h, z, _ = strongly_coupled()
    q, p = z.chunk(2, -1)
    defects, residuals = [], []
    for iterations in (2, 5, 12):
        solver = ImplicitMidpoint(iterations)
        predictor = HamiltonianPredictor(h, dt=0.05, steps=1, integrator=solver)
        defects.append(symplecticity_defect(predictor, z[:8]).max().item())
        residuals.append(solver.residual(h, q, p, dt=0.05).max().item())
    assert defects[0] > 1e-5
    assert defects[1] > 1e-9 > defects[2]
    assert residuals[0] > 1e-5
    assert residuals[1] > 1e-9 > residuals[2]


def test_default_iterations_meet_the_stated_tolerance():
    """``½|h|L ≤ 0.1`` leaves 1e-12 relative: an oscillator of frequency 4 has ``L = 4``, and ``h = 0.05``."""

    class Stiff(Hamiltonian):
        def forward(self, q, p):
            return 2 * (q.square() + p.square()).sum(-1)

    q, p = states(100, 3)
    residual = implicit_midpoint.residual(Stiff(), q, p, dt=0.05)
    assert residual.shape == (100,)
    assert (residual / torch.cat((q, p), -1).norm(dim=-1)).max() < 1e-12
    assert ImplicitMidpoint(9).residual(Stiff(), q, p, dt=0.05).max() > 1e-11


def test_residual_is_the_worst_error_of_the_equation_over_all_steps():
    h, (q, p) = general(scale=5.0), states(6, 3)
    solver, dt = ImplicitMidpoint(3), 0.2
    got = solver.residual(h, q, p, dt=dt, steps=3)
    worst = torch.zeros(6, dtype=torch.float64)
    for _ in range(3):
        a, b = solver(h, q, p, dt=dt)
        dq, dp = h.gradient((q + a) / 2, (p + b) / 2)
        worst = torch.maximum(worst, torch.cat((a - q - dt * dp, b - p + dt * dq), -1).abs().amax(-1))
        q, p = a, b
    torch.testing.assert_close(got, worst, rtol=1e-6, atol=1e-15)
    assert got.min() > 1e-8
    assert not got.requires_grad


@pytest.mark.parametrize("hamiltonian", [general(scale=5.0), Coupled()], ids=["learned", "user"])
def test_order_of_convergence_is_two(hamiltonian):
    """Reference: Dormand–Prince of order 8 at tolerance 1e-12."""
    z = torch.tensor((0.5, -0.3, 0.8, 0.4, 0.9, -0.6), dtype=torch.float64)

    def rhs(_, z):
        with torch.no_grad():
            dq, dp = hamiltonian.gradient(*torch.from_numpy(z).chunk(2))
        return torch.cat((dp, -dq)).numpy()

    exact = torch.from_numpy(solve_ivp(rhs, (0, 1), z.numpy(), method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1].copy())
    with torch.no_grad():
        errors = [
            (torch.cat(implicit_midpoint(hamiltonian, *z.chunk(2), dt=1 / n, steps=n)) - exact).norm()
            for n in (20, 40, 80)
        ]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([implicit_midpoint.order] * 2, abs=0.05)


@pytest.mark.parametrize("steps", [1, 20])
def test_negative_dt_inverts_to_the_error_of_the_solver(steps):
    h, (q, p) = general(scale=5.0), states(7, 3)
    there = implicit_midpoint(h, q, p, dt=0.1, steps=steps)
    assert (there[0] - q).abs().max() > 0.05
    torch.testing.assert_close(implicit_midpoint(h, *there, dt=-0.1, steps=steps), (q, p), rtol=1e-10, atol=1e-10)
    coarse = ImplicitMidpoint(2)
    back = coarse(h, *coarse(h, q, p, dt=0.1, steps=steps), dt=-0.1, steps=steps)
    assert (back[0] - q).abs().max() > 1e-8


def test_quadratic_energy_is_conserved_and_the_map_is_the_cayley_transform():
    h, (q, p) = QuadraticHamiltonian(2), states(5, 2)
    a, b = ImplicitMidpoint(40)(h, q, p, dt=0.4, steps=1)
    c, s = (1 - 0.04) / (1 + 0.04), 0.4 / (1 + 0.04)
    torch.testing.assert_close((a, b), (c * q + s * p, c * p - s * q), rtol=1e-13, atol=1e-13)
    a, b = ImplicitMidpoint(40)(h, q, p, dt=0.4, steps=50)
    torch.testing.assert_close(h(a, b), h(q, p), rtol=1e-12, atol=1e-12)


def test_gradients_in_state_weights_and_learned_step_equal_finite_differences():
    h = GeneralHamiltonian(2, hidden_dim=4, residual_scale=2.0).double()
    run, weights = by_weights(h, lambda h, q, p, dt: implicit_midpoint(h, q, p, dt=dt, steps=2))
    q, p = states(2, 2).requires_grad_()
    dt = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (q, p, dt, *weights))
    assert torch.autograd.gradcheck(lambda q, p: implicit_midpoint(Coupled(), q, p, dt=0.2, steps=2), (q, p))


def test_no_value_of_the_residual_is_read_back_to_the_host():
    with FakeTensorMode():
        assert implicit_midpoint.residual(GeneralHamiltonian(4), *torch.randn(2, 3, 4), dt=0.1).shape == (3,)


def test_bad_arguments_are_named():
    h, (q, p) = general(2), states(3, 2)
    for call, error, message in (
        (lambda: ImplicitMidpoint(0), ValueError, "iterations must be an int >= 1, got 0"),
        (lambda: implicit_midpoint(lambda q, p: q, q, p, dt=0.1), TypeError, "must be a Hamiltonian, got function"),
        (lambda: implicit_midpoint(h, q, p[:2], dt=0.1), ValueError, r"share a shape .* got \(3, 2\) and \(2, 2\)"),
        (lambda: implicit_midpoint(h, q, p, dt=float("inf")), ValueError, "dt must be a finite number, got inf"),
        (lambda: implicit_midpoint.residual(h, q, p, dt=0.1, steps=0), ValueError, "steps must be an int >= 1"),
        (lambda: GeneralHamiltonian(0), ValueError, "dim must be an int >= 1, got 0"),
        (lambda: GeneralHamiltonian(3)(q, p), ValueError, r"q must have shape \(..., 3\), got \(3, 2\)"),
        (lambda: h.gradient(q, p[:, :1]), ValueError, r"p must have shape \(..., 2\), got \(3, 1\)"),
    ):
        with pytest.raises(error, match=message):
            call()

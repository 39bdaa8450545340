"""The motion of damped systems: against closed forms and other solvers, and the energy along it."""

import itertools
import math

import pytest
import torch
from scipy.integrate import solve_ivp

import symplectic_jepa as sj
from symplectic_jepa.hamiltonians import AbstractSeparable
from symplectic_jepa.integrators import SPLITTINGS
from tests.helpers.damped import GAMMA, D, jacobian, learned
from tests.helpers.samples import states
from tests.helpers.systems import Kepler, Pendulum

every = pytest.mark.parametrize("splitting", SPLITTINGS.values(), ids=SPLITTINGS.keys())


def oscillator(z, time, gamma):
    """``q̈ = −q − γ q̇``, underdamped, in closed form."""
    (q, p), half = z, gamma / 2
    w = math.sqrt(1 - half**2)
    cos, sin, shrink = math.cos(w * time), math.sin(w * time), math.exp(-half * time)
    return torch.stack((
        shrink * (q * cos + (p + half * q) / w * sin),
        shrink * (p * cos - (q + half * p) / w * sin),
    ))  # fmt: skip


def orders(splitting, system, z, exact, time, per_unit):
    errors = []
    for n in per_unit:
        end = torch.cat(splitting(system, *z.chunk(2), dt=1 / n, steps=round(n * time)))
        errors.append((end - exact).norm().item())
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


RESOLUTION = {1: (100, 200), 2: (50, 100), 3: (160, 320), 4: (20, 40), 6: (10, 20)}


@every
@pytest.mark.parametrize("gamma", [0.3, 1.5])
def test_damped_oscillator_is_met_with_the_order_of_the_splitting(splitting, gamma):
    z = torch.tensor([1.0, 0.6], dtype=torch.float64)
    system = sj.DampedHamiltonian(sj.QuadraticHamiltonian(1), gamma)
    measured = orders(splitting, system, z, oscillator(z, 2.0, gamma), 2.0, RESOLUTION[splitting.order])
    assert measured == pytest.approx([splitting.order], abs=0.15)


@every
def test_damped_kepler_with_rates_of_its_own_has_the_order_of_the_splitting(splitting):
    """Against Dormand–Prince: a force that is not linear, coordinates that are coupled and damped differently."""
    z, gamma = torch.tensor([0.8, 0.1, 0.1, 1.2], dtype=torch.float64), torch.tensor([0.2, 0.7], dtype=torch.float64)

    def rhs(_, z):
        q, p = torch.from_numpy(z).chunk(2)
        return torch.cat((p, Kepler().force(q) - gamma * p)).numpy()

    solution = solve_ivp(rhs, (0, 1), z.numpy(), method="DOP853", rtol=1e-13, atol=1e-13)
    exact = torch.from_numpy(solution.y[:, -1].copy())
    system = sj.DampedHamiltonian(Kepler(), gamma)
    resolution = tuple(2 * n for n in RESOLUTION[splitting.order])
    assert orders(splitting, system, z, exact, 1.0, resolution) == pytest.approx([splitting.order], abs=0.15)


@every
def test_a_step_of_an_oscillator_raises_the_energy_of_no_state(splitting):
    """The energy lost is a quadratic form of the state, and none of its eigenvalues is negative.

    Position Verlet evaluates the damping in mid-step, where the momentum may be 0: it may gain ``¼ γh³`` of the energy.
    """
    gamma, h = 0.3, 0.05
    system = sj.DampedHamiltonian(sj.QuadraticHamiltonian(1), gamma)
    j = jacobian(splitting, system, torch.zeros(2, dtype=torch.float64), dt=h, steps=1)
    least = torch.linalg.eigvalsh(torch.eye(2) - j.mT @ j)[0].item()
    assert least > (-gamma * h**3 / 4 if splitting is sj.position_verlet else 0)


@pytest.mark.parametrize("splitting", [sj.leapfrog, sj.yoshida4])
@pytest.mark.parametrize("inner", [sj.QuadraticHamiltonian(1), Pendulum()])
def test_energy_never_grows_and_ends_at_rest(splitting, inner):
    predictor = sj.HamiltonianPredictor(sj.DampedHamiltonian(inner, 0.3), dt=0.1, steps=1, integrator=splitting)
    q, p = 1.5 * torch.randn(2, 50, 1, dtype=torch.float64)
    energies = [predictor.energy(q, p)]
    for _ in range(600):
        q, p = predictor.flow(q, p)
        energies.append(predictor.energy(q, p))
    energies = torch.stack(energies)
    assert (energies.diff(dim=0) < 0).all()
    assert (energies[-1] < 1e-6 * energies[0]).all()


def test_a_constant_force_ends_at_its_terminal_velocity_at_any_step():
    class Slope(AbstractSeparable):
        def potential(self, q):
            return -q.sum(-1)

        def force(self, q):
            return torch.ones_like(q)

    q, p = torch.zeros(2, 1, dtype=torch.float64)
    _, p = sj.leapfrog(sj.DampedHamiltonian(Slope(), 4.0), q, p, dt=2.0, steps=20)
    assert p.item() == pytest.approx(1 / 4.0, rel=1e-12)


@every
@pytest.mark.parametrize("dt", [0.17, -0.17])
def test_damped_kicks_equal_the_loop_by_hand(splitting, dt):
    h, (q, p) = learned(), states(5, D)
    rate = GAMMA.clamp_min(0.1) / h.mass
    system = sj.DampedHamiltonian(h, GAMMA.clamp_min(0.1))
    table = list(itertools.chain(*itertools.zip_longest(splitting.kicks, splitting.drifts, fillvalue=0.0)))
    updates = list(enumerate(table))
    a, b = q, p
    for _ in range(3):
        for i, c in updates if dt > 0 or splitting.symmetric else reversed(updates):
            if i % 2:
                a = a + c * dt * b / h.mass
            else:  # ṗ = F − Γp has the fixed point F/Γ
                rest = h.force(a) / rate
                b = rest + (b - rest) * torch.exp(-rate * c * dt)
    torch.testing.assert_close(splitting(system, q, p, dt=dt, steps=3), (a, b), rtol=1e-11, atol=1e-11)

"""Linear damping: the volume that it takes, the energy that it loses, and what it leaves as it was."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.hamiltonians import AbstractSeparable
from symplectic_jepa.integrators import SPLITTINGS
from symplectic_jepa.integrators.reversible import _mean_decay
from tests.helpers.samples import states
from tests.helpers.systems import Counting, Kepler, Pendulum, by_weights, omega

D, M = 3, 2
GAMMA = torch.tensor([0.0, 0.4, 1.3], dtype=torch.float64)
every = pytest.mark.parametrize("splitting", SPLITTINGS.values(), ids=SPLITTINGS.keys())


def learned(*, learn_mass=True):
    h = sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=2.0, learn_mass=learn_mass).double()
    if learn_mass:
        h.raw_mass.data = torch.tensor([-0.5, 0.3, 2.0], dtype=torch.float64)
    return h


def controlled(hamiltonian):
    return sj.ControlledHamiltonian(hamiltonian, nn.Parameter(torch.randn(D, M, dtype=torch.float64)))


ORDERS = {
    "damped controlled": lambda h, gamma, **kw: sj.DampedHamiltonian(controlled(h), gamma, **kw),
    "controlled damped": lambda h, gamma, **kw: controlled(sj.DampedHamiltonian(h, gamma, **kw)),
}
nestings = pytest.mark.parametrize("nest", ORDERS.values(), ids=ORDERS.keys())


def jacobian(splitting, hamiltonian, z, **kwargs):
    def step(z):
        return torch.cat(splitting(hamiltonian, *z.chunk(2), **kwargs))

    return torch.autograd.functional.jacobian(step, z)


# Structure


@every
@pytest.mark.parametrize("dt", [0.3, -0.3])
@pytest.mark.parametrize("gamma", [0.7, GAMMA], ids=["scalar", "per coordinate"])
@pytest.mark.parametrize("learn_mass", [False, True])
def test_volume_shrinks_by_exactly_the_sum_of_the_rates(splitting, dt, gamma, learn_mass):
    inner = learned(learn_mass=learn_mass)
    j = jacobian(splitting, sj.DampedHamiltonian(inner, gamma), torch.randn(2 * D, dtype=torch.float64), dt=dt, steps=3)
    rates = gamma / (inner.mass if learn_mass else torch.ones(D, dtype=torch.float64))
    assert torch.linalg.det(j).item() == pytest.approx(math.exp(-dt * 3 * rates.sum().item()), rel=1e-11)


@every
def test_one_rate_for_all_scales_the_symplectic_form(splitting):
    system = sj.DampedHamiltonian(learned(learn_mass=False), 0.7)
    j = jacobian(splitting, system, torch.randn(2 * D, dtype=torch.float64), dt=0.3, steps=3)
    torch.testing.assert_close(j.mT @ omega(D) @ j, math.exp(-0.7 * 0.3 * 3) * omega(D), rtol=0, atol=1e-12)


@every
@pytest.mark.parametrize("dt", [0.2, -0.2])
@pytest.mark.parametrize("steps", [1, 7])
def test_negative_dt_is_the_exact_inverse(splitting, dt, steps):
    system, (q, p) = sj.DampedHamiltonian(learned(), GAMMA), states(5, D)
    there = splitting(system, q, p, dt=dt, steps=steps)
    assert (there[0] - q).abs().max() > 0.01
    torch.testing.assert_close(splitting(system, *there, dt=-dt, steps=steps), (q, p), rtol=1e-11, atol=1e-11)


# Trajectories


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


# What it leaves as it was


@every
@pytest.mark.parametrize("gradient", ["stored", "reversible"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_damping_is_the_undamped_map_bit_for_bit(splitting, gradient, dtype):
    h, (q, p) = learned(), states(5, D)
    q, p = q.to(dtype), p.to(dtype)
    never = sj.DampedHamiltonian(h, 1.0, learn=True)
    never.raw_damping.data.fill_(-1e4)  # softplus underflows to 0
    for system in (sj.DampedHamiltonian(h, 0.0), sj.DampedHamiltonian(h, torch.zeros(D)), never):
        got = splitting(system, q, p, dt=0.3, steps=4, gradient=gradient)
        assert all(map(torch.equal, got, splitting(h, q, p, dt=0.3, steps=4)))


def test_damping_costs_no_further_force():
    class Forces(AbstractSeparable):
        counting = Counting()

        def potential(self, q):
            return self.counting.potential(q)

        def force(self, q):
            return self.counting.force(q)

    h, (q, p) = Forces(), states(4, D)
    sj.leapfrog(sj.DampedHamiltonian(h, 0.5), q, p, dt=0.1, steps=5)
    assert h.counting.forces == sj.leapfrog.force_evaluations(5) == 6


def test_energy_and_force_are_those_of_the_wrapped_system():
    h, (q, p) = learned(), states(5, D)
    system = sj.DampedHamiltonian(h, GAMMA)
    assert torch.equal(system(q, p), h(q, p))
    assert all(map(torch.equal, system.gradient(q, p), h.gradient(q, p)))
    torch.testing.assert_close(system.decay_rate(p), GAMMA / h.mass, rtol=1e-15, atol=0)
    assert h.decay_rate(p) is None


def test_dampings_of_dampings_add_up():
    h, (q, p) = learned(), states(5, D)
    twice = sj.DampedHamiltonian(sj.DampedHamiltonian(h, 0.5), GAMMA)
    expected = sj.leapfrog(sj.DampedHamiltonian(h, 0.5 + GAMMA), q, p, dt=0.3, steps=3)
    torch.testing.assert_close(sj.leapfrog(twice, q, p, dt=0.3, steps=3), expected, rtol=1e-13, atol=1e-13)


# Gradients


def test_mean_decay_and_its_slope_have_all_digits_at_and_around_zero():
    """Against Gauss–Legendre quadrature of ``∫ e^{−sx} ds`` and ``−∫ s e^{−sx} ds`` over 0 ≤ s ≤ 1."""
    x = torch.tensor([-4.0, -0.5, -0.1, -0.0999, -1e-3, 0.0, 1e-9, 1e-3, 0.0999, 0.1, 0.5, 4.0], dtype=torch.float64)
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(30))
    s, w = (nodes + 1) / 2, weights / 2
    e = w * torch.exp(-s * x[:, None])
    x.requires_grad_()
    (slope,) = torch.autograd.grad(_mean_decay(x).sum(), x)
    torch.testing.assert_close(_mean_decay(x), e.sum(-1), rtol=1e-14, atol=0)
    torch.testing.assert_close(slope, -(s * e).sum(-1), rtol=1e-13, atol=0)
    assert _mean_decay(torch.zeros(1)).item() == 1


def parts(hamiltonian, gamma, control, dt, nest=None, learn=True):
    """A system to differentiate, with every tensor that has a gradient."""
    if nest is None:
        return sj.DampedHamiltonian(hamiltonian, gamma, learn=learn).double(), []
    return nest(hamiltonian, gamma, learn=learn).double().with_control(control), [control]


DTS = {
    "fixed": 0.11,
    "negative": -0.11,
    "learned": torch.tensor(0.11, dtype=torch.float64, requires_grad=True),
    "per state": torch.tensor([[0.11], [-0.2], [0.05]], dtype=torch.float64, requires_grad=True),
}


@every
@pytest.mark.parametrize("dt", DTS.values(), ids=DTS.keys())
@pytest.mark.parametrize("nest", [None, *ORDERS.values()], ids=["damped", *ORDERS])
def test_reversible_gradients_equal_the_stored_ones(splitting, dt, nest):
    """By states, weights, mass, damping, input matrix, control and step size."""
    if isinstance(dt, torch.Tensor) and not splitting.symmetric:
        return
    control = torch.randn(3, M, dtype=torch.float64, requires_grad=True)
    system, others = parts(learned(), torch.tensor([0.2, 0.6, 1.5]), control, dt, nest)
    found = []
    for gradient in ("reversible", "stored"):
        leaves = [x.clone().requires_grad_() for x in states_of_three()]
        end = torch.cat(splitting(system, *leaves, dt=dt, steps=5, gradient=gradient), -1)
        inputs = [*leaves, *others, *system.parameters(), *([dt] if isinstance(dt, torch.Tensor) else [])]
        weight = torch.linspace(-1, 2, end.numel(), dtype=torch.float64).reshape(end.shape)
        found.append([end, *torch.autograd.grad((weight * end).sum(), inputs)])
    assert any(name.endswith("raw_damping") for name, _ in system.named_parameters())
    for reversible, stored in zip(*found, strict=True):
        assert stored.abs().sum() > 0
        torch.testing.assert_close(reversible, stored, rtol=1e-8, atol=1e-9 * stored.abs().max().item())


def states_of_three():
    return torch.randn(2, 3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("splitting", [sj.leapfrog, sj.ruth3], ids=["leapfrog", "ruth3"])
@nestings
def test_gradients_are_those_of_finite_differences(splitting, nest):
    system = nest(learned(), torch.tensor([0.2, 0.6, 1.5]), learn=True).double()
    q, p = states_of_three()[:, :1].requires_grad_()
    u = torch.randn(1, M, dtype=torch.float64, requires_grad=True)
    run, weights = by_weights(system, lambda s, q, p, u: splitting(s.with_control(u), q, p, dt=0.2, steps=1))
    assert torch.autograd.gradcheck(run, (q, p, u, *weights))


def test_second_derivatives_with_respect_to_the_damping():
    (q, p), raw = states_of_three(), torch.tensor([0.0, 0.05, -0.3], dtype=torch.float64, requires_grad=True)
    system = sj.DampedHamiltonian(learned(), 1.0, learn=True)

    def run(raw):
        return torch.func.functional_call(Rollout(system), {"system.raw_damping": raw}, (q, p))

    assert torch.autograd.gradgradcheck(run, (raw,))


class Rollout(nn.Module):
    def __init__(self, system):
        super().__init__()
        self.system = system

    def forward(self, q, p):
        return sj.leapfrog(self.system, q, p, dt=0.2, steps=2)


# A learned damping


@pytest.mark.parametrize("value", [1e-4, 0.3, 50.0, 2000.0])
def test_a_learned_damping_starts_at_its_value(value):
    single = sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), value, learn=True)
    each = sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), torch.full((D,), value), learn=True)
    torch.testing.assert_close(single.damping, torch.full((1,), value), rtol=1e-5, atol=0)
    torch.testing.assert_close(each.damping, torch.full((D,), value), rtol=1e-5, atol=0)
    assert (single.learn, sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), value).learn) == (True, False)


def test_a_learned_damping_finds_the_true_one_and_stays_nonnegative():
    truth = torch.tensor([0.0, 0.2, 0.9], dtype=torch.float64)
    q, p = states(32, D)
    world = sj.HamiltonianPredictor(sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), truth), dt=0.1, steps=5)
    system = sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), torch.full((D,), 0.5), learn=True).double()
    model = sj.HamiltonianPredictor(system, dt=0.1, steps=5)
    z = torch.cat((q, p), -1)
    target = world.rollout(z, steps=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (model.rollout(z, steps=3) - target).square().mean().backward()
        optimizer.step()
        assert (system.damping >= 0).all()
    assert system.damping[0] < 0.05  # softplus comes close to 0, ever more slowly
    torch.testing.assert_close(system.damping.detach()[1:], truth[1:], rtol=0, atol=5e-3)


# Control


@nestings
def test_a_controlled_system_is_damped_whichever_is_wrapped_first(nest):
    z, u = torch.randn(5, 2 * D, dtype=torch.float64), torch.randn(5, M, dtype=torch.float64)
    system = nest(learned(), GAMMA)
    predictor = sj.HamiltonianPredictor(system, dt=0.2, steps=3)
    assert predictor.takes_control
    assert not sj.HamiltonianPredictor(sj.DampedHamiltonian(learned(), 0.1)).takes_control
    matrix = next(x for name, x in system.named_parameters() if name.endswith("input_matrix"))
    inner = next(x for x in system.modules() if isinstance(x, sj.SeparableHamiltonian))

    def potential(q):
        return inner.potential(q) - torch.einsum("bi,ij,bj->b", q, matrix, u)

    tilted = copy.deepcopy(inner)
    tilted.force = lambda q: inner.force(q) + u @ matrix.mT
    tilted.potential = potential
    expected = torch.cat(sj.leapfrog(sj.DampedHamiltonian(tilted, GAMMA), *z.chunk(2, -1), dt=0.2, steps=3), -1)
    there = predictor(z, control=u)
    torch.testing.assert_close(there, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(predictor(there, direction=-1, control=u), z, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(predictor.energy(*z.chunk(2, -1), control=u), tilted(*z.chunk(2, -1)))
    free = sj.HamiltonianPredictor(sj.DampedHamiltonian(inner, GAMMA), dt=0.2, steps=3)
    assert torch.equal(predictor(z), free(z))
    assert (there - free(z)).abs().max() > 1e-2
    assert repr(system.with_control(u))


def test_a_damped_system_without_a_control_takes_none():
    predictor = sj.HamiltonianPredictor(sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), 0.1))
    with pytest.raises(TypeError, match="control"):
        predictor(torch.randn(5, 2 * D), control=torch.randn(5, M))
    with pytest.raises(TypeError, match="QuadraticHamiltonian, which takes no control"):
        predictor.hamiltonian.with_control(torch.randn(5, M))


@nestings
def test_a_driven_rollout_compiles_in_one_graph(nest):
    predictor = sj.HamiltonianPredictor(nest(learned(), GAMMA), dt=0.1, steps=1)
    z, u = torch.randn(5, 2 * D, dtype=torch.float64), torch.randn(2, 5, M, dtype=torch.float64)
    torch._dynamo.reset()
    compiled = torch.compile(predictor.rollout, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(z, u), predictor.rollout(z, u))


# Parts of other parts


def test_the_warm_up_of_an_objective_reaches_the_wrapped_energy():
    inner = sj.SeparableHamiltonian(D, hidden_dim=4)
    objective = sj.HamJEPAObjective(sj.HamiltonianPredictor(sj.DampedHamiltonian(inner, 0.1)))
    objective.set_residual_scale(0.25)
    assert inner.residual_scale.item() == 0.25


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("gamma", [0.7, torch.tensor([0.7, 0.01, 3.0])], ids=["scalar", "per coordinate"])
def test_it_is_saved_with_its_damping(gamma, learn, tmp_path):
    system = sj.DampedHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=4), gamma, learn=learn)
    if learn:
        system.raw_damping.data.sub_(1e3)  # softplus is 0 there: no argument of a new one
        system.raw_damping.data[:1].fill_(0.3)
    system.save_pretrained(tmp_path)
    loaded = sj.DampedHamiltonian.from_pretrained(tmp_path)
    assert torch.equal(loaded.damping, system.damping)
    assert (loaded.learn, loaded.config().keys()) == (learn, system.config().keys())
    q, p = states(4, D)
    assert all(map(torch.equal, sj.leapfrog(loaded, q, p, dt=0.1), sj.leapfrog(system, q, p, dt=0.1)))


def test_a_fixed_damping_is_the_number_that_was_given():
    for gamma in (0.7, torch.tensor([0.7, 0.1], dtype=torch.float64)):
        system = sj.DampedHamiltonian(sj.QuadraticHamiltonian(2), gamma).bfloat16().float().double()
        assert system.damping.tolist() == torch.as_tensor(gamma, dtype=torch.float64).flatten().tolist()
    assert sj.DampedHamiltonian(sj.QuadraticHamiltonian(2), 0.7).bfloat16().config()["damping"] == 0.7


def test_the_tensor_that_was_given_is_copied():
    gamma = torch.ones(2, dtype=torch.float64)
    system = sj.DampedHamiltonian(sj.QuadraticHamiltonian(2), gamma)
    gamma.fill_(5.0)
    assert system.damping.tolist() == [1.0, 1.0]


# Refusals


class Relativistic(AbstractSeparable):
    def potential(self, q):
        return q.sum(-1)

    def force(self, q):
        return -torch.ones_like(q)

    def kinetic(self, p):
        return (1 + p.square().sum(-1)).sqrt()

    def velocity(self, p):
        return p / (1 + p.square().sum(-1, keepdim=True)).sqrt()


def test_bad_arguments_are_named():
    h, damped = sj.QuadraticHamiltonian(D), sj.DampedHamiltonian
    q, p = states(4, D)
    nan, inf = float("nan"), float("inf")
    for call, error, message in (
        (lambda: damped(sj.GeneralHamiltonian(D), 0.1), TypeError, "AbstractSeparable, got GeneralHamiltonian"),
        (lambda: damped(nn.Identity(), 0.1), TypeError, "AbstractSeparable, got Identity"),
        (lambda: damped(Relativistic(), 0.1), TypeError, "got Relativistic, which overrides kinetic"),
        (lambda: damped(Counting(), 0.1), TypeError, "got Counting, which overrides velocity"),
        (
            lambda: damped(sj.ControlledHamiltonian(Relativistic(), torch.ones(D, 1)), 0.1),
            TypeError,
            "got Relativistic, which overrides kinetic",
        ),
        (lambda: damped(h, -0.1), ValueError, "damping must be a finite number >= 0, got -0.1"),
        (lambda: damped(h, nan), ValueError, "damping must be a finite number >= 0, got nan"),
        (lambda: damped(h, inf), ValueError, "damping must be a finite number >= 0, got inf"),
        (lambda: damped(h, "much"), ValueError, "damping must be a finite number >= 0, got 'much'"),
        (lambda: damped(h, 0.0, learn=True), ValueError, "damping must be a finite number > 0, got 0.0"),
        (lambda: damped(h, torch.tensor([0.1, -1.0, 0])), ValueError, r"finite and >= 0, got \[0.1"),
        (lambda: damped(h, torch.tensor([0.1, nan, 0])), ValueError, r"finite and >= 0, got \[0.1"),
        (lambda: damped(h, torch.tensor([0.1, inf, 0])), ValueError, r"finite and >= 0, got \[0.1"),
        (lambda: damped(h, torch.tensor([0.5, 0.0, 1.0]), learn=True), ValueError, r"finite and > 0, got \[0.5, 0.0"),
        (lambda: damped(h, torch.tensor(0.5)), ValueError, r"number or have shape \(d,\), got shape \(\)"),
        (lambda: damped(h, torch.ones(D, 1)), ValueError, r"number or have shape \(d,\), got shape \(3, 1\)"),
        (lambda: damped(h, torch.ones(0)), ValueError, r"number or have shape \(d,\), got shape \(0,\)"),
        (lambda: damped(h, torch.ones(D, dtype=torch.int64)), TypeError, "damping must be a floating-point tensor"),
        (lambda: damped(h, nn.Parameter(torch.ones(D))), ValueError, "must not require a gradient, .* learn=True"),
        (lambda: sj.leapfrog(damped(h, torch.ones(2)), q, p, dt=0.1), ValueError, r"shape \(3,\), got shape \(2,\)"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("make", [sj.DampedHamiltonian, *ORDERS.values()], ids=["damped", *ORDERS])
def test_implicit_midpoint_refuses_it(make):
    system, (q, p) = make(learned(), 0.1), states(4, D)
    for call in (sj.implicit_midpoint, sj.implicit_midpoint.residual):
        with pytest.raises(TypeError, match=r"must not be damped for implicit_midpoint, got \w+: .* with leapfrog"):
            call(system, q, p, dt=0.1)

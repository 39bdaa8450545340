"""Linear damping: the volume that it takes, the energy that it loses, and what it leaves as it was."""

import copy
import math

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.hamiltonians import AbstractSeparable
from symplectic_jepa.integrators import SPLITTINGS
from tests.helpers.damped import GAMMA, NESTINGS, D, M, jacobian, learned
from tests.helpers.samples import states
from tests.helpers.systems import Counting, omega

nestings = pytest.mark.parametrize("nest", NESTINGS.values(), ids=NESTINGS.keys())
every = pytest.mark.parametrize("splitting", SPLITTINGS.values(), ids=SPLITTINGS.keys())


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


@pytest.mark.parametrize("learn_mass", [False, True])
def test_vector_field_includes_the_damping_and_loses_energy_at_its_rate(learn_mass):
    inner, (q, p) = learned(learn_mass=learn_mass), states(5, D)
    velocity, push = sj.DampedHamiltonian(inner, GAMMA).vector_field(q, p)
    torch.testing.assert_close((velocity, push), (inner.velocity(p), inner.force(q) - GAMMA * inner.velocity(p)))
    loss = (-inner.force(q) * velocity + inner.velocity(p) * push).sum(-1)  # dH/dt
    torch.testing.assert_close(loss, -(GAMMA * velocity.square()).sum(-1))


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


@pytest.mark.parametrize("make", [sj.DampedHamiltonian, *NESTINGS.values()], ids=["damped", *NESTINGS])
def test_implicit_midpoint_refuses_it(make):
    system, (q, p) = make(learned(), 0.1), states(4, D)
    for call in (sj.implicit_midpoint, sj.implicit_midpoint.residual):
        with pytest.raises(TypeError, match=r"must not be damped for implicit_midpoint, got \w+: .* with leapfrog"):
            call(system, q, p, dt=0.1)

"""The tables of coefficients: order on problems with known solutions, structure, cost."""

import copy
import inspect
import itertools
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import symplectic_jepa as sj
from symplectic_jepa import QuadraticHamiltonian, SeparableHamiltonian, leapfrog, symplectic_euler
from symplectic_jepa.evaluation import symplecticity_defect
from symplectic_jepa.integrators import SPLITTINGS, Splitting
from tests.helpers.samples import states
from tests.helpers.systems import Counting, HenonHeiles, Kepler, Pendulum, by_weights

ORDERS = {"symplectic_euler": 1, "leapfrog": 2, "position_verlet": 2, "ruth3": 3, "yoshida4": 4, "yoshida6": 6}
every = pytest.mark.parametrize("splitting", SPLITTINGS.values(), ids=SPLITTINGS.keys())


def dop853(hamiltonian, z, time):
    """Dormand–Prince of order 8 at tolerance 1e-13, a method that shares nothing with ours."""

    def rhs(_, z):
        q, p = torch.from_numpy(z).chunk(2)
        return torch.cat((p, hamiltonian.force(q))).numpy()

    solution = solve_ivp(rhs, (0, time), z.numpy(), method="DOP853", rtol=1e-13, atol=1e-13)
    return torch.from_numpy(solution.y[:, -1].copy())


def rotated(hamiltonian, z, time):
    q, p = z.chunk(2)
    return torch.cat((q * math.cos(time) + p * math.sin(time), p * math.cos(time) - q * math.sin(time)))


ECCENTRICITY = 0.3


def kepler_orbit(hamiltonian, z, time):
    """From the perihelion of an ellipse with half-axis 1: Kepler's equation ``E − e sin E = t`` by Newton's method."""
    e, b = ECCENTRICITY, math.sqrt(1 - ECCENTRICITY**2)
    anomaly = time
    for _ in range(50):
        anomaly -= (anomaly - e * math.sin(anomaly) - time) / (1 - e * math.cos(anomaly))
    rate = 1 / (1 - e * math.cos(anomaly))
    cos, sin = math.cos(anomaly), math.sin(anomaly)
    return torch.tensor((cos - e, b * sin, -sin * rate, b * cos * rate), dtype=torch.float64)


PERIHELION = (1 - ECCENTRICITY, 0.0, 0.0, math.sqrt((1 + ECCENTRICITY) / (1 - ECCENTRICITY)))
PROBLEMS = {  # the Hamiltonian, the start, the solution
    "oscillator": (QuadraticHamiltonian(2), (1.0, 0.3, -0.4, 0.8), rotated),
    "pendulum": (Pendulum(), (2.0, 0.5), dop853),
    "henon_heiles": (HenonHeiles(), (0.3, -0.2, 0.25, 0.35), dop853),
    "kepler": (Kepler(), PERIHELION, kepler_orbit),
}
TIME = 2.0
# Steps per unit of time: errors small enough to be asymptotic, large enough to stand above rounding.
RESOLUTION = {1: (100, 200), 2: (50, 100), 3: (160, 320), 4: (20, 40), 6: (10, 20)}


def measured_orders(splitting, problem, resolution):
    hamiltonian, start, solve = PROBLEMS[problem]
    z = torch.tensor(start, dtype=torch.float64)
    exact = solve(hamiltonian, z, TIME)
    errors = []
    for per_unit in resolution:
        end = torch.cat(splitting(hamiltonian, *z.chunk(2), dt=1 / per_unit, steps=round(per_unit * TIME)))
        errors.append((end - exact).norm().item())
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


@every
@pytest.mark.parametrize("problem", PROBLEMS)
def test_measured_order_is_the_stated_one(splitting, problem):
    assert splitting.order == ORDERS[splitting.name]
    assert measured_orders(splitting, problem, RESOLUTION[splitting.order]) == pytest.approx(
        [splitting.order], abs=0.12
    )


def test_a_wrong_coefficient_lowers_the_measured_order():
    kicks = list(sj.yoshida4.kicks)
    kicks[0] += 1e-3
    kicks[-1] -= 1e-3
    wrong = Splitting("wrong", kicks=tuple(kicks), drifts=sj.yoshida4.drifts, order=4)
    assert measured_orders(wrong, "pendulum", (80, 160))[0] < 1.5


def test_yoshida6_weights_fulfil_the_order_conditions_of_odd_powers():
    """Σw = 1, Σw³ = 0, Σw⁵ = 0 for a symmetric composition of leapfrogs, to the rounding of the literals."""
    sums = [math.fsum(w**k for w in sj.yoshida6.drifts) for k in (1, 3, 5)]
    assert sums == pytest.approx([1, 0, 0], abs=1e-14)


@every
@pytest.mark.parametrize("learn_mass", [False, True])
@pytest.mark.parametrize("dt", [0.3, -0.2])
def test_map_is_symplectic_for_the_learned_hamiltonian(splitting, learn_mass, dt):
    h = SeparableHamiltonian(3, hidden_dim=8, residual_scale=2.0, learn_mass=learn_mass).double()
    if learn_mass:
        h.raw_mass.data.normal_()
    predictor = sj.HamiltonianPredictor(h, dt=abs(dt), steps=3, integrator=splitting)
    z = torch.randn(4, 6, dtype=torch.float64)
    direction = 1 if dt > 0 else -1
    assert symplecticity_defect(lambda z: predictor(z, direction=direction), z).max() < 5e-13


@every
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_negative_dt_is_the_exact_inverse(splitting, steps):
    h = SeparableHamiltonian(3, hidden_dim=8, residual_scale=2.0).double()
    q, p = torch.randn(2, 5, 3, dtype=torch.float64)
    there = splitting(h, q, p, dt=0.2, steps=steps)
    assert (there[0] - q).abs().max() > 0.01
    torch.testing.assert_close(splitting(h, *there, dt=-0.2, steps=steps), (q, p), rtol=1e-12, atol=1e-12)
    before = splitting(h, q, p, dt=-0.2, steps=steps)
    torch.testing.assert_close(splitting(h, *before, dt=0.2, steps=steps), (q, p), rtol=1e-12, atol=1e-12)


def test_only_palindromic_tables_are_symmetric():
    assert {s.name for s in SPLITTINGS.values() if not s.symmetric} == {"symplectic_euler", "ruth3"}


@pytest.mark.parametrize(
    ("name", "forces", "velocities"),  # of five steps
    [
        ("symplectic_euler", 5, 5),
        ("leapfrog", 6, 5),
        ("position_verlet", 5, 6),
        ("ruth3", 15, 15),
        ("yoshida4", 16, 15),
        ("yoshida6", 36, 35),
    ],
)
def test_merged_updates_save_evaluations(name, forces, velocities):
    h, (q, p) = Counting(), torch.randn(2, 4, 3)
    SPLITTINGS[name](h, q, p, dt=0.1, steps=5)
    assert (h.forces, h.velocities) == (forces, velocities)
    assert SPLITTINGS[name].force_evaluations(5) == forces


@every
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("dt", [0.17, -0.17])
def test_merged_updates_equal_the_table_update_by_update(splitting, steps, dt):
    h = SeparableHamiltonian(3, hidden_dim=8, residual_scale=2.0, learn_mass=True).double()
    h.raw_mass.data.normal_()
    q, p = torch.randn(2, 4, 3, dtype=torch.float64)
    table = list(itertools.chain(*itertools.zip_longest(splitting.kicks, splitting.drifts, fillvalue=0.0)))
    updates = list(enumerate(table))
    a, b = q, p
    for _ in range(steps):
        for i, c in updates if dt > 0 or splitting.symmetric else reversed(updates):
            if i % 2:
                a = a + c * dt * b / h.mass
            else:
                b = b + c * dt * h.force(a)
    torch.testing.assert_close(splitting(h, q, p, dt=dt, steps=steps), (a, b), rtol=1e-12, atol=1e-12)


def test_every_integrator_is_of_one_kind_and_says_what_it_is():
    named = (symplectic_euler, leapfrog, sj.position_verlet, sj.ruth3, sj.yoshida4, sj.yoshida6)
    assert list(SPLITTINGS.values()) == list(named)
    assert all(SPLITTINGS[splitting.name] is splitting for splitting in named)
    for integrator in (*named, sj.implicit_midpoint):
        assert isinstance(integrator, sj.integrators.Integrator)
    for splitting in named:
        text = inspect.getdoc(splitting)
        assert splitting.name in text
        assert splitting.reference in text
    assert (sj.implicit_midpoint.name, sj.implicit_midpoint.order, sj.implicit_midpoint.symmetric) == (
        "implicit_midpoint", 2, True,
    )  # fmt: skip
    assert copy.deepcopy(leapfrog) == pickle.loads(pickle.dumps(leapfrog)) == leapfrog


@every
def test_gradients_in_state_weights_and_learned_step_are_right(splitting):
    h = SeparableHamiltonian(2, hidden_dim=4, residual_scale=1.0, learn_mass=True).double()
    q, p = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    run, weights = by_weights(h, lambda h, q, p: splitting(h, q, p, dt=0.2, steps=2))
    assert torch.autograd.gradcheck(run, (q, p, *weights))
    dt = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    if splitting.symmetric:
        assert torch.autograd.gradcheck(lambda dt: splitting(h, q, p, dt=dt, steps=2), (dt,))
    else:
        with pytest.raises(TypeError, match="dt must be a float for an integrator that is not time-symmetric"):
            splitting(h, q, p, dt=dt, steps=2)


both = pytest.mark.parametrize("integrate", [leapfrog, symplectic_euler])


@both
def test_energy_error_stays_bounded_over_a_hundred_thousand_steps(integrate):
    pendulum = Pendulum()
    q, p = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.tensor([[0.0], [0.3]], dtype=torch.float64)
    start, drift = pendulum(q, p), []
    with torch.no_grad():
        for _ in range(50):
            q, p = integrate(pendulum, q, p, dt=0.05, steps=2000)
            drift.append((pendulum(q, p) - start).abs().max().item())
    bound = {2: 1e-3, 1: 5e-2}[integrate.order]
    assert max(drift) < bound
    # No growth: the last fifth is no worse than the first, by more than the oscillation itself.
    assert max(drift[-10:]) < 2 * max(drift[:10])


@both
@given(shape=st.lists(st.integers(1, 3), max_size=4))
@settings(max_examples=15, deadline=None)
def test_any_leading_shape_is_integrated_row_by_row(integrate, shape):
    h, (q, p) = SeparableHamiltonian(2, hidden_dim=8, residual_scale=1.0).double(), states(*shape, 2)
    got = integrate(h, q, p, dt=0.1, steps=2)
    flat = integrate(h, q.reshape(-1, 2), p.reshape(-1, 2), dt=0.1, steps=2)
    assert got[0].shape == q.shape
    torch.testing.assert_close(tuple(x.reshape(-1, 2) for x in got), flat)


def test_half_precision_modules_integrate_too():
    h = SeparableHamiltonian(4, hidden_dim=8).bfloat16()
    q, p = torch.randn(2, 3, 4).bfloat16()
    got = leapfrog(h, q, p, dt=0.1, steps=1)
    torch.testing.assert_close(
        got[0].float(), leapfrog(h.float(), q.float(), p.float(), dt=0.1)[0], atol=0.02, rtol=0.01
    )


@both
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_results_do_not_depend_on_the_grad_mode(integrate, mode):
    q, p = states(3, 2)
    for h in (
        SeparableHamiltonian(2, hidden_dim=8, residual_scale=1.0).double(),
        sj.PotentialHamiltonian(lambda q: q.square().square().sum(-1)),
    ):
        expected = integrate(h, q, p, dt=0.1, steps=2)
        with mode():
            got = integrate(h, q, p, dt=0.1, steps=2)
        torch.testing.assert_close(got, tuple(x.detach() for x in expected))
        assert not got[0].requires_grad


@both
def test_bad_arguments_are_named(integrate):
    h, (q, p) = QuadraticHamiltonian(2), states(3, 2)
    for (a, b, dt, steps), error, message in (
        ((q, p[:2], 0.1, 1), ValueError, r"share a shape \(..., d\), got \(3, 2\) and \(2, 2\)"),
        ((q, p, 0.1, 0), ValueError, "steps must be an int >= 1, got 0"),
        ((q, p, float("nan"), 1), ValueError, "dt must be a finite number, got nan"),
        ((q, p, 0.1j, 1), ValueError, "dt must be a finite number, got 0.1j"),
        ((q, p, torch.tensor(0.1j), 1), TypeError, "dt must be a floating-point tensor, got dtype torch.complex64"),
        ((q.long(), p.long(), 0.1, 1), TypeError, "q must be a floating-point tensor, got dtype torch.int64"),
    ):
        with pytest.raises(error, match=message):
            integrate(h, a, b, dt=dt, steps=steps)


def test_bad_tables_are_named():
    for arguments, message in (
        ({"kicks": (1.0,), "drifts": (1.0,)}, "one more entry than drifts, got 1 kicks and 1 drifts"),
        ({"kicks": (1.0,), "drifts": ()}, "got 1 kicks and 0 drifts"),
        ({"kicks": (0.5, 0.4), "drifts": (1.0,)}, r"kicks must sum to 1 to be consistent, got 0\.9"),
        ({"kicks": (0.5, 0.5), "drifts": (2.0,)}, r"drifts must sum to 1 to be consistent, got 2\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Splitting("bad", order=1, **arguments)
    with pytest.raises(ValueError, match="order must be an int >= 1, got 0"):
        Splitting("bad", kicks=(0.5, 0.5), drifts=(1.0,), order=0)
    with pytest.raises(TypeError, match=r"must be separable, .* got Linear: .* implicit_midpoint"):
        sj.ruth3(torch.nn.Linear(1, 1), torch.zeros(1), torch.zeros(1), dt=0.1)

"""Properties of the maps, in float64 against textbook facts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from symplectic_jepa import PotentialHamiltonian, QuadraticHamiltonian, SeparableHamiltonian, leapfrog, symplectic_euler
from tests.helpers.samples import states
from tests.helpers.systems import Pendulum

INTEGRATORS = {leapfrog: 2, symplectic_euler: 1}
both = pytest.mark.parametrize("integrate", INTEGRATORS)


@both
def test_energy_error_stays_bounded_over_a_hundred_thousand_steps(integrate):
    pendulum = Pendulum()
    q, p = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.tensor([[0.0], [0.3]], dtype=torch.float64)
    start, drift = pendulum(q, p), []
    with torch.no_grad():
        for _ in range(50):
            q, p = integrate(pendulum, q, p, dt=0.05, steps=2000)
            drift.append((pendulum(q, p) - start).abs().max().item())
    bound = {2: 1e-3, 1: 5e-2}[INTEGRATORS[integrate]]
    assert max(drift) < bound
    # No growth: the last fifth is no worse than the first, by more than the oscillation itself.
    assert max(drift[-10:]) < 2 * max(drift[:10])


@both
@given(shape=st.lists(st.integers(1, 3), max_size=4))
@settings(max_examples=15, deadline=None)
def test_any_leading_shape_is_integrated_row_by_row(integrate, shape):
    h, (q, p) = learned(2), states(*shape, 2)
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
    for h in (learned(2), PotentialHamiltonian(lambda q: q.square().square().sum(-1))):
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
        ((q, p, torch.tensor(0.1j), 1), TypeError, "dt must be a real number .* got dtype torch.complex64"),
        ((q.long(), p.long(), 0.1, 1), TypeError, "q must be a floating-point tensor, got dtype torch.int64"),
    ):
        with pytest.raises(error, match=message):
            integrate(h, a, b, dt=dt, steps=steps)

"""Properties of the maps, in float64 against textbook facts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from symplectic_jepa import PotentialHamiltonian, QuadraticHamiltonian, SeparableHamiltonian, leapfrog, symplectic_euler
from symplectic_jepa.hamiltonians import AbstractSeparable, Hamiltonian

INTEGRATORS = {leapfrog: 2, symplectic_euler: 1}
both = pytest.mark.parametrize("integrate", INTEGRATORS)


def learned(dim=3, scale=1.0, activation="gelu"):
    return SeparableHamiltonian(dim, hidden_dim=8, activation=activation, residual_scale=scale).double()


def states(*shape):
    return torch.randn(2, *shape, dtype=torch.float64)


def jacobian(integrate, hamiltonian, z, **kwargs):
    def step(z):
        return torch.cat(integrate(hamiltonian, *z.chunk(2), **kwargs))

    return torch.autograd.functional.jacobian(step, z)


def omega(dim):
    zero, eye = torch.zeros(dim, dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)
    return torch.cat((torch.cat((zero, eye), 1), torch.cat((-eye, zero), 1)))


@both
@given(seed=st.integers(0, 99), steps=st.integers(1, 5), dt=st.floats(-0.5, 0.5), dim=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_map_is_symplectic_with_unit_determinant_and_paired_singular_values(integrate, seed, steps, dt, dim):
    torch.manual_seed(seed)
    j = jacobian(integrate, learned(dim), torch.randn(2 * dim, dtype=torch.float64), dt=dt, steps=steps)
    assert (j.T @ omega(dim) @ j - omega(dim)).abs().max() < 1e-13
    assert abs(torch.linalg.det(j) - 1) < 1e-13
    singular = torch.linalg.svdvals(j)
    torch.testing.assert_close(singular * singular.flip(0), torch.ones_like(singular), rtol=1e-12, atol=0)


def test_explicit_euler_fails_the_same_check():
    def explicit_euler(h, q, p, *, dt, steps):
        return q + dt * p, p + dt * h.force(q)

    j = jacobian(explicit_euler, learned(), torch.randn(6, dtype=torch.float64), dt=0.1, steps=1)
    assert (j.T @ omega(3) @ j - omega(3)).abs().max() > 1e-3


@both
@given(steps=st.integers(1, 50), dt=st.floats(0.001, 0.3), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_negative_dt_is_the_exact_inverse(integrate, steps, dt, seed):
    torch.manual_seed(seed)
    h, (q, p) = learned(), states(7, 3)
    forth = integrate(h, q, p, dt=dt, steps=steps)
    back = integrate(h, *forth, dt=-dt, steps=steps)
    torch.testing.assert_close(back, (q, p), rtol=1e-12, atol=1e-12)
    there = integrate(h, *integrate(h, q, p, dt=-dt, steps=steps), dt=dt, steps=steps)
    torch.testing.assert_close(there, (q, p), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_merged_kicks_equal_the_textbook_step(steps):
    h, (q, p) = learned(), states(4, 3)
    dt = 0.17
    a, b = q, p
    for _ in range(steps):  # kick, drift, kick with a gradient for each kick
        b = b + 0.5 * dt * h.force(a)
        a = a + dt * b
        b = b + 0.5 * dt * h.force(a)
    torch.testing.assert_close(leapfrog(h, q, p, dt=dt, steps=steps), (a, b), rtol=1e-13, atol=1e-13)
    a, b = q, p
    for _ in range(steps):
        b = b + dt * h.force(a)
        a = a + dt * b
    torch.testing.assert_close(symplectic_euler(h, q, p, dt=dt, steps=steps), (a, b), rtol=1e-13, atol=1e-13)


@both
def test_energy_error_stays_bounded_over_a_hundred_thousand_steps(integrate):
    pendulum = PendulumByHand()
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


class PendulumByHand(AbstractSeparable):
    def potential(self, q):
        return (1 - q.cos()).sum(-1)

    def force(self, q):
        return -q.sin()


@both
@given(shape=st.lists(st.integers(1, 3), max_size=4))
@settings(max_examples=15, deadline=None)
def test_any_leading_shape_is_integrated_row_by_row(integrate, shape):
    h, (q, p) = learned(2), states(*shape, 2)
    got = integrate(h, q, p, dt=0.1, steps=2)
    flat = integrate(h, q.reshape(-1, 2), p.reshape(-1, 2), dt=0.1, steps=2)
    assert got[0].shape == q.shape
    torch.testing.assert_close(tuple(x.reshape(-1, 2) for x in got), flat)


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_under_autocast_the_dynamics_run_in_float32(integrate, dtype):
    h = SeparableHamiltonian(16, hidden_dim=32, residual_scale=1.0)
    q, p = torch.randn(2, 8, 16).to(dtype)
    expected = integrate(h, q.float(), p.float(), dt=0.1, steps=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = integrate(h, q, p, dt=0.1, steps=3)
        assert torch.is_autocast_enabled("cpu")
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == dtype
        assert torch.equal(a, b.to(dtype))


def test_float64_states_stay_float64_and_keep_their_digits():
    h = SeparableHamiltonian(4, hidden_dim=8, residual_scale=0.5)  # float32 weights
    q, p = states(3, 4)
    got = leapfrog(h, q, p, dt=0.1, steps=3)
    assert got[0].dtype == torch.float64
    torch.testing.assert_close(got, leapfrog(h.double(), q, p, dt=0.1, steps=3), rtol=1e-12, atol=1e-12)


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


def test_no_value_is_read_back_to_the_host():
    """Fake tensors have no values: any .item() or branch on data raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        h = SeparableHamiltonian(4)
        q, p = torch.randn(2, 3, 4).requires_grad_()
        a, b = leapfrog(h, q, p, dt=0.1, steps=2)
        (a.sum() + b.sum()).backward()
        assert a.shape == (3, 4)


class NonSeparable(Hamiltonian):
    def forward(self, q, p):
        return ((1 + q.square()) * p.square()).sum(-1)


@both
def test_only_a_separable_hamiltonian_is_accepted(integrate):
    q, p = states(3, 2)
    with pytest.raises(TypeError, match=r"must be separable, .* got NonSeparable: .* not symplectic"):
        integrate(NonSeparable(), q, p, dt=0.1)
    with pytest.raises(TypeError, match="must be separable"):
        integrate(lambda q, p: q.sum(-1), q, p, dt=0.1)


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

"""The structure of maps whose structure is known: shears, scalings, leapfrog and explicit Euler on pendulums."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from symplectic_jepa.evaluation import energy_drift, reversibility_error, symplecticity_defect
from symplectic_jepa.state import join_state, split_state
from tests.helpers.oracles import textbook_leapfrog
from tests.helpers.systems import omega


def states(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def potential(q):
    """Pendulums, each coupled to the next by a spring."""
    return (1.0 - q.cos()).sum(-1) + 0.15 * (q - q.roll(1, -1)).square().sum(-1)


def energy(q, p):
    return 0.5 * p.square().sum(-1) + potential(q)


def slope(q):
    """``∇V`` by hand."""
    return q.sin() + 0.3 * (2 * q - q.roll(1, -1) - q.roll(-1, -1))


def slope_by_autograd(q):
    """``∇V`` the way a user writes it."""
    with torch.enable_grad():
        q = q if q.requires_grad else q.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(potential(q).sum(), q, create_graph=True)
    return gradient


def leapfrog(z, h=0.1, gradient=slope):
    return join_state(*textbook_leapfrog(lambda q: -gradient(q), *split_state(z), dt=h))


def explicit_euler(z, h=0.1):
    q, p = split_state(z)
    return join_state(q + h * p, p - h * slope(q))


def naive_defect(jacobian):
    form = omega(len(jacobian) // 2)
    return (jacobian.T @ form @ jacobian - form).norm().item()


def test_shear_is_symplectic_only_with_a_symmetric_block():
    block = states(3, 3)
    one, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for shear, symplectic in ((block + block.T, True), (block, False)):
        matrix = torch.cat((torch.cat((one, shear), 1), torch.cat((zero, one), 1)), 0)
        defect = symplecticity_defect(lambda z, matrix=matrix: z @ matrix.T, states(4, 6))
        assert defect.shape == (4,)
        expected = naive_defect(matrix)
        assert (expected < 1e-14) == symplectic
        torch.testing.assert_close(defect, torch.full_like(defect, expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("factor", [1.1, 0.0, -1.0])
def test_scaling_has_the_known_defect(factor):
    defect = symplecticity_defect(lambda z: factor * z, states(2, 3, 8))
    expected = abs(factor**2 - 1) * math.sqrt(8)
    torch.testing.assert_close(defect, torch.full((2, 3), expected, dtype=torch.float64))


def test_defect_equals_the_definition_for_a_network():
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6)).double()
    z = states(5, 6)
    defect = symplecticity_defect(network, z)
    for state, value in zip(z, defect, strict=True):
        jacobian = torch.autograd.functional.jacobian(network, state)
        assert value.item() == pytest.approx(naive_defect(jacobian), rel=1e-10)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not defect.requires_grad


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("gradient", [slope, slope_by_autograd])
def test_leapfrog_is_symplectic(gradient, context):
    with context():
        z = states(4, 6)
        step = partial(leapfrog, h=0.3, gradient=gradient)
        assert symplecticity_defect(step, z).max() < 1e-14
        assert symplecticity_defect(partial(explicit_euler, h=0.3), z).min() > 1e-3


def test_defect_follows_the_dtype_of_the_states_even_under_autocast():
    z = states(3, 6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        defect = symplecticity_defect(leapfrog, z)
    assert defect.dtype == torch.float32
    assert defect.max() < 1e-6


def test_one_flat_state_and_an_empty_batch():
    assert symplecticity_defect(leapfrog, states(6)).shape == ()
    assert symplecticity_defect(leapfrog, states(0, 6)).shape == (0,)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_leapfrog_is_reversible_and_euler_is_not(context):
    with context():
        z = states(2, 5, 6)
        there, back = (partial(leapfrog, h=h, gradient=slope_by_autograd) for h in (0.2, -0.2))
        error = reversibility_error(there, back, z)
        assert error.shape == (2, 5)
        assert error.max() < 1e-14
        forward, backward = partial(explicit_euler, h=0.2), partial(explicit_euler, h=-0.2)
        assert reversibility_error(forward, backward, z).min() > 1e-3


def test_reversibility_error_is_relative_and_per_state():
    z = states(3, 4)
    wrong = torch.tensor([[0.0], [1e-3], [0.5]], dtype=torch.float64)
    error = reversibility_error(lambda x: 2.0 * x, lambda x: 0.5 * x * (1.0 + wrong), z)
    torch.testing.assert_close(error, wrong.squeeze(1))
    torch.testing.assert_close(reversibility_error(lambda x: x, lambda x: x + wrong * z, 1e6 * z), 1e-6 * error)
    assert reversibility_error(lambda x: x, lambda x: x, torch.zeros(2, 4)).tolist() == [0.0, 0.0]


def test_energy_drift_is_the_energy_minus_its_start():
    z = states(3, 4)
    drift = energy_drift(energy, leapfrog, z, steps=2)
    once, twice = leapfrog(z), leapfrog(leapfrog(z))
    expected = [energy(*split_state(x)) - energy(*split_state(z)) for x in (z, once, twice)]
    torch.testing.assert_close(drift, torch.stack(expected), rtol=1e-12, atol=1e-14)


def test_leapfrog_energy_error_is_bounded_of_order_two_and_eulers_grows():
    z = torch.tensor([[1.0, 0.5, 0.0, 0.2]], dtype=torch.float64)
    coarse, fine = (energy_drift(energy, partial(leapfrog, h=h), z, steps=round(100 / h)).abs() for h in (0.1, 0.05))
    assert coarse.shape == (1001, 1)
    assert coarse[500:].max() < 1.2 * coarse[:500].max()  # no growth in time
    assert 3.5 < coarse.max() / fine.max() < 4.5
    euler = energy_drift(energy, explicit_euler, z, steps=1000).abs()
    assert euler[-1] > 100 * coarse.max()


def test_drift_of_a_step_that_differentiates_its_energy_under_inference_mode():
    with torch.inference_mode():
        z = states(2, 4)
        by_autograd = energy_drift(energy, partial(leapfrog, gradient=slope_by_autograd), z, steps=20)
        torch.testing.assert_close(by_autograd, energy_drift(energy, leapfrog, z, steps=20))


def test_errors_name_the_argument():
    z = states(2, 4)
    detached = lambda x: x.detach()  # noqa: E731
    cases = [
        (lambda: symplecticity_defect(leapfrog, states(2, 3)), "z must have an even last dimension"),
        (lambda: symplecticity_defect(lambda x: x[..., :2], z), "keep the shape"),
        (lambda: symplecticity_defect(detached, z), "step must depend differentiably"),
        (lambda: symplecticity_defect(lambda x: torch.ones_like(x).requires_grad_(), z), "ignores it"),
        (lambda: reversibility_error(leapfrog, lambda x: x.sum(-1), z), "keep the shape"),
        (lambda: energy_drift(energy, leapfrog, z, steps=0), "steps must be an int >= 1, got 0"),
        (lambda: energy_drift(lambda q, p: q.sum(), leapfrog, z, steps=1), r"one energy per state, shape \(2,\)"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="z must be a floating-point tensor"):
        energy_drift(energy, leapfrog, z.long(), steps=1)


def test_the_error_of_a_half_precision_round_trip_is_not_of_its_units():
    """It is a ratio: neither the smallest normal number of float16 nor its largest limits it."""
    tiny = torch.full((1, 4), 2e-6, dtype=torch.float16)
    assert reversibility_error(lambda z: 2 * z, lambda z: z, tiny).item() == pytest.approx(1.0)
    large = torch.full((1, 4), 5e4, dtype=torch.float16)
    assert reversibility_error(lambda z: -z, lambda z: z, large).item() == pytest.approx(2.0)

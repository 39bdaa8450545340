"""What holds for every function of the theory: batches, gradients, precision, errors."""

import math

import numpy as np
import pytest
import torch

from symplectic_jepa import theory
from tests.helpers.oracles import close
from tests.helpers.samples import spd

BATCHED = {
    "worst_case_variance": lambda H, S, c: theory.worst_case_variance(H, S),
    "minimax_covariance": lambda H, S, c: theory.minimax_covariance(H, c),
    "minimax_value": lambda H, S, c: theory.minimax_value(H, c),
    "geometry_of_covariance": lambda H, S, c: theory.geometry_of_covariance(S, c),
    "maximum_entropy_distribution": lambda H, S, c: theory.maximum_entropy_distribution(H, c).scale_tril,
    "isotropic_covariance": lambda H, S, c: theory.isotropic_covariance(H, c),
    "price_of_isotropy": lambda H, S, c: theory.price_of_isotropy(H),
    "whiten": lambda H, S, c: theory.whiten(S, H),
    "metric_anisotropy": lambda H, S, c: theory.metric_anisotropy(H, S),
    "regret": lambda H, S, c: theory.regret(H, S),
    "adversarial_geometry": lambda H, S, c: theory.adversarial_geometry(S, epsilon=0.1),
    "quadratic_lift_q": lambda H, S, c: theory.quadratic_lift(H, c).position_cov,
    "quadratic_lift_p": lambda H, S, c: theory.quadratic_lift(H, c).momentum_cov,
    "quadratic_flow": lambda H, S, c: theory.quadratic_flow(H, c),
    "conditional_predictor": lambda H, S, c: theory.conditional_distribution(H, 0.05 * S).predictor,
    "conditional_residual": lambda H, S, c: theory.conditional_distribution(H, 0.05 * S).residual_cov,
    "scaled_coupling": lambda H, S, c: theory.scaled_coupling(S, c / 10),
    "drift": lambda H, S, c: theory.kick_drift_scaling(theory.quadratic_flow(H, c / 10)).drift,
    "scaling": lambda H, S, c: theory.kick_drift_scaling(theory.quadratic_flow(H, c / 10)).scaling,
    "kick": lambda H, S, c: theory.kick_drift_scaling(theory.quadratic_flow(H, c / 10)).kick,
    "min_eigenvalue_bound": lambda H, S, c: theory.min_eigenvalue_bound(-c, c, 3),
    "min_eigenvalue_bound_with_pr": lambda H, S, c: theory.min_eigenvalue_bound(-c, c, 3, 1 + c / 2),
    "max_eigenvalue_bound": lambda H, S, c: theory.max_eigenvalue_bound(c, 1 + c),
    "condition_number_bound": lambda H, S, c: theory.condition_number_bound(-c, c, 3, 1 + c / 2),
}


@pytest.mark.parametrize("name", BATCHED)
def test_batches_equal_loops(name):
    H, S = spd(2, 3, 3, seed=1, spread=0.5), spd(2, 3, 3, seed=2, spread=0.5)
    c = torch.rand(2, 3, dtype=torch.float64) + 0.5
    batch = BATCHED[name](H, S, c)
    assert batch.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            close(batch[i, j], BATCHED[name](H[i, j], S[i, j], c[i, j]))


@pytest.mark.parametrize("name", BATCHED)
def test_gradients(name):
    H, S = spd(3, seed=1, spread=0.5).requires_grad_(), spd(3, seed=2, spread=0.5).requires_grad_()
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(BATCHED[name], (H, S, c))


def test_root_is_differentiable_where_eigenvalues_coincide():
    z = torch.randn(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(theory.whiten, (z, torch.eye(3, dtype=torch.float64).requires_grad_()))


def test_float32_covariances_are_taken_in_float64():
    x = torch.randn(8, 20)
    cov = x.T @ x  # rank 8 of 20: eigenvalues of the rounding may be negative
    H = torch.eye(20)
    close(theory.worst_case_variance(H, cov), np.linalg.eigvalsh(cov.double())[-1])
    assert theory.regret(H, cov).dtype == torch.float64


def test_a_budget_of_many_values_broadcasts_over_one_geometry():
    H, c = spd(3), torch.tensor([1.0, 2.0])
    assert theory.minimax_covariance(H, c).shape == (2, 3, 3)
    assert theory.quadratic_lift(H, c).momentum_cov.shape == (2, 3, 3)
    assert theory.quadratic_flow(H, c).shape == (2, 6, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.price_of_isotropy(torch.eye(3)[:2]), r"H must have shape \(\.\.\., d, d\).*\(2, 3\)"),
        (lambda: theory.price_of_isotropy(torch.tensor([[1.0, 0.5], [0.0, 1.0]])), r"H must be symmetric.*0\.5"),
        (lambda: theory.price_of_isotropy(torch.diag(torch.tensor([1.0, -2.0]))), "H must be positive definite.*-2"),
        (lambda: theory.price_of_isotropy(torch.zeros(2, 2)), "H must be positive definite.*0"),
        (lambda: theory.price_of_isotropy(torch.full((2, 2), float("nan"))), "H must be finite"),
        (lambda: theory.worst_case_variance(torch.eye(2), -torch.eye(2)), "cov must be positive semi-definite.*-1"),
        (lambda: theory.worst_case_variance(torch.eye(2), torch.eye(3)), r"cov must have shape \(\.\.\., 2, 2\)"),
        (lambda: theory.regret(torch.eye(2), torch.zeros(2, 2)), "shape must not be zero"),
        (lambda: theory.minimax_covariance(torch.eye(2), 0.0), r"budget must be a finite number > 0, got 0\.0"),
        (lambda: theory.quadratic_flow(torch.eye(2), math.inf), "time must be a finite number, got inf"),
        (lambda: theory.whiten(torch.ones(4, 3), torch.eye(2)), r"z must have shape \(\.\.\., N, 2\)"),
        (lambda: theory.adversarial_geometry(torch.eye(2), epsilon=0.0), "epsilon"),
        (lambda: theory.adversarial_geometry(torch.eye(2), epsilon=2.0), "epsilon"),
        (lambda: theory.max_eigenvalue_bound(1.0, 0.12), r"participation must be at least 1.*PR/k"),
        (lambda: theory.condition_number_bound(-1.0, 1.0, 4, 5.0), "at most k = 4, got 5"),
        (lambda: theory.min_eigenvalue_bound(-1.0, -2.0, 4), "trace must be"),
        (lambda: theory.min_eigenvalue_bound(-1.0, 2.0, 0), "k must be an int"),
        (lambda: theory.minimax_covariance(torch.eye(2).expand(3, 2, 2), torch.ones(4)), r"budget must broadcast to"),
        (lambda: theory.regret(torch.eye(2).expand(3, 2, 2), torch.eye(2).expand(4, 2, 2)), r"shape must .* to fit"),
        (lambda: theory.kick_drift_scaling(torch.eye(2), tolerance=math.nan), "tolerance must be a finite number"),
        (lambda: theory.kick_drift_scaling(torch.zeros(2, 2)), "matrix must be symplectic"),
        (lambda: theory.quadratic_flow(torch.eye(2), 1e300), r"within reach of float64, got t = 1e\+300"),
        (lambda: theory.quadratic_flow(1e300 * torch.eye(2).double(), 1.0), r"within reach of float64"),
    ],
)
def test_errors_name_the_argument_the_value_and_the_expectation(call, message):
    with pytest.raises(ValueError, match=message):
        call()


ARRAYS = {name: call for name, call in BATCHED.items() if "bound" not in name}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_give_what_tensors_give_and_other_types_are_named(name):
    H, S, c = spd(3, seed=1, spread=0.5), spd(3, seed=2, spread=0.5), torch.tensor(0.7, dtype=torch.float64)
    call = ARRAYS[name]
    scaled = "conditional" in name  # takes 0.05 S, which a list or None does not have
    close(call(H.numpy(), S.numpy(), c.numpy()), call(H, S, c), rtol=0, atol=0)
    close(call(H.numpy(), S.numpy(), np.float64(0.7)), call(H, S, c), rtol=0, atol=0)
    for bad in (None, "H", [[1.0, 0.0], [0.0, 1.0]], np.array([[None]])):
        with pytest.raises(TypeError, match=r"\w+ must be a tensor or a numeric numpy array, got "):
            call(bad, S if scaled else bad, c)


@pytest.mark.parametrize("bad", ["1", None, True, 1j, [1.0]])
def test_budgets_of_other_types_are_named(bad):
    with pytest.raises(TypeError, match="budget must be"):
        theory.minimax_covariance(torch.eye(2), bad)


def test_integer_matrices_are_refused():
    with pytest.raises(TypeError, match=r"H must be a floating-point tensor, got dtype torch\.int64"):
        theory.price_of_isotropy(torch.eye(2, dtype=torch.int64))


@pytest.mark.parametrize("scale", [1e300, 1e160, 1e-160, 1e-300])
def test_what_has_no_scale_is_the_same_at_every_scale(scale):
    H, S = spd(3, seed=1), spd(3, seed=2)
    close(theory.price_of_isotropy(H * scale), theory.price_of_isotropy(H))
    for function in (theory.regret, theory.metric_anisotropy):
        for other in (1.0, scale):
            close(function(H * scale, S * other), function(H, S))
    labels = torch.arange(40) % 3
    x = torch.randn(40, 3, dtype=torch.float64) + torch.eye(3, dtype=torch.float64)[labels]
    for tasks in ("readouts", "class_means"):
        close(theory.fit_geometry(x * scale, labels, tasks=tasks), theory.fit_geometry(x, labels, tasks=tasks))
        close(theory.fit_geometry(x, x * scale, tasks=tasks), theory.fit_geometry(x, x, tasks=tasks))
    close(theory.isotropy_report(x * scale, labels).regret, theory.isotropy_report(x, labels).regret)


def test_numbers_of_every_kind_are_taken():
    for budget in (2**70, np.uint64(2**64 - 1), np.float32(3.0), np.int8(3)):
        close(theory.minimax_value(torch.eye(2), budget), float(budget) / 2)

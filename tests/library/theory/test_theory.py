"""The theory against brute force: search over tasks, covariances and laws, quadrature, regression, scipy."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from symplectic_jepa import theory
from symplectic_jepa.hamiltonians import QuadraticHamiltonian
from symplectic_jepa.integrators import leapfrog

BUDGET = 2.5


def spd(*shape, seed=0, spread=1.0):
    """Random SPD matrices; their condition number grows with ``spread``."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(*shape, shape[-1])))
    values = np.exp(spread * rng.normal(size=shape))
    return torch.from_numpy((q * values[..., None, :]) @ q.swapaxes(-1, -2))


def brute_worst_case(H, cov):
    """The largest ``wᵀΣw`` with ``wᵀH⁻¹w ≤ 1``, by ascent on the Rayleigh quotient from several starts."""
    inverse, cov = np.linalg.inv(np.asarray(H)), np.asarray(cov)

    def loss(w):
        variance, size = w @ cov @ w, w @ inverse @ w
        return -variance / size, -2 * (cov @ w - variance / size * inverse @ w) / size

    starts = np.random.default_rng(0).normal(size=(4, len(cov)))
    return max(-scipy.optimize.minimize(loss, w, jac=True, options={"gtol": 1e-10}).fun for w in starts)


def close(actual, expected, **tolerance):
    actual, expected = (torch.as_tensor(x, dtype=torch.float64) for x in (actual, expected))
    torch.testing.assert_close(actual, expected, **({"rtol": 1e-9, "atol": 1e-9} | tolerance))


# 3.1 Worst-case task variance


@pytest.mark.parametrize("seed", range(3))
def test_worst_case_variance_is_the_supremum_over_tasks(seed):
    H, cov = spd(4, seed=seed), spd(4, seed=seed + 10)
    value = theory.worst_case_variance(H, cov)
    close(value, brute_worst_case(H, cov), rtol=1e-6)
    w = np.random.default_rng(seed).normal(size=(20000, 4))
    w /= np.sqrt(np.einsum("ni,ij,nj->n", w, np.linalg.inv(H), w))[:, None]
    sampled = np.einsum("ni,ij,nj->n", w, cov, w).max()
    assert 0.95 * value < sampled <= value * (1 + 1e-12)


def test_worst_case_variance_sees_collapse():
    spike = torch.diag(torch.tensor([2.0, 0.0, 0.0]))
    close(theory.worst_case_variance(torch.diag(torch.tensor([3.0, 1.0, 9.0])), spike), 6.0)
    assert theory.worst_case_variance(torch.eye(3), torch.zeros(3, 3)) == 0


# 3.2 Minimax covariance


def test_no_feasible_covariance_beats_the_minimax_value():
    H = spd(3)
    best = theory.minimax_covariance(H, BUDGET)
    close(torch.trace(H @ best), BUDGET)
    close(brute_worst_case(H, best), theory.minimax_value(H, BUDGET))
    for seed in range(30):
        cov = spd(3, seed=seed + 1, spread=seed / 30)
        cov = cov * BUDGET / torch.trace(H @ cov)
        assert brute_worst_case(H, cov) > theory.minimax_value(H, BUDGET)


def test_an_optimizer_finds_the_minimax_covariance():
    H = spd(2, seed=3)
    inverse = np.linalg.inv(H)

    def feasible(x):
        factor = np.array([[x[0], 0.0], [x[1], x[2]]])
        cov = factor @ factor.T
        return cov * BUDGET / np.trace(H.numpy() @ cov)

    def worst(x):  # a generalised eigenproblem: independent of any root or factor of H
        return scipy.linalg.eigh(feasible(x), inverse, eigvals_only=True)[-1]

    found = scipy.optimize.minimize(
        worst, [1.0, 0.3, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 2000}
    )
    close(found.fun, theory.minimax_value(H, BUDGET), rtol=1e-5)
    close(feasible(found.x), theory.minimax_covariance(H, BUDGET), rtol=1e-3, atol=1e-4)


# 3.3 Maximum entropy


def gaussian_entropy(cov):
    return 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.asarray(cov))[1]


def test_maximum_entropy_law_meets_its_budget():
    H = spd(3)
    z = theory.maximum_entropy_distribution(H, BUDGET).sample((200_000,))
    energy = torch.einsum("ni,ij,nj->n", z, H, z)
    assert abs(energy.mean() - BUDGET) < 5 * energy.std() / len(z) ** 0.5
    close(z.mean(0), torch.zeros(3), atol=0.02)


def test_other_feasible_gaussians_have_less_entropy():
    H = spd(3)
    law = theory.maximum_entropy_distribution(H, BUDGET)
    close(law.entropy(), gaussian_entropy(law.covariance_matrix))
    for seed in range(50):
        cov = spd(3, seed=seed + 1, spread=seed / 50)
        assert gaussian_entropy(cov * BUDGET / torch.trace(H @ cov)) < law.entropy()


def test_feasible_mixture_and_uniform_law_have_less_entropy():
    H = spd(2, seed=1)
    law = theory.maximum_entropy_distribution(H, BUDGET)
    # Uniform on {zᵀHz ≤ r²}: E zᵀHz = r² d/(d + 2) = c, volume π r² / √det H for d = 2.
    uniform = math.log(math.pi * 2 * BUDGET / math.sqrt(torch.linalg.det(H)))
    assert uniform < law.entropy()
    # Two Gaussians at ± m, their second moment scaled to the budget; entropy by Monte Carlo.
    inner, m = 0.4 * torch.linalg.inv(H), torch.tensor([0.8, -0.2], dtype=torch.float64)
    scale = (BUDGET / torch.trace(H @ (inner + torch.outer(m, m)))).sqrt()
    components = torch.distributions.MultivariateNormal(torch.stack((m, -m)) * scale, inner * scale**2)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(2)), components)
    z = mixture.sample((100_000,))
    close(torch.einsum("ni,ij,nj->n", z, H, z).mean(), BUDGET, rtol=0.02)
    information = -mixture.log_prob(z)
    assert information.mean() + 5 * information.std() / len(z) ** 0.5 < law.entropy()


# 3.4 Price of isotropy


@pytest.mark.parametrize("seed", range(3))
def test_price_of_isotropy_by_its_definition(seed):
    H = spd(5, seed=seed)
    isotropic = theory.isotropic_covariance(H, BUDGET)
    close(isotropic, isotropic[0, 0] * torch.eye(5, dtype=torch.float64))
    close(torch.trace(H @ isotropic), BUDGET)
    oracle = BUDGET / 5 * np.linalg.inv(H)
    close(
        theory.price_of_isotropy(H), brute_worst_case(H, isotropic) / brute_worst_case(H, oracle), rtol=1e-6, atol=1e-6
    )
    assert theory.price_of_isotropy(H) > 1


def test_isotropy_is_free_only_in_isotropic_geometry():
    close(theory.price_of_isotropy(3 * torch.eye(4)), 1.0)
    close(theory.price_of_isotropy(torch.diag(torch.tensor([1.0, 1e-9, 1e-9]))), 3.0, rtol=1e-6)


# 3.5 Metric isotropy


def test_whitening_by_the_symmetric_root():
    H, z = spd(4), torch.randn(7, 4, dtype=torch.float64)
    close(theory.whiten(z, H), z.numpy() @ scipy.linalg.sqrtm(H.numpy()))
    assert theory.whiten(z.bfloat16(), H).dtype == torch.bfloat16


def test_oracle_samples_are_isotropic_once_whitened_and_only_they():
    H = spd(3)
    z = theory.maximum_entropy_distribution(H, BUDGET).sample((100_000,))
    close(theory.whiten(z, H).T.cov(), BUDGET / 3 * torch.eye(3), atol=0.02)
    close(theory.metric_anisotropy(H, 0.7 * torch.linalg.inv(H)), 0.0)
    assert theory.metric_anisotropy(H, torch.eye(3)) > 0.1


def test_metric_anisotropy_by_its_definition():
    H, cov = spd(4, seed=1), spd(4, seed=2)
    root = scipy.linalg.sqrtm(H.numpy())
    m = root @ cov.numpy() @ root
    expected = np.linalg.norm(m - np.trace(m) / 4 * np.eye(4)) / np.linalg.norm(m)
    close(theory.metric_anisotropy(H, cov), expected)
    w = torch.randn(4)
    close(theory.metric_anisotropy(H, torch.outer(w, w)), math.sqrt(3 / 4), rtol=1e-6)


# 3.6 Quadratic lift


def test_lift_is_the_gibbs_law_by_quadrature():
    H = spd(2, seed=4, spread=0.3)
    beta = 2 / BUDGET
    axis = torch.linspace(-8, 8, 33, dtype=torch.float64)  # the trapezoid rule converges geometrically here
    z = torch.cartesian_prod(axis, axis, axis, axis)
    q, p = z[:, :2], z[:, 2:]
    weight = torch.exp(-beta * (0.5 * torch.einsum("ni,ij,nj->n", q, H, q) + 0.5 * p.square().sum(1)))
    cov = (z * weight[:, None]).T @ z / weight.sum()
    lift = theory.quadratic_lift(H, BUDGET)
    close(cov, torch.block_diag(*lift), atol=2e-5, rtol=1e-4)


def test_flow_is_the_matrix_exponential_and_the_harmonic_closed_form():
    H = spd(3)
    values, vectors = np.linalg.eigh(H.numpy())
    omega = np.sqrt(values)

    def of(f):
        return vectors * f @ vectors.T

    for t in (0.3, -2.0, 40.0):
        c, s = np.cos(omega * t), np.sin(omega * t)
        closed = np.block([[of(c), of(s / omega)], [of(-omega * s), of(c)]])
        close(theory.quadratic_flow(H, t), closed, rtol=1e-8, atol=1e-8)
    zero, eye = np.zeros((3, 3)), np.eye(3)
    close(theory.quadratic_flow(H, 0.9), scipy.linalg.expm(0.9 * np.block([[zero, eye], [-H.numpy(), zero]])))


def test_flow_is_symplectic_and_keeps_the_lift():
    H = spd(3)
    flow = theory.quadratic_flow(H, 1.7)
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    omega = torch.cat((torch.cat((zero, eye), 1), torch.cat((-eye, zero), 1)))
    close(flow.T @ omega @ flow, omega)
    cov = torch.block_diag(*theory.quadratic_lift(H, BUDGET))
    close(flow @ cov @ flow.T, cov)


def test_leapfrog_converges_to_the_flow():
    H = spd(3, spread=0.5)
    q, p = torch.randn(2, 5, 3, dtype=torch.float64)
    exact = torch.cat((q, p), 1) @ theory.quadratic_flow(H, 1.0).T
    hamiltonian = QuadraticHamiltonian(3, geometry=H)
    errors = [
        (torch.cat(leapfrog(hamiltonian, q, p, dt=1 / n, steps=n), 1) - exact).abs().max().item() for n in (64, 128)
    ]
    assert errors[1] < 1e-3
    assert 3.8 < errors[0] / errors[1] < 4.2


# 3.7 and 3.8 Fixed shapes


def test_every_covariance_is_the_oracle_of_some_geometry():
    cov = spd(4, seed=5)
    H = theory.geometry_of_covariance(cov, BUDGET)
    close(H, BUDGET / 4 * np.linalg.inv(cov))
    close(theory.minimax_covariance(H, BUDGET), cov)


@pytest.mark.parametrize("seed", range(3))
def test_regret_by_its_definition(seed):
    H, shape = spd(4, seed=seed), spd(4, seed=seed + 20)
    feasible = BUDGET * shape / torch.trace(H @ shape)
    expected = brute_worst_case(H, feasible) / brute_worst_case(H, BUDGET / 4 * np.linalg.inv(H))
    close(theory.regret(H, shape), expected, rtol=1e-6)
    assert 1 < theory.regret(H, shape) < 4
    close(theory.regret(H, shape), theory.regret(5 * H, 0.1 * shape))
    close(theory.regret(H, shape), theory.regret(shape, H))
    close(theory.regret(H, torch.linalg.inv(H)), 1.0)


def test_every_shape_has_geometries_with_regret_near_d():
    shape = spd(5, seed=6)
    regrets = []
    for epsilon in (1.0, 1e-1, 1e-3, 1e-6):
        H = theory.adversarial_geometry(shape, epsilon=epsilon)
        values = np.linalg.eigvals(H.numpy() @ shape.numpy()).real
        regrets.append(5 * values.max() / values.sum())
        close(regrets[-1], 5 / (1 + 4 * epsilon), rtol=1e-6)
        close(theory.regret(H, shape), regrets[-1], rtol=1e-6)
    assert regrets == sorted(regrets)
    assert 4.9999 < regrets[-1] < 5


# 3.9 Coupling


def test_conditional_law_is_the_regression_of_one_view_on_the_other():
    cov = spd(3, seed=7, spread=0.5)
    cross = 0.5 * cov @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q * 0.3
    joint = torch.cat((torch.cat((cov, cross.T), 1), torch.cat((cross, cov), 1)))
    z = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), joint).sample((200_000,))
    z_a, z_b = z[:, :3], z[:, 3:]
    fitted = torch.linalg.lstsq(z_a, z_b).solution.T
    law = theory.conditional_distribution(cov, cross)
    close(fitted, law.predictor, atol=0.02, rtol=0)
    close((z_b - z_a @ fitted.T).T.cov(), law.residual_cov, atol=0.03, rtol=0.02)
    # and, to rounding, the Schur complement that torch's inverse of the joint covariance holds
    close(law.residual_cov, torch.linalg.inv(torch.linalg.inv(joint)[3:, 3:]))


@pytest.mark.parametrize("rho", [-0.9, 0.0, 0.5])
def test_one_marginal_many_predictors(rho):
    cov = spd(3, seed=8)
    law = theory.conditional_distribution(cov, theory.scaled_coupling(cov, rho))
    close(law.predictor, rho * torch.eye(3, dtype=torch.float64))
    close(law.predictor @ cov @ law.predictor.T + law.residual_cov, cov)  # the marginal of z_b, whatever rho
    close(law.residual_cov, (1 - rho**2) * cov)


def test_impossible_couplings_are_refused():
    cov = spd(3)
    theory.conditional_distribution(cov, cov)  # identical views: no residual, but a law
    with pytest.raises(ValueError, match=r"cross must leave .* got 1\.2"):
        theory.conditional_distribution(cov, 1.2 * cov)
    one = torch.eye(2, dtype=torch.float64)  # a canonical correlation of 1 may be off by the rounding of float32
    theory.conditional_distribution(one, (1 + 0.9e-5) * one)
    with pytest.raises(ValueError, match=r"at most 1 was expected, got 1\.00001"):
        theory.conditional_distribution(one, (1 + 1.1e-5) * one)
    for rho in (1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="rho"):
            theory.scaled_coupling(cov, rho)


# C.3 Factorization


def random_symplectic(d, seed):
    generator = np.random.default_rng(seed).normal(size=(2 * d, 2 * d))
    omega = np.block([[np.zeros((d, d)), np.eye(d)], [-np.eye(d), np.zeros((d, d))]])
    return torch.from_numpy(scipy.linalg.expm(0.4 * omega @ (generator + generator.T) / 2)), torch.from_numpy(omega)


@pytest.mark.parametrize("seed", range(5))
def test_kick_drift_scaling_multiplies_back(seed):
    matrix, omega = random_symplectic(3, seed)
    drift, scaling, kick = theory.kick_drift_scaling(matrix)
    close(drift @ scaling @ kick, matrix, rtol=1e-8, atol=1e-8)
    for factor in (drift, scaling, kick):
        close(factor.T @ omega @ factor, omega)
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    assert torch.equal(drift[:3, :3], eye)
    assert torch.equal(drift[3:], torch.cat((zero, eye), 1))
    assert torch.equal(kick[:3], torch.cat((eye, zero), 1))
    assert torch.equal(kick[3:, 3:], eye)
    assert torch.equal(scaling[:3, 3:], zero)
    assert torch.equal(scaling[3:, :3], zero)
    q, p = torch.randn(2, 3, dtype=torch.float64)
    moved = matrix @ torch.cat((q, p))  # the kick leaves q alone, the drift p
    close(moved[3:], (scaling @ kick @ torch.cat((q, p)))[3:], rtol=1e-8, atol=1e-8)


def test_what_has_no_factorization_is_refused():
    with pytest.raises(ValueError, match="must be symplectic"):
        theory.kick_drift_scaling(2 * torch.eye(4))
    with pytest.raises(ValueError, match="D of matrix must be invertible"):
        theory.kick_drift_scaling(theory.quadratic_flow(torch.eye(2), math.pi / 2))  # a quarter turn: D = 0
    with pytest.raises(ValueError, match=r"\(\.\.\., 2d, 2d\)"):
        theory.kick_drift_scaling(torch.eye(3))


# A.13 to A.15 Bounds


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12))
def test_bounds_hold_for_every_spectrum(values):
    spectrum = np.array(values)
    k, tau, log_det = len(spectrum), spectrum.sum(), np.log(spectrum).mean()
    pr = min(max(spectrum.sum() ** 2 / (spectrum**2).sum(), 1.0), k)
    slack = 1 + 1e-9
    assert theory.min_eigenvalue_bound(log_det, tau, k) <= spectrum.min() * slack
    assert theory.min_eigenvalue_bound(log_det, tau, k, pr) <= spectrum.min() * slack
    assert theory.max_eigenvalue_bound(tau, pr) >= spectrum.max() / slack
    assert theory.condition_number_bound(log_det, tau, k, pr) >= spectrum.max() / spectrum.min() / slack


def test_bounds_as_printed():
    k, tau, log_det, pr = 5, 4.0, -0.7, 2.3
    close(theory.min_eigenvalue_bound(log_det, tau, k), math.exp(k * log_det) * (4 / tau) ** 4)
    least = math.exp(k * log_det) * (math.sqrt(pr) / tau) ** 4
    close(theory.min_eigenvalue_bound(log_det, tau, k, pr), least)
    close(theory.max_eigenvalue_bound(tau, pr), tau / math.sqrt(pr))
    close(theory.condition_number_bound(log_det, tau, k, pr), tau / math.sqrt(pr) / least)
    close(theory.min_eigenvalue_bound(log_det, tau, 1), math.exp(log_det))


def test_bounds_are_tight():
    k, small = 6, 1e-7
    spectrum = np.array([small] + [1.0] * (k - 1))  # A.13: equality up to the least eigenvalue's share of the trace
    bound = theory.min_eigenvalue_bound(np.log(spectrum).mean(), spectrum.sum(), k)
    close(bound, small, rtol=1e-6, atol=0)
    for k in (10, 1000, 100_000):  # A.14: one spike over a flat rest, PR = r = 4: λ_max approaches τ/√r = 1/2
        top = (1 + math.sqrt((k - 1) * (k / 4 - 1))) / k
        rest = (1 - top) / (k - 1)
        close(1 / (top**2 + (k - 1) * rest**2), 4.0)
        assert 0 <= theory.max_eigenvalue_bound(1.0, 4.0) - top < 1 / k**0.5
    assert theory.max_eigenvalue_bound(1.0, 1.0) == 1.0  # rank 1: equality
    # k = 2 and a flat spectrum: A.14 and A.15 leave a factor √2 and 2.
    close(theory.condition_number_bound(0.0, 2.0, 2, 2.0), 2.0)


def test_a13_is_sharper_than_a14_from_three_dimensions():
    for k in (3, 8, 128):
        for pr in (1.0, k / 2, float(k)):
            plain = theory.min_eigenvalue_bound(-1.5, 1.0 * k, k)
            assert theory.min_eigenvalue_bound(-1.5, 1.0 * k, k, pr) <= plain


# Fitted geometry


def test_fit_geometry_recovers_a_planted_geometry():
    H = spd(4, seed=9)
    H = H * 4 / torch.trace(H)
    z = theory.maximum_entropy_distribution(spd(4, seed=10), 4.0).sample((200,)) + 5.0
    u = torch.randn(10_000, 4, dtype=torch.float64)
    w = torch.from_numpy(scipy.linalg.sqrtm(H.numpy())) @ (u / u.norm(dim=1, keepdim=True)).T  # wᵀH⁻¹w = 1
    fitted = theory.fit_geometry(z, z @ w + 3.0, ridge=1e-6)
    close(torch.trace(fitted), 4.0)
    close(fitted, H, atol=0.05, rtol=0.03)
    report = theory.isotropy_report(z, z @ w, ridge=1e-6)
    close(report.geometry, fitted, rtol=1e-6)
    close(report.price, 4 * np.linalg.eigvalsh(H).max() / 4, rtol=0.03)
    cov = np.cov(z.numpy().T)
    close(report.regret, 4 * brute_worst_case(H, cov) / np.trace(H.numpy() @ cov), rtol=0.03)
    isotropic = np.trace(H.numpy() @ cov) / np.trace(H) * np.eye(4)
    close(report.worst_case_ratio, brute_worst_case(H, cov) / brute_worst_case(H, isotropic), rtol=0.05)


def labelled_plane(n=3000, seed=0):
    """Ten dimensions of unit noise; seven classes differ in the first two only."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(7, size=n)
    centres = np.zeros((7, 10))
    centres[:, :2] = 2 * np.stack((np.cos(np.arange(7)), np.sin(np.arange(7))), 1)
    return torch.from_numpy(rng.normal(size=(n, 10)) + centres[labels]), torch.from_numpy(labels)


@pytest.mark.parametrize("tasks", ["readouts", "class_means"])
def test_fitted_geometry_is_large_along_the_tasks(tasks):
    z, labels = labelled_plane()
    H = theory.fit_geometry(z, labels, tasks=tasks)
    assert H[:2, :2].trace() > 0.95 * H.trace()
    assert np.linalg.eigvalsh(H).min() >= 1e-3 / 1.001 - 1e-9
    report = theory.isotropy_report(z, labels, tasks=tasks)
    assert report.price > 4  # two task directions in ten: about 10/2
    assert report.regret >= 1
    close(theory.fit_geometry(z, 3 * labels - 50, tasks=tasks), H)  # names of classes do not matter


def test_readouts_are_ridge_regressions():
    z, labels = labelled_plane(500)
    y = torch.nn.functional.one_hot(labels).double()
    y = (y - y.mean(0)) / y.std(0, correction=0)
    x = z - z.mean(0)
    scale = 0.1 * x.square().mean()
    augmented = torch.cat((x, (len(x) * scale).sqrt() * torch.eye(10, dtype=torch.float64)))  # ridge as extra rows
    w = torch.linalg.lstsq(augmented, torch.cat((y, torch.zeros(10, 7, dtype=torch.float64)))).solution
    expected = (10 * w @ w.T / w.square().sum() + 0.1 * torch.eye(10, dtype=torch.float64)) / 1.1
    close(theory.fit_geometry(z, labels, ridge=0.1), expected)


def test_price_and_regret_of_features_with_fewer_rows_than_dimensions():
    z, labels = torch.randn(20, 64), torch.arange(20) % 4
    report = theory.isotropy_report(z, labels)
    assert report.price >= 1
    assert 1 <= report.regret <= 64
    assert all(value.isfinite().all() for value in report)


def test_fit_geometry_refuses_what_holds_no_tasks():
    z, labels = labelled_plane(50)
    with pytest.raises(ValueError, match="two classes"):
        theory.fit_geometry(z, torch.zeros(50, dtype=torch.long))
    with pytest.raises(ValueError, match="collapsed"):
        theory.fit_geometry(torch.ones(50, 3), labels)
    with pytest.raises(ValueError, match="correlated"):
        theory.fit_geometry(z, torch.ones(50, 2))
    with pytest.raises(ValueError, match=r"shape \(50,\), got \(49,\)"):
        theory.fit_geometry(z, labels[:49])
    with pytest.raises(ValueError, match="tasks must be one of"):
        theory.fit_geometry(z, labels, tasks="means")
    with pytest.raises(ValueError, match="ridge"):
        theory.fit_geometry(z, labels, ridge=0.0)
    with pytest.raises(TypeError, match=r"torch\.bool"):
        theory.fit_geometry(z, labels > 2)


# All of them


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


def test_labelled_arrays():
    z, labels = labelled_plane(50)
    close(theory.fit_geometry(z.numpy(), labels.numpy()), theory.fit_geometry(z, labels), rtol=0, atol=0)
    for features, names in ((z.tolist(), labels), (z, labels.tolist())):
        with pytest.raises(TypeError, match="must be a tensor or a numeric numpy array, got list"):
            theory.fit_geometry(features, names)


@pytest.mark.parametrize("bad", ["1", None, True, 1j, [1.0]])
def test_budgets_of_other_types_are_named(bad):
    with pytest.raises(TypeError, match="budget must be"):
        theory.minimax_covariance(torch.eye(2), bad)


def test_integer_matrices_are_refused():
    with pytest.raises(TypeError, match=r"H must be a floating-point tensor, got dtype torch\.int64"):
        theory.price_of_isotropy(torch.eye(2, dtype=torch.int64))

"""Every regularizer against its formula in numpy, and its gradient against finite differences."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from symplectic_jepa import (
    EnergyBudget,
    MeanPenalty,
    ParticipationRatioFloor,
    ProjectedLogDetFloor,
    SIGReg,
    SpectralFloors,
    TopEigenvalueCeiling,
    VarianceFloor,
)
from symplectic_jepa.regularizers import (
    log_det_per_dim,
    orthonormal_projection,
    participation_ratio,
    projected_covariance,
    top_eigenvalue,
    unit_directions,
)


def samples(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.1, 2.0, shape[-1], dtype=torch.float64) + 0.3


def orthonormal(dim, k, seed=1):
    return orthonormal_projection(dim, k, torch.Generator().manual_seed(seed), torch.float64)


def directions(dim, m, seed=1):
    return unit_directions(dim, m, torch.Generator().manual_seed(seed), torch.float64)


# Oracles: numpy, one sample set (N, D) at a time, formulas as printed.


def budget(x, target=1.0):
    return (np.mean(x**2) - target) ** 2


def variance(x, floor=0.2, eps=1e-4):
    std = np.sqrt(((x - x.mean(0)) ** 2).mean(0) + eps)
    return np.mean(np.maximum(floor - std, 0) ** 2)


def mean(x):
    return np.mean(x.mean(0) ** 2)


def covariance(x, r, eps=1e-4):
    return np.cov(x @ r, rowvar=False, ddof=1).reshape(r.shape[1], r.shape[1]) + eps * np.eye(r.shape[1])


def spectral(x, r, *, log_det=None, participation=None, top_share=None):
    eigenvalues = np.linalg.eigvalsh(covariance(x, r))
    total = 0.0
    if log_det is not None:
        total += max(log_det - np.log(eigenvalues).mean(), 0) ** 2
    if participation is not None:
        ratio = eigenvalues.sum() ** 2 / (eigenvalues**2).sum() / len(eigenvalues)
        total += max(participation - ratio, 0) ** 2
    if top_share is not None:
        total += max(eigenvalues[-1] / eigenvalues.sum() - top_share, 0) ** 2
    return total


def sigreg(x, a, knots, t_max):
    """Direct quadrature: every cosine evaluated, scipy's trapezoid over both halves of the axis."""
    t = np.linspace(-t_max, t_max, 2 * knots - 1)
    angle = t[:, None, None] * (x @ a)[None]
    difference = np.exp(1j * angle).mean(1) - np.exp(-(t**2) / 2)[:, None]
    integrand = np.abs(difference) ** 2 * np.exp(-(t**2) / 2)[:, None]
    return len(x) * integrate.trapezoid(integrand, t, axis=0).mean()


R, A = orthonormal(6, 4), directions(6, 5)
CASES = {
    "budget": (EnergyBudget(0.5), lambda x: budget(x, 0.5)),
    "variance": (VarianceFloor(0.9), lambda x: variance(x, 0.9)),
    "mean": (MeanPenalty(), mean),
    "log_det": (lambda x: ProjectedLogDetFloor(1.0)(x, projection=R), lambda x: spectral(x, R.numpy(), log_det=1.0)),
    "participation": (
        lambda x: ParticipationRatioFloor(0.99)(x, projection=R),
        lambda x: spectral(x, R.numpy(), participation=0.99),
    ),
    "top": (lambda x: TopEigenvalueCeiling(0.1)(x, projection=R), lambda x: spectral(x, R.numpy(), top_share=0.1)),
    "floors": (
        lambda x: SpectralFloors(log_det=1.0, participation=0.99, top_share=0.1)(x, projection=R),
        lambda x: spectral(x, R.numpy(), log_det=1.0, participation=0.99, top_share=0.1),
    ),
    "sigreg": (lambda x: SIGReg(knots=9, t_max=3.0)(x, directions=A), lambda x: sigreg(x, A.numpy(), 9, 3.0)),
}
every = pytest.mark.parametrize("name", CASES)


@every
def test_value_equals_the_formula(name):
    ours, oracle = CASES[name]
    x = samples(20, 6)
    assert oracle(x.numpy()) > 0
    assert ours(x).item() == pytest.approx(oracle(x.numpy()), rel=1e-6)


@every
@given(leading=st.lists(st.integers(1, 3), min_size=0, max_size=2), n=st.integers(6, 30), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_leading_dimensions_are_averaged(name, leading, n, seed):
    ours, oracle = CASES[name]
    x = samples(*leading, n, 6, seed=seed)
    expected = np.mean([oracle(part) for part in x.reshape(-1, n, 6).numpy()])
    assert ours(x).shape == ()
    assert ours(x).item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


@every
def test_gradient_equals_finite_differences(name):
    ours, _ = CASES[name]
    assert torch.autograd.gradcheck(ours, (samples(8, 6).requires_grad_(),), atol=1e-6, rtol=1e-5)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_are_float32_also_under_autocast(name, dtype):
    ours, _ = CASES[name]
    x = samples(64, 6).to(dtype)
    expected = ours(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ours(x)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_met_targets_cost_nothing():
    x = torch.randn(4000, 6, dtype=torch.float64)
    assert EnergyBudget()(x / x.square().mean().sqrt()) < 1e-20
    assert VarianceFloor(0.2)(x) == 0
    assert MeanPenalty()(x - x.mean(0)) < 1e-20
    assert SpectralFloors(log_det=-1.5, participation=0.12, top_share=0.35)(x) == 0


@pytest.mark.parametrize("shape", [(20, 6), (5, 12), (3, 7, 30)])
def test_full_participation_floor_equals_that_of_the_eigenvalues(shape):
    x = samples(*shape)
    n, d = shape[-2:]
    expected = []
    for part in x.reshape(-1, n, d).numpy():
        eigenvalues = np.linalg.eigvalsh(np.cov(part, rowvar=False))
        expected.append(max(0.9 - eigenvalues.sum() ** 2 / (eigenvalues**2).sum() / min(d, n - 1), 0) ** 2)
    floor = ParticipationRatioFloor(0.9, proj_dim=None)
    assert floor(x).item() == pytest.approx(np.mean(expected), rel=1e-9)
    assert torch.autograd.gradcheck(floor, (x.requires_grad_(),), atol=1e-6, rtol=1e-5)
    assert floor(1000 * x).item() == pytest.approx(np.mean(expected), rel=1e-9)
    with pytest.raises(ValueError, match="projection must be None"):
        floor(x, projection=orthonormal(d, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_top_eigenvalue_has_no_scale_and_takes_batches(scale, dtype):
    x = torch.randn(3, 40, 9, dtype=torch.float64)
    cov = x.mT @ x / 40
    cov[1] = torch.eye(9, dtype=torch.float64)  # nine-fold
    cov[2, 5:], cov[2, :, 5:] = 0, 0  # singular
    got = top_eigenvalue((scale * cov).to(dtype)).double() / scale
    torch.testing.assert_close(got, torch.linalg.eigvalsh(cov)[:, -1], rtol=1e-5, atol=0)
    assert top_eigenvalue(torch.full((1, 1), scale, dtype=dtype)).item() == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("gap", [0.5, 1e-2, 1e-4, 1e-6, 0.0])
def test_top_eigenvalue_needs_no_gap(gap):
    """Against eigvalsh, also when the two largest eigenvalues nearly coincide."""
    eigenvalues = torch.linspace(0.01, 1 - 0.5, 128, dtype=torch.float64)
    eigenvalues[-2:] = torch.tensor([1 - gap, 1.0])
    basis = orthonormal(128, 128)
    cov = (basis * eigenvalues) @ basis.T
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        assert top_eigenvalue(cov.to(dtype)).item() == pytest.approx(1.0, rel=tolerance)
    cov.requires_grad_()
    (grad,) = torch.autograd.grad(top_eigenvalue(cov), cov)
    # The gradient is the projector on the top eigenvector, or a mixture of those that are as good as top.
    assert torch.trace(grad).item() == pytest.approx(1.0, rel=1e-5)
    assert (grad * cov).sum().item() == pytest.approx(1.0, rel=1e-5)
    if gap >= 1e-2:
        torch.testing.assert_close(grad, torch.outer(basis[:, -1], basis[:, -1]), atol=1e-4, rtol=0)


def test_one_covariance_serves_all_three_hinges(monkeypatch):
    from symplectic_jepa.regularizers import spectral_floors
    from symplectic_jepa.regularizers.covariance import moments

    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return moments(*args, **kwargs)

    monkeypatch.setattr(spectral_floors, "moments", counted)
    SpectralFloors(log_det=0.0, participation=0.5, top_share=0.1)(samples(20, 6))
    assert len(calls) == 1


def test_statistics_are_measured_without_a_graph():
    x = samples(50, 6).requires_grad_()
    floors = SpectralFloors(log_det=-1.5, participation=0.1, top_share=0.3)
    value, statistics = floors.measure(x, projection=R)
    eigenvalues = np.linalg.eigvalsh(covariance(x.detach().numpy(), R.numpy()))
    expected = {
        "log_det": np.log(eigenvalues).mean(),
        "participation": eigenvalues.sum() ** 2 / (eigenvalues**2).sum() / 4,
        "top_share": eigenvalues[-1] / eigenvalues.sum(),
    }
    assert {k: v.item() for k, v in statistics.items()} == pytest.approx(expected)
    assert not any(v.requires_grad for v in statistics.values())
    assert value.requires_grad
    assert torch.equal(value, floors(x, projection=R))


# The lemmas of appendix A on the regularizers and statistics that the training uses.


def gaussian_with(eigenvalues, n=4000):
    """Samples whose covariance has exactly these eigenvalues, on the axes."""
    d = len(eigenvalues)
    x = samples(n, d)
    x = x - x.mean(0)
    white = torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1)))
    return x @ white.T * torch.as_tensor(eigenvalues, dtype=torch.float64).sqrt()


def test_a9_a_budget_alone_allows_rank_one():
    x = gaussian_with([6.0, 1e-30, 1e-30, 1e-30, 1e-30, 1e-30])
    assert EnergyBudget(1.0)(x) < 1e-6
    assert torch.linalg.matrix_rank(x, rtol=1e-9) == 1
    assert SpectralFloors(log_det=-1.5)(x, projection=orthonormal(6, 4)) > 1
    assert ParticipationRatioFloor(0.5, proj_dim=None)(x) > 0.05


def test_a10_log_det_alone_allows_one_spike():
    k, level = 6, -1.5
    for spike in (1e2, 1e4, 1e6):
        rest = np.exp((k * level - np.log(spike)) / (k - 1))
        eigenvalues = torch.tensor([spike] + [rest] * (k - 1), dtype=torch.float64)
        cov = torch.diag(eigenvalues)
        assert log_det_per_dim(cov).item() == pytest.approx(level)
        ratio = participation_ratio(cov).item()
        assert ratio < 1 + 3 * k * rest / spike
    assert ratio == pytest.approx(1, abs=1e-5)
    floors = SpectralFloors(log_det=level, participation=0.5, top_share=0.3)
    assert SpectralFloors(log_det=level).penalty(cov).value < 1e-20
    assert floors.penalty(cov).value > 0.1


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a11_participation_is_scale_free(scale, seed):
    cov = projected_covariance(samples(30, 6, seed=seed), R, eps=0.0)
    assert participation_ratio(scale * cov).item() == pytest.approx(participation_ratio(cov).item(), rel=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a12_rank_loss_leaves_exactly_k_minus_r_eigenvalues_at_eps(rank):
    k, eps = 4, 1e-4
    x = samples(50, rank) @ samples(rank, 6, seed=5)
    eigenvalues = torch.linalg.eigvalsh(projected_covariance(x, R, eps=eps))
    assert (eigenvalues - eps).abs().lt(1e-12).sum() == k - rank
    log_det = eigenvalues.log().mean()
    assert log_det_per_dim(projected_covariance(x, R, eps=eps)).item() == pytest.approx(log_det.item())
    nonzero = torch.linalg.eigvalsh(projected_covariance(x, R, eps=0.0))[k - rank :]
    assert log_det.item() == pytest.approx(((nonzero + eps).log().sum().item() + (k - rank) * np.log(eps)) / k)


@given(seed=st.integers(0, 10_000), k=st.integers(2, 8), spread=st.floats(0.1, 5.0))
@settings(max_examples=100, deadline=None)
def test_a13_to_a15_eigenvalue_bounds(seed, k, spread):
    """For random covariances, with the tightest τ, ℓ and r that they satisfy."""
    generator = torch.Generator().manual_seed(seed)
    eigenvalues = (spread * torch.randn(k, generator=generator, dtype=torch.float64)).exp()
    basis = torch.linalg.qr(torch.randn(k, k, generator=generator, dtype=torch.float64)).Q
    cov = (basis * eigenvalues) @ basis.T
    cov = 0.5 * (cov + cov.T)
    tau, low, high = eigenvalues.sum(), eigenvalues.min(), eigenvalues.max()
    level, r = eigenvalues.log().mean(), eigenvalues.sum() ** 2 / eigenvalues.square().sum()
    # the library's statistics are those of the eigenvalues
    assert participation_ratio(cov).item() == pytest.approx(r.item(), rel=1e-8)
    if high / low < 1e10:
        assert log_det_per_dim(cov).item() == pytest.approx(level.item(), rel=1e-6, abs=1e-6)
    slack = 1 + 1e-9
    assert low * slack >= (k * level).exp() * ((k - 1) / tau) ** (k - 1)  # A.13
    assert high <= tau / r.sqrt() * slack  # A.14
    assert low * slack >= (k * level).exp() * (r.sqrt() / tau) ** (k - 1)  # A.14
    assert high / low <= (tau / r.sqrt()) ** k * (-k * level).exp() * slack  # A.15, their quotient


def test_a_point_collapse_in_float32_gives_finite_gradients():
    for x in (torch.zeros(64, 32), torch.ones(64, 32), 100 * torch.randn(64, 1) @ torch.randn(1, 32)):
        x.requires_grad_()
        floors = SpectralFloors(log_det=-1.5, participation=0.12, top_share=0.35, proj_dim=16)
        loss = floors(x) + VarianceFloor()(x) + EnergyBudget()(x) + ParticipationRatioFloor(0.5, proj_dim=None)(x)
        (grad,) = torch.autograd.grad(loss, x)
        assert torch.isfinite(loss)
        assert torch.isfinite(grad).all()


# SIGReg


@pytest.mark.parametrize(("knots", "t_max"), [(2, 1.0), (9, 3.0), (17, 3.0), (33, 5.0)])
def test_sigreg_equals_scipy_quadrature(knots, t_max):
    x, a = samples(40, 6), directions(6, 8)
    got = SIGReg(knots=knots, t_max=t_max)(x, directions=a)
    assert got.item() == pytest.approx(sigreg(x.numpy(), a.numpy(), knots, t_max), rel=1e-12)
    single = SIGReg(knots=knots, t_max=t_max)(x.float(), directions=a.float())
    assert single.item() == pytest.approx(got.item(), rel=1e-4)


def test_sigreg_converges_to_the_integral_of_epps_and_pulley():
    """N ∫ |ψ − φ|² φ dt over the whole line, by scipy's adaptive quadrature."""
    y = samples(30, 1)

    def integrand(t):
        return np.abs(np.exp(1j * t * y.numpy()).mean() - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    expected = 30 * integrate.quad(integrand, -np.inf, np.inf)[0]
    got = SIGReg(knots=200, t_max=8.0)(y, directions=torch.ones(1, 1, dtype=torch.float64))
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_sigreg_tells_a_gaussian_from_other_laws():
    x = torch.randn(4096, 8)
    for other in (0.5 * x, x + 1, x.sign(), x.exp()):
        assert SIGReg(slices=64)(other) > 10 * SIGReg(slices=64)(x)


def test_sigreg_gradient_fades_at_collapse_and_a_variance_floor_does_not():
    norms = []
    for std in (0.1, 0.003):
        x = (std * torch.randn(256, 16)).requires_grad_()
        sigreg_grad = torch.autograd.grad(SIGReg(slices=64)(x), x)[0].norm()
        floor_grad = torch.autograd.grad(VarianceFloor(0.2, eps=1e-8)(x), x)[0].norm()
        norms.append((sigreg_grad.item(), floor_grad.item()))
    assert norms[1][0] < 0.1 * norms[0][0]
    assert norms[1][1] > norms[0][1]


# Draws


def test_projections_are_orthonormal_and_directions_unit():
    r = orthonormal(20, 7)
    torch.testing.assert_close(r.T @ r, torch.eye(7, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(directions(20, 7).norm(dim=0), torch.ones(7, dtype=torch.float64))


def draws_of(module, x, steps):
    seen = []
    hook = module.schedule.register_forward_hook(lambda _, __, matrix: seen.append(matrix.clone()))
    for _ in range(steps):
        module(x)
    hook.remove()
    return seen


def test_projection_is_redrawn_every_so_many_steps_and_directions_every_step():
    x = samples(30, 6)
    r = draws_of(ProjectedLogDetFloor(refresh_every=3), x, 7)
    same = [torch.equal(a, b) for a, b in itertools.pairwise(r)]
    assert same == [True, True, False, True, True, False]
    a = draws_of(SIGReg(slices=4), x, 3)
    assert not torch.equal(a[0], a[1])
    assert not torch.equal(a[1], a[2])


@pytest.mark.parametrize(
    "make", [lambda s: SIGReg(slices=4, seed=s), lambda s: ProjectedLogDetFloor(refresh_every=2, seed=s)]
)
def test_draws_follow_the_seed_alone_and_go_on_after_a_resume(make):
    x = samples(30, 6)
    torch.manual_seed(1)
    first = draws_of(make(7), x, 6)
    state = torch.random.get_rng_state()
    resumed = make(7)
    part = make(7)
    draws_of(part, x, 3)
    resumed.load_state_dict(part.state_dict())
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(draws_of(make(7), x, 6), first, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(draws_of(resumed, x, 3), first[3:], strict=True))
    assert not torch.equal(draws_of(make(8), x, 1)[0], first[0])
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_eval_mode_does_not_consume_draws():
    x, sigreg_ = samples(30, 6), SIGReg(slices=4)
    sigreg_.eval()
    first, second = draws_of(sigreg_, x, 2)
    assert torch.equal(first, second)
    sigreg_.train()
    assert torch.equal(draws_of(sigreg_, x, 1)[0], first)


def test_a_redraw_does_not_spoil_a_pending_backward_pass():
    floor, x = ProjectedLogDetFloor(1.0, refresh_every=1), samples(30, 6).requires_grad_()
    (floor(x) + floor(x) + floor(x)).backward()
    assert torch.isfinite(x.grad).all()


def orthonormal_of(floor, dim):
    """The projection that the floor's next call will use."""
    floor.eval()
    return floor.schedule(dim, min(floor.proj_dim, dim), dtype=torch.float64, device=torch.device("cpu")).numpy()


def test_k_is_limited_by_dimension_and_batch():
    for n, d, k in ((30, 6, 6), (4, 6, 3), (30, 200, 29), (30, 20, 10)):
        floor, x = ProjectedLogDetFloor(5.0, proj_dim=10), samples(n, d)
        limit = min(10, k)
        expected = spectral(x.numpy(), orthonormal_of(floor, d)[:, :limit], log_det=5.0)
        assert floor(x).item() == pytest.approx(expected, rel=1e-9)


def test_bad_arguments_are_named():
    x = samples(10, 6)
    for call, error, message in (
        (lambda: EnergyBudget(0), ValueError, "target must be a finite number > 0, got 0"),
        (lambda: VarianceFloor(-1), ValueError, "floor must be a finite number > 0, got -1"),
        (SpectralFloors, ValueError, "at least one of log_det"),
        (lambda: ParticipationRatioFloor(1.5), ValueError, "floor must lie between 0 and 1, got 1.5"),
        (lambda: TopEigenvalueCeiling(-1), ValueError, "ceiling must lie between 0 and 1, got -1"),
        (lambda: ProjectedLogDetFloor(refresh_every=0), ValueError, "refresh_every must be an int >= 1, got 0"),
        (lambda: ProjectedLogDetFloor(proj_dim=0), ValueError, "proj_dim must be an int >= 1, got 0"),
        (lambda: ProjectedLogDetFloor(seed=-1), ValueError, "seed must be an int >= 0, got -1"),
        (lambda: SIGReg(knots=1), ValueError, "knots must be an int >= 2, got 1"),
        (lambda: SIGReg(t_max=0), ValueError, "t_max must be a finite number > 0, got 0"),
        (lambda: EnergyBudget()(x[0]), ValueError, r"x must have shape \(..., N >= 1, D >= 1\), got \(6,\)"),
        (lambda: ProjectedLogDetFloor()(x[:1]), ValueError, r"N >= 2, D >= 1\), got \(1, 6\)"),
        (lambda: MeanPenalty()(x.long()), TypeError, "floating-point tensor, got dtype torch.int64"),
        (lambda: SIGReg()(x, directions=A.T), ValueError, r"directions must have shape \(6, M\), got \(5, 6\)"),
        (lambda: ProjectedLogDetFloor()(x, projection=R.T), ValueError, r"shape \(6, k\), got \(4, 6\)"),
    ):
        with pytest.raises(error, match=message):
            call()

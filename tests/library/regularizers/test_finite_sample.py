"""The bias of a finite sample: its formulas against Monte Carlo, the correction of the floors, and the warning."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import special

from symplectic_jepa import ParticipationRatioFloor, ProjectedLogDetFloor, SpectralFloors, TopEigenvalueCeiling
from symplectic_jepa.regularizers import (
    log_det_per_dim,
    participation_ratio,
    projected_covariance,
    top_eigenvalue,
)
from symplectic_jepa.regularizers.finite_sample import log_det_bias, unbiased_squares
from tests.helpers.samples import orthonormal, samples

K, D = 5, 8
EIGENVALUES = torch.linspace(0.3, 3.0, D, dtype=torch.float64)
R = orthonormal(D, K)
SIGMA = R.T @ torch.diag(EIGENVALUES) @ R  # covariance of the projected distribution
DRAWS, ERRORS = 40_000, 5  # Monte Carlo samples; standard errors that the mean may be off
HINGES = {"log_det": 9.0, "participation": 1.0}


def draws(n):
    """``DRAWS`` samples of ``n`` Gaussian rows with covariance ``diag(EIGENVALUES)`` and a mean."""
    generator = torch.Generator().manual_seed(n)
    return torch.randn(DRAWS, n, D, generator=generator, dtype=torch.float64) * EIGENVALUES.sqrt() + 0.5


def scalar(value):
    return torch.tensor(float(value), dtype=torch.float64)


def off_by(values, expected):
    """Difference of mean and expectation in standard errors."""
    return ((values.mean() - expected) / values.std() * len(values) ** 0.5).abs().item()


@pytest.mark.parametrize("n", [6, 7, 12, 60])
def test_bias_of_the_log_determinant(n):
    """Exactly, by scipy's digamma, and on average over samples."""
    expected = np.mean([special.digamma((n - 1 - i + 1) / 2) for i in range(1, K + 1)]) - np.log((n - 1) / 2)
    assert log_det_bias(scalar(n - 1), K, K).item() == pytest.approx(expected, rel=1e-12)
    assert log_det_bias(scalar(n - 1), scalar(K), K + 9).item() == pytest.approx(expected, rel=1e-12)
    measured = log_det_per_dim(projected_covariance(draws(n), R, eps=0.0))
    assert off_by(measured, log_det_per_dim(SIGMA) + expected) < ERRORS
    assert off_by(measured, log_det_per_dim(SIGMA)) > 2 * ERRORS  # so the samples do tell the bias


def test_a_singular_covariance_has_no_bias():
    assert log_det_bias(scalar(4), 5, 5).isnan()
    assert log_det_bias(scalar(5), 5, 5).isfinite()


@pytest.mark.parametrize("n", [3, 4, 7, 30])
def test_unbiased_squares(n):
    """The two equations hold exactly, and the estimates on average."""
    cov = projected_covariance(draws(n), R, eps=0.0)
    trace, square = cov.diagonal(dim1=-2, dim2=-1).sum(-1), cov.square().sum((-2, -1))
    first, second = unbiased_squares(trace, square, n - 1)
    torch.testing.assert_close(first + 2 / (n - 1) * second, trace.square())
    torch.testing.assert_close((1 + 1 / (n - 1)) * second + first / (n - 1), square)
    assert off_by(first, SIGMA.trace().square()) < ERRORS
    assert off_by(second, SIGMA.square().sum()) < ERRORS
    assert off_by(square, SIGMA.square().sum()) > 2 * ERRORS
    assert (second > -1e-9 * square).all()


@pytest.mark.parametrize("n", [6, 12, 60])
def test_corrected_statistics_are_those_of_the_distribution(n):
    floor = SpectralFloors(**HINGES, eps=1e-9, bias_correction=True)
    measured = floor.measure(draws(n), projection=R)[1]
    spread = log_det_per_dim(projected_covariance(draws(n), R)).std() / DRAWS**0.5
    assert abs(measured["log_det"] - log_det_per_dim(SIGMA)) < ERRORS * spread
    if n > 6:  # a ratio of unbiased estimates is nearly unbiased, where they vary little
        uncorrected = SpectralFloors(**HINGES, eps=1e-9).measure(draws(n), projection=R)[1]["participation"]
        expected = participation_ratio(SIGMA) / K
        assert abs(measured["participation"] - expected) < 0.3 * abs(uncorrected - expected)


def test_corrected_levels_mean_the_same_at_every_batch_size():
    """Of a unit Gaussian, also where ``k`` is limited by the batch; the ridge matters where ``N ≈ k``."""
    for n in (24, 32, 33, 48, 64, 256):
        x = torch.randn(200, n, 64, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        measured = SpectralFloors(**HINGES, proj_dim=32, eps=1e-6, bias_correction=True).measure(x)[1]
        assert measured["log_det"].item() == pytest.approx(0.0, abs=0.02)
        assert measured["participation"].item() == pytest.approx(1.0, abs=0.02)
        full = ParticipationRatioFloor(1.0, proj_dim=None, bias_correction=True).measure(x)[1]
        assert full["participation"].item() == pytest.approx(1.0, abs=0.02)
        if n < 64:
            biased = SpectralFloors(**HINGES, proj_dim=32, eps=1e-6).measure(x)[1]
            assert biased["log_det"] < -0.3
            assert biased["participation"] < 0.7


def test_the_ridge_is_part_of_the_ratio():
    """With many samples, ``PR(Σ + εI)``, and of a single point 1, not 0/0."""
    floor = ParticipationRatioFloor(0.9, eps=0.5, bias_correction=True)
    ridged = participation_ratio(SIGMA + 0.5 * torch.eye(K, dtype=torch.float64)) / K
    measured = floor.measure(draws(4)[:, 0], projection=R)[1]["participation"]
    assert measured.item() == pytest.approx(ridged.item(), rel=1e-2)
    point = torch.ones(9, D, dtype=torch.float64)
    assert floor.measure(point, projection=R)[1]["participation"].item() == pytest.approx(1.0)
    assert ParticipationRatioFloor(0.9, proj_dim=None, bias_correction=True)(point).item() == pytest.approx(0.81)


@pytest.mark.parametrize(
    "floor",
    [
        lambda: ProjectedLogDetFloor(3.0, bias_correction=True),
        lambda: ParticipationRatioFloor(1.0, bias_correction=True),
        lambda: ParticipationRatioFloor(1.0, proj_dim=None, bias_correction=True),
        lambda: SpectralFloors(log_det=3.0, participation=1.0, top_share=0.0, bias_correction=True),
    ],
)
@pytest.mark.parametrize("n", [6, 12])  # fewer samples than dimensions, and more
def test_gradients_of_corrected_floors(floor, n):
    module = floor().eval()
    assert torch.autograd.gradcheck(module, (samples(n, D).requires_grad_(),), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_correction_every_bit_is_the_batch_s_own(dtype):
    x = samples(12, D).to(dtype)
    floor = SpectralFloors(log_det=3.0, participation=1.0, top_share=0.0)
    cov = projected_covariance(x, R.to(dtype))
    expected = {
        "log_det": log_det_per_dim(cov),
        "participation": participation_ratio(cov) / K,
        "top_share": top_eigenvalue(cov) / cov.diagonal().sum(),
    }
    value, measured = floor.measure(x, projection=R.to(dtype))
    assert all(torch.equal(measured[key], expected[key]) for key in expected)
    differences = torch.stack((3.0 - expected["log_det"], 1.0 - expected["participation"], expected["top_share"]))
    assert torch.equal(value, differences.square().sum().to(dtype))


@pytest.mark.parametrize("module", [SpectralFloors(log_det=1.0), ProjectedLogDetFloor(), ParticipationRatioFloor()])
def test_the_setting_is_saved(module, tmp_path):
    assert module.config()["bias_correction"] is False
    corrected = type(module)(**{**module.config(), "bias_correction": True})
    corrected.save_pretrained(tmp_path)
    loaded = type(module).from_pretrained(tmp_path)
    assert loaded.bias_correction is True
    assert loaded.config() == corrected.config()


def test_what_cannot_be_corrected_is_refused():
    x = samples(10, D)
    for call, message in (
        (lambda: SpectralFloors(top_share=0.1, bias_correction=True), "bias_correction must be False for a ceiling"),
        (lambda: TopEigenvalueCeiling(bias_correction=True), "bias_correction must be False for a ceiling"),
        (lambda: ProjectedLogDetFloor(bias_correction="no"), "bias_correction must be True or False, got 'no'"),
        (lambda: ProjectedLogDetFloor(bias_correction=True)(x[:2]), "N >= 3"),
        (lambda: ParticipationRatioFloor(proj_dim=None, bias_correction=True)(x[:2]), "N >= 3"),
        (lambda: ProjectedLogDetFloor(bias_correction=True)(x[:5], projection=R), "x must have N > 5 samples"),
        (lambda: ProjectedLogDetFloor(bias_correction=True).penalty(SIGMA), "degrees must be N - 1 with bias_corr"),
        (lambda: ProjectedLogDetFloor().penalty(SIGMA, degrees=scalar(9)), "degrees must be N - 1 with bias_corr"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


MESSAGE = r"spectral floors of a small batch are biased: \w+ got N = 15 samples for k = 8 dimensions, N < 2k"


@pytest.mark.parametrize("make", [ProjectedLogDetFloor, ParticipationRatioFloor, TopEigenvalueCeiling])
def test_each_module_warns_once_of_a_small_batch(make):
    for module in (make(), make()):
        with pytest.warns(UserWarning, match=MESSAGE):
            module(samples(15, D))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            module(samples(15, D))


def test_the_full_covariance_warns_too():
    with pytest.warns(UserWarning, match=MESSAGE):
        ParticipationRatioFloor(proj_dim=None)(samples(15, D))


def test_a_corrected_ceiling_warns():
    with pytest.warns(UserWarning, match=MESSAGE):
        SpectralFloors(log_det=1.0, top_share=0.5, bias_correction=True)(samples(15, D))


@pytest.mark.filterwarnings("error")
def test_large_corrected_and_compiled_floors_do_not_warn():
    ProjectedLogDetFloor()(samples(16, D))
    ProjectedLogDetFloor(proj_dim=4)(samples(8, D))
    ProjectedLogDetFloor(bias_correction=True)(samples(15, D))
    ProjectedLogDetFloor().reduction(samples(4, D), SimpleNamespace(shared=True, size=4))  # 16 over all ranks


def test_a_compiled_floor_stays_one_graph():
    module, x = ProjectedLogDetFloor(3.0), samples(15, D)
    torch._dynamo.reset()
    compiled = torch.compile(module.eval(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))

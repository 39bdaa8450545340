"""The hinges on the spectrum, the statistics that they read, and the lemmas that say why there are several."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from symplectic_jepa import (
    EnergyBudget,
    MeanPenalty,
    ParticipationRatioFloor,
    ProjectedLogDetFloor,
    SpectralFloors,
    VarianceFloor,
)
from symplectic_jepa.regularizers import log_det_per_dim, participation_ratio, projected_covariance, top_eigenvalue
from tests.helpers.oracles import covariance, participation, spectral
from tests.helpers.samples import orthonormal, samples

R = orthonormal(6, 4)


def test_met_targets_cost_nothing():
    x = torch.randn(4000, 6, dtype=torch.float64)
    assert EnergyBudget()(x / x.square().mean().sqrt()) < 1e-20
    assert VarianceFloor(0.2)(x) == 0
    assert MeanPenalty()(x - x.mean(0)) < 1e-20
    assert SpectralFloors(log_det=-1.5, participation=0.12, top_share=0.35)(x) == 0


def test_full_participation_has_no_scale_and_takes_no_projection():
    floor, x = ParticipationRatioFloor(0.9, proj_dim=None), samples(20, 6)
    assert floor(1000 * x).item() == pytest.approx(participation(x.numpy(), 0.9), rel=1e-9)
    with pytest.raises(ValueError, match="projection must be None"):
        floor(x, projection=R)


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


def orthonormal_of(floor, dim):
    """The projection that the floor's next call will use."""
    floor.eval()
    return floor.schedule(dim, min(floor.proj_dim, dim), dtype=torch.float64, device=torch.device("cpu")).numpy()


def test_k_is_limited_by_dimension_and_batch():
    for n, d, k in ((30, 6, 6), (7, 6, 6), (6, 6, 5), (4, 6, 3), (10, 20, 9), (30, 200, 29), (30, 20, 10)):
        floor, x = ProjectedLogDetFloor(5.0, proj_dim=10), samples(n, d)
        limit = min(10, k)
        expected = spectral(x.numpy(), orthonormal_of(floor, d)[:, :limit], log_det=5.0)
        assert floor(x).item() == pytest.approx(expected, rel=1e-9)


# The lemmas of appendix A


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

"""Geometries fitted to tasks against planted ones and against regression."""

import numpy as np
import pytest
import scipy.linalg
import torch

from symplectic_jepa import theory
from tests.helpers.oracles import brute_worst_case, close
from tests.helpers.samples import spd


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


def test_fit_geometry_takes_arrays_and_refuses_what_holds_no_tasks():
    z, labels = labelled_plane(50)
    close(theory.fit_geometry(z.numpy(), labels.numpy()), theory.fit_geometry(z, labels), rtol=0, atol=0)
    for features, names, options, error, message in (
        (z, torch.zeros(50, dtype=torch.long), {}, ValueError, "two classes"),
        (torch.ones(50, 3), labels, {}, ValueError, "collapsed"),
        (z, torch.ones(50, 2), {}, ValueError, "correlated"),
        (z, torch.ones(50, 0), {}, ValueError, r"shape \(50, T >= 1\), got \(50, 0\)"),
        (z, labels[:49], {}, ValueError, r"shape \(50,\), got \(49,\)"),
        (z, labels, {"tasks": "means"}, ValueError, "tasks must be one of"),
        (z, labels, {"ridge": 0.0}, ValueError, "ridge"),
        (z, labels > 2, {}, TypeError, r"torch\.bool"),
        (z.tolist(), labels, {}, TypeError, "must be a tensor or a numeric numpy array, got list"),
        (z, labels.tolist(), {}, TypeError, "must be a tensor or a numeric numpy array, got list"),
    ):
        with pytest.raises(error, match=message):
            theory.fit_geometry(features, names, **options)

"""The price of isotropy, metric isotropy and regret against their definitions."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from symplectic_jepa import theory
from tests.helpers.oracles import brute_worst_case, close
from tests.helpers.samples import spd

BUDGET = 2.5


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


# 3.7 and 3.8 Fixed shapes


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

"""Worst tasks, minimax covariances and maximum entropy against search over tasks, covariances and laws."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from symplectic_jepa import theory
from tests.helpers.oracles import brute_worst_case, close
from tests.helpers.samples import spd

BUDGET = 2.5


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


def test_every_covariance_is_the_oracle_of_some_geometry():
    cov = spd(4, seed=5)
    H = theory.geometry_of_covariance(cov, BUDGET)
    close(H, BUDGET / 4 * np.linalg.inv(cov))
    close(theory.minimax_covariance(H, BUDGET), cov)


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

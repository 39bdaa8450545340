"""Kick, drift and scaling multiply back to the symplectic matrix."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from symplectic_jepa import theory
from tests.helpers.oracles import close
from tests.helpers.systems import omega


def random_symplectic(d, seed):
    generator = np.random.default_rng(seed).normal(size=(2 * d, 2 * d))
    return torch.from_numpy(scipy.linalg.expm(0.2 * omega(d).numpy() @ (generator + generator.T)))


@pytest.mark.parametrize("seed", range(5))
def test_kick_drift_scaling_multiplies_back(seed):
    matrix = random_symplectic(3, seed)
    drift, scaling, kick = theory.kick_drift_scaling(matrix)
    close(drift @ scaling @ kick, matrix, rtol=1e-8, atol=1e-8)
    for factor in (drift, scaling, kick):
        close(factor.T @ omega(3) @ factor, omega(3))
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

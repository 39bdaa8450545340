"""The quadratic lift and its flow against quadrature, the matrix exponential and leapfrog."""

import numpy as np
import scipy.linalg
import torch

from symplectic_jepa import theory
from tests.helpers.oracles import close
from tests.helpers.samples import spd
from tests.helpers.systems import omega

BUDGET = 2.5


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
    rates = np.sqrt(values)

    def of(f):
        return vectors * f @ vectors.T

    for t in (0.3, -2.0, 40.0):
        c, s = np.cos(rates * t), np.sin(rates * t)
        closed = np.block([[of(c), of(s / rates)], [of(-rates * s), of(c)]])
        close(theory.quadratic_flow(H, t), closed, rtol=1e-8, atol=1e-8)
    zero, eye = np.zeros((3, 3)), np.eye(3)
    close(theory.quadratic_flow(H, 0.9), scipy.linalg.expm(0.9 * np.block([[zero, eye], [-H.numpy(), zero]])))


def test_flow_is_symplectic_and_keeps_the_lift():
    H = spd(3)
    flow = theory.quadratic_flow(H, 1.7)
    close(flow.T @ omega(3) @ flow, omega(3))
    cov = torch.block_diag(*theory.quadratic_lift(H, BUDGET))
    close(flow @ cov @ flow.T, cov)

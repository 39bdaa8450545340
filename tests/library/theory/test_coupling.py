"""Conditional distributions against regression and Schur complements."""

import pytest
import torch

from symplectic_jepa import theory
from tests.helpers.oracles import close
from tests.helpers.samples import spd


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
    with pytest.raises(ValueError, match=r"of at most 1, got 1\.00001"):
        theory.conditional_distribution(one, (1 + 1.1e-5) * one)
    for rho in (1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="rho"):
            theory.scaled_coupling(cov, rho)

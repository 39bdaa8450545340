"""The coupling of two views, which their marginals do not determine."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from symplectic_jepa._checks import Array
from symplectic_jepa.theory._inputs import fits, scalar, spd, square


class ConditionalDistribution(NamedTuple):
    """``z_b | z_a ~ N(predictor @ z_a, residual_cov)``; both ``(..., d, d)``."""

    predictor: Tensor
    residual_cov: Tensor


def conditional_distribution(cov: Array, cross: Array) -> ConditionalDistribution:
    r"""``z_b | z_a ~ N(CΣ⁻¹ z_a, Σ − CΣ⁻¹Cᵀ)`` for views with the same marginal [paper, proposition 3.9].

    Args:
        cov: ``Σ = E z_a z_aᵀ = E z_b z_bᵀ``, ``(..., d, d)``, positive definite.
        cross: ``C = E z_b z_aᵀ``, ``(..., d, d)``, such that the joint covariance is positive semi-definite.

    Returns:
        The best predictor of one view from the other, and the covariance of its residual.

    Raises:
        ValueError: if ``cov`` is not symmetric positive definite, the shapes differ, or no pair of views has this
            ``cross``.
    """
    cov, cross = spd("cov", cov), square("cross", cross)
    fits("cross", cross, cov)
    factor = torch.linalg.cholesky(cov)
    # With Σ = LLᵀ and K = C L⁻ᵀ: CΣ⁻¹ = K L⁻¹ and CΣ⁻¹Cᵀ = KKᵀ. The singular values of L⁻¹K, the canonical
    # correlations of the two views, are at most 1 exactly if the joint covariance is positive semi-definite.
    half = torch.linalg.solve_triangular(factor.mT, cross, upper=True, left=False)
    correlations = torch.linalg.svdvals(torch.linalg.solve_triangular(factor, half, upper=False).detach())
    largest = correlations[..., 0].max().item()
    if largest > 1 + 1e-5:
        raise ValueError(
            f"cross must leave the joint covariance positive semi-definite: expected canonical correlations of at most "
            f"1, got {largest:.6g}"
        )
    predictor = torch.linalg.solve_triangular(factor, half, upper=False, left=False)
    return ConditionalDistribution(predictor, cov - half @ half.mT)


def scaled_coupling(cov: Array, rho: float | Array) -> Tensor:
    r"""``C = ρΣ``: one marginal, and for each ``ρ`` another predictor, ``ρ z_a`` [paper, proposition 3.9].

    Args:
        cov: ``Σ``, ``(..., d, d)``, positive definite.
        rho: ``−1 < ρ < 1``, a number or ``(...)``.

    Returns:
        The cross-covariance ``(..., d, d)``.

    Raises:
        ValueError: if ``cov`` is not symmetric positive definite or ``rho`` out of range.
    """
    cov = spd("cov", cov)
    factor = scalar("rho", rho, like=cov)
    if (factor.abs() >= 1).any():
        raise ValueError(f"rho must lie strictly between -1 and 1, got {rho!r}")
    return factor[..., None, None] * cov

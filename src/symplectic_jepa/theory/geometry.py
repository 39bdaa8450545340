r"""The oracle for a known geometry ``H``: the right covariance under the budget ``tr(HΣ) = c``.

Conventions of this package: ``H`` and ``Σ`` are ``(..., d, d)``, tensors or numpy arrays, and broadcast over leading
dimensions; a budget is a number or a tensor ``(...)``; results are float64 tensors and differentiable; ``H`` must be
symmetric positive definite, a covariance may be singular where only its size is asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from symplectic_jepa._checks import Array
from symplectic_jepa.theory._inputs import in_metric, scalar, spd, square


def worst_case_variance(H: Array, cov: Array) -> Tensor:
    r"""``sup {wᵀΣw : wᵀH⁻¹w ≤ 1} = λ_max(H^{1/2} Σ H^{1/2})`` [paper, lemma 3.1].

    Args:
        H: geometry ``(..., d, d)``.
        cov: ``Σ``, ``(..., d, d)``, positive semi-definite.

    Returns:
        ``(...)``.

    Raises:
        ValueError: if a matrix is not as required, or the two differ in ``d``.
    """
    H = spd("H", H)
    values: Tensor = torch.linalg.eigvalsh(in_metric(H, spd("cov", cov, semidefinite=True, like=H)))
    return values[..., -1]


def minimax_covariance(H: Array, budget: float | Array) -> Tensor:
    r"""``Σ* = (c/d) H⁻¹``: the least worst-case task variance among ``tr(HΣ) = c`` [paper, theorem 3.2].

    Args:
        H: geometry ``(..., d, d)``.
        budget: ``c > 0``.

    Returns:
        ``(..., d, d)``.

    Raises:
        ValueError: if ``H`` is not symmetric positive definite, or the budget not positive.
    """
    H = spd("H", H)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H))
    return minimax_value(H, budget)[..., None, None] * inverse


def minimax_value(H: Array, budget: float | Array) -> Tensor:
    """``c/d``, the worst-case task variance of `minimax_covariance`: ``(...)`` [paper, theorem 3.2]."""
    H = square("H", H)
    return scalar("budget", budget, positive=True, like=H) / H.shape[-1]


def geometry_of_covariance(cov: Array, budget: float | Array) -> Tensor:
    r"""``H = (c/d) Σ⁻¹``, the one geometry whose minimax covariance is ``Σ`` [paper, proposition 3.7].

    So every covariance is the oracle of some geometry: without knowledge of ``H`` the theory singles out none.

    Args:
        cov: ``Σ``, ``(..., d, d)``, positive definite.
        budget: ``c > 0``.

    Returns:
        ``(..., d, d)``.

    Raises:
        ValueError: if ``cov`` is not symmetric positive definite, or the budget not positive.
    """
    return minimax_covariance(spd("cov", cov), budget)  # Σ = (c/d) H⁻¹ is symmetric in H and Σ


def maximum_entropy_distribution(H: Array, budget: float | Array) -> MultivariateNormal:
    r"""``N(0, (c/d) H⁻¹)``: the most entropy among ``E zᵀHz = c`` [paper, theorem 3.3].

    Args:
        H: geometry ``(..., d, d)``.
        budget: ``c > 0``.

    Returns:
        The distribution, with the leading dimensions as its batch shape.

    Raises:
        ValueError: if ``H`` is not symmetric positive definite, or the budget not positive.
    """
    cov = minimax_covariance(H, budget)
    return MultivariateNormal(cov.new_zeros(cov.shape[:-1]), covariance_matrix=cov)

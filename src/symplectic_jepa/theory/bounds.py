r"""What the floors guarantee for the spectrum of a projected covariance ``C``, ``(k, k)`` and positive definite.

Arguments of the three functions: ``trace`` is ``τ ≥ tr C`` (the sum of the ``k`` variances, not their mean);
``log_det`` is ``ℓ ≤ (1/k) log det C``, per dimension as in `log_det_per_dim`; ``participation`` is ``r ≤ PR(C)``,
between 1 and ``k`` (not ``PR/k``, the unit of the floors). Numbers or tensors ``(...)``; results are float64 and
differentiable. No covariance satisfies ``ℓ > log(τ/k)``. For large ``k`` a bound can leave float64's range; it is then
0 or infinite, which is still a valid bound.
"""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa.theory._inputs import broadcast, scalar


def min_eigenvalue_bound(
    log_det: float | Array, trace: float | Array, k: int, participation: float | Array | None = None
) -> Tensor:
    r"""``λ_min ≥ e^{kℓ} ((k−1)/τ)^{k−1}``, or with ``r``: ``e^{kℓ} (√r/τ)^{k−1}`` [paper, A.13; A.14].

    A.13 needs no participation ratio and for ``k ≥ 3`` is the sharper one (``√r ≤ √k < k − 1``).

    Args:
        log_det: ``ℓ``.
        trace: ``τ > 0``.
        k: dimension of ``C``.
        participation: ``r``; ``None`` gives A.13, a value gives A.14 as printed in the paper.

    Returns:
        ``(...)``.

    Raises:
        ValueError: if an argument is out of range.
    """
    _checks.positive_int("k", k)
    floor, tau = scalar("log_det", log_det), scalar("trace", trace, positive=True)
    share = torch.full_like(tau, max(k - 1, 1))  # k = 1: the power is 0, any number works
    if participation is not None:
        share = _participation(participation, k).sqrt()
    broadcast(log_det=floor, trace=tau, participation=share)
    return torch.exp(k * floor + (k - 1) * (share / tau).log())


def max_eigenvalue_bound(trace: float | Array, participation: float | Array) -> Tensor:
    r"""``λ_max ≤ τ/√r`` [paper, theorem A.14].

    Args:
        trace: ``τ > 0``.
        participation: ``r ≥ 1``.

    Returns:
        ``(...)``.

    Raises:
        ValueError: if an argument is out of range.
    """
    tau, ratio = scalar("trace", trace, positive=True), _participation(participation)
    broadcast(trace=tau, participation=ratio)
    return tau / ratio.sqrt()


def condition_number_bound(
    log_det: float | Array, trace: float | Array, k: int, participation: float | Array
) -> Tensor:
    r"""``λ_max/λ_min ≤ e^{−kℓ} (τ/√r)^k``, the quotient of the two bounds of A.14 [paper, corollary A.15].

    Args:
        log_det: ``ℓ``.
        trace: ``τ > 0``.
        k: dimension of ``C``.
        participation: ``r``.

    Returns:
        ``(...)``.

    Raises:
        ValueError: if an argument is out of range.
    """
    _checks.positive_int("k", k)
    floor, top = scalar("log_det", log_det), max_eigenvalue_bound(trace, _participation(participation, k))
    broadcast(log_det=floor, **{"trace / participation": top})
    return torch.exp(k * (top.log() - floor))


def _participation(value: float | Array, k: int | None = None) -> Tensor:
    ratio = scalar("participation", value)
    if (ratio < 1).any() or (k is not None and (ratio > k).any()):
        upper = "" if k is None else f" and at most k = {k}"
        raise ValueError(
            f"participation must be at least 1{upper}, got {value!r}; it is PR itself: multiply a floor on PR/k by k"
        )
    return ratio

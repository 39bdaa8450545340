"""What a finite sample does to log-determinant and participation ratio, and how to undo it for Gaussian samples.

Below, ``S`` is the covariance of ``N`` Gaussian samples about their mean, divided by ``n = N − 1``. Then ``n S`` has
the Wishart distribution with ``n`` degrees of freedom and scale ``Σ``, the covariance of the distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_det_bias(n: Tensor, k: Tensor | int, width: int) -> Tensor:
    r"""``E (1/k) log det S − (1/k) log det Σ = (1/k) Σ_{i=1..k} ψ((n − i + 1)/2) − log(n/2)``, whatever ``Σ`` is.

    ``ψ`` is the digamma function: ``det(nS)/det Σ`` is a product of independent ``χ²`` variables with ``n − i + 1``
    degrees of freedom [Muirhead 1982, Aspects of Multivariate Statistical Theory, section 3.2].

    Args:
        n: degrees of freedom, a floating-point scalar.
        k: dimension of ``S``, at most ``width``; on the device if it depends on the samples of all ranks.
        width: number of terms to compute; those after the first ``k`` are dropped.

    Returns:
        A scalar below 0; NaN for ``n < k``, where ``S`` is singular.
    """
    i = torch.arange(1, width + 1, dtype=n.dtype, device=n.device)
    terms = torch.digamma((n - i + 1) / 2).where(i <= k, 0)
    bias = terms.sum() / k - (n / 2).log()
    return bias.where(n >= k, torch.nan)


def unbiased_squares(trace: Tensor, square: Tensor, n: Tensor | int) -> tuple[Tensor, Tensor]:
    r"""Unbiased estimates of ``(tr Σ)²`` and ``tr(Σ²)`` from ``tr S`` and ``tr(S²)``.

    They solve ``E (tr S)² = (tr Σ)² + (2/n) tr(Σ²)`` and ``E tr(S²) = (1 + 1/n) tr(Σ²) + (1/n) (tr Σ)²``
    [Srivastava 2005, J. Japan Statist. Soc. 35, 251–272]. The second is at least 0, because ``S`` has at most the rank
    ``n``.

    Args:
        trace: ``tr S``, ``(...)``.
        square: ``tr(S²)``, ``(...)``.
        n: degrees of freedom, at least 2.

    Returns:
        The two estimates, ``(...)`` each.
    """
    first = trace.square()
    scale = n / ((n - 1) * (n + 2))
    return scale * ((n + 1) * first - 2 * square), scale * (n * square - first)


def unbiased_participation_ratio(cov: Tensor, k: Tensor | int, n: Tensor, *, eps: float) -> Tensor:
    """``(tr(Σ + εI))² / tr((Σ + εI)²)``, each with its unbiased estimate, from ``C = S + εI``, ``(..., k, k)``.

    Args:
        cov: ``C``, ``(..., width, width)``, zero outside its leading ``k × k`` block.
        k: dimension of ``C``.
        n: degrees of freedom, at least 2.
        eps: ridge ``ε``, which keeps the ratio finite where ``S`` is 0.

    Returns:
        ``(...)``.
    """
    trace = cov.diagonal(dim1=-2, dim2=-1).sum(-1) - k * eps
    square = cov.square().sum((-2, -1)) - 2 * eps * trace - k * eps**2
    first, second = unbiased_squares(trace, square, n)
    return (first + 2 * k * eps * trace + (k * eps) ** 2) / (second + 2 * eps * trace + k * eps**2)

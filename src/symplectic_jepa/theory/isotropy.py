"""The cost of a covariance that ignores the geometry, Euclidean isotropy in particular."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa.theory._inputs import (
    broadcast,
    in_metric,
    positive_trace,
    scalar,
    spd,
    symmetric_root,
    trace,
    without_scale,
)


def isotropic_covariance(H: Array, budget: float | Array) -> Tensor:
    r"""``(c / tr H) I``, the only Euclidean-isotropic covariance with ``tr(HΣ) = c`` [paper, equation 13].

    Args:
        H: geometry ``(..., d, d)``.
        budget: ``c > 0``.

    Returns:
        ``(..., d, d)``.

    Raises:
        ValueError: if ``H`` is not symmetric positive definite, or the budget not positive.
    """
    H = spd("H", H)
    scale = scalar("budget", budget, positive=True, like=H) / trace(H)
    return scale[..., None, None] * torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)


def price_of_isotropy(H: Array) -> Tensor:
    r"""``d λ_max(H) / tr(H) ≥ 1``: worst-case variance of isotropy over that of the oracle [paper, theorem 3.4].

    Args:
        H: geometry ``(..., d, d)``.

    Returns:
        ``(...)``, in ``[1, d)``; 1 only for ``H ∝ I``. It is the `regret` of the shape ``I``.

    Raises:
        ValueError: if ``H`` is not symmetric positive definite.

    Examples:
        >>> import torch
        >>> price_of_isotropy(torch.diag(torch.tensor([3.0, 1.0]))).item()
        1.5
    """
    return _peak_over_mean(without_scale(spd("H", H)))


def whiten(z: Array, H: Array) -> Tensor:
    r"""``H^{1/2} z``, which is isotropic with scale ``a`` iff ``Cov z = a H⁻¹`` [paper, proposition 3.5].

    Args:
        z: samples ``(..., N, d)``.
        H: geometry ``(..., d, d)``, whose symmetric root is applied (differentiable, also at ``H = I``).

    Returns:
        ``(..., N, d)`` in the dtype of ``z``.

    Raises:
        TypeError: if ``z`` is not floating.
        ValueError: if ``H`` is not symmetric positive definite, or ``z`` does not have ``d`` columns.
    """
    H = spd("H", H)
    z = _checks.floating("z", _checks.array("z", z))
    if z.ndim < 2 or z.shape[-1] != H.shape[-1]:
        raise ValueError(f"z must have shape (..., N, {H.shape[-1]}), got {tuple(z.shape)}")
    broadcast(z=z[..., 0, 0], H=H[..., 0, 0])
    return (z.to(H.dtype) @ symmetric_root(H)).to(z.dtype)


def metric_anisotropy(H: Array, cov: Array) -> Tensor:
    r"""``‖M − aI‖_F / ‖M‖_F`` for ``M = H^{1/2} Σ H^{1/2}`` and ``a = tr(M)/d`` [paper, proposition 3.5].

    Args:
        H: geometry ``(..., d, d)``.
        cov: ``Σ``, ``(..., d, d)``, positive semi-definite and not zero.

    Returns:
        ``(...)``: 0 iff ``Σ = a H⁻¹``, at most ``√(1 − 1/d)``, attained at rank 1.

    Raises:
        ValueError: if a matrix is not as required, or the two differ in ``d``.
    """
    H = spd("H", H)
    cov = spd("cov", cov, semidefinite=True, like=H)
    whitened = in_metric(without_scale(H), without_scale(cov))
    mean = positive_trace("cov", whitened) / H.shape[-1]
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    off: Tensor = torch.linalg.matrix_norm(whitened - mean[..., None, None] * eye)
    size: Tensor = torch.linalg.matrix_norm(whitened)
    return off / size


def regret(H: Array, shape: Array) -> Tensor:
    r"""``d λ_max(H^{1/2} S H^{1/2}) / tr(HS)``: the price of a fixed covariance shape ``S`` [paper, theorem 3.8].

    The worst-case variance of ``Σ = c S / tr(HS)`` divided by that of the oracle `minimax_covariance`. The budget and
    the scales of ``H`` and ``S`` cancel.

    Args:
        H: geometry ``(..., d, d)``.
        shape: ``S``, ``(..., d, d)``, positive semi-definite and not zero, for example the covariance of an encoder.

    Returns:
        ``(...)``, in ``[1, d]``: 1 iff ``S ∝ H⁻¹``, and ``d`` only if ``S`` has rank 1.

    Raises:
        ValueError: if a matrix is not as required, or the two differ in ``d``.
    """
    H = spd("H", H)
    shape = spd("shape", shape, semidefinite=True, like=H)
    return _peak_over_mean(in_metric(without_scale(H), without_scale(shape)))


def adversarial_geometry(shape: Array, *, epsilon: float = 1e-3) -> Tensor:
    r"""A geometry under which ``S`` has the regret ``d / (1 + (d − 1)ε)``, towards ``d`` [paper, theorem 3.8].

    With ``S = LLᵀ``, ``H = L⁻ᵀ diag(1, ε, …, ε) L⁻¹``: then ``LᵀHL``, which has the eigenvalues of ``HS``, is that
    diagonal. (The paper's proof uses the symmetric root of ``S`` instead of ``L``.)

    Args:
        shape: ``S``, ``(..., d, d)``, positive definite.
        epsilon: ``0 < ε ≤ 1``; the smaller, the larger the regret.

    Returns:
        ``(..., d, d)``.

    Raises:
        ValueError: if ``shape`` is not symmetric positive definite, or ``epsilon`` out of range.
    """
    if _checks.finite("epsilon", epsilon, minimum=0.0, exclusive=True) > 1:
        raise ValueError(f"epsilon must be a number above 0 and at most 1, got {epsilon!r}")
    factor = torch.linalg.cholesky(spd("shape", shape))
    values = factor.new_ones(factor.shape[-1:])
    values[1:] = epsilon
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device), upper=False
    )
    geometry: Tensor = inverse.mT @ (values[:, None] * inverse)
    return geometry


def _peak_over_mean(matrix: Tensor) -> Tensor:
    mean = positive_trace("shape", matrix) / matrix.shape[-1]
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values[..., -1] / mean

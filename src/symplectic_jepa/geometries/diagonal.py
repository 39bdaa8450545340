"""Geometries with one eigenvalue per coordinate."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import ExactBuffers, full_precision
from symplectic_jepa.geometries._base import Geometry


class DiagonalGeometry(Geometry, ExactBuffers):
    """``H = diag(λ)``, fixed [paper, appendix F.2].

    Args:
        diagonal: eigenvalues ``λ > 0``, a tensor ``(D,)``, or ``(1,)`` for any ``D``.

    Raises:
        TypeError: if ``diagonal`` is not a floating-point tensor.
        ValueError: if ``diagonal`` is not a vector, or not positive and finite.
    """

    diagonal: Tensor
    _exact = ("diagonal",)

    def __init__(self, diagonal: Tensor) -> None:
        super().__init__()
        inside = _checks.floating("diagonal", diagonal).isfinite() & (diagonal > 0)
        if diagonal.ndim != 1 or 0 in diagonal.shape or not (diagonal.is_meta or inside.all()):
            raise ValueError(f"diagonal must be (D,), positive and finite, got {tuple(diagonal.shape)}: {diagonal}")
        self.register_buffer("diagonal", diagonal.detach().clone())

    @full_precision
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``λ_i^{1/2} z_i``: ``(..., D)`` to ``(..., D)``."""
        if _checks.floating("z", z).ndim == 0 or len(self.diagonal) not in (1, z.shape[-1]):
            raise ValueError(f"z must have shape (..., {len(self.diagonal)}), got {tuple(z.shape)}")
        _checks.same_device(z=z, diagonal=self.diagonal)
        return z * self.diagonal.to(z.dtype).sqrt()

    def eigenvalues(self) -> Tensor:
        """``λ``."""
        return self.diagonal


class IdentityGeometry(DiagonalGeometry):
    """``H = I``: with it `HamSIGReg` is `SIGReg` [paper, appendix F.2]."""

    def __init__(self) -> None:
        super().__init__(torch.ones(1))

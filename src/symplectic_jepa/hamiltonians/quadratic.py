"""The oracle: a quadratic Hamiltonian with a known geometry."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians._base import AbstractSeparable


class QuadraticHamiltonian(AbstractSeparable):
    r"""``H(q, p) = ½ qᵀHq + ½‖p‖²`` with a fixed geometry ``H`` (default: identity) [paper, prop. 3.6].

    Args:
        dim: dimension ``d`` of ``q`` (and of ``p``).
        geometry: symmetric positive definite ``(d, d)`` matrix; stored as a buffer. No learnable parameters.

    Raises:
        TypeError: if ``geometry`` is not a floating-point tensor.
        ValueError: if ``geometry`` has another shape, is not symmetric or not positive definite.
    """

    geometry: Tensor | None

    def __init__(self, dim: int, *, geometry: Tensor | None = None) -> None:
        super().__init__()
        self.dim = _checks.positive_int("dim", dim)
        if geometry is not None:
            if not isinstance(geometry, Tensor) or not geometry.is_floating_point():
                raise TypeError(f"geometry must be a floating-point tensor, got {geometry!r}")
            geometry = geometry.detach().clone()
            if geometry.shape != (dim, dim):
                raise ValueError(f"geometry must have shape ({dim}, {dim}), got {tuple(geometry.shape)}")
            if not torch.allclose(geometry, geometry.mT):
                raise ValueError(
                    f"geometry must be symmetric, got max |H - H^T| = {(geometry - geometry.mT).abs().max().item():.3g}"
                )
            smallest = torch.linalg.eigvalsh(geometry.double())[0].item()
            if not smallest > 0:
                raise ValueError(f"geometry must be positive definite, got smallest eigenvalue {smallest:.3g}")
        self.register_buffer("geometry", geometry)

    def potential(self, q: Tensor) -> Tensor:
        """``V(q) = ½ qᵀHq``: ``(..., dim)`` to ``(...)``."""
        return -0.5 * (q * self.force(q)).sum(-1)

    def force(self, q: Tensor) -> Tensor:
        """``−Hq``: ``(..., dim)`` to ``(..., dim)``."""
        _checks.coordinates("q", q, self.dim)
        return -q if self.geometry is None else -(q @ self.geometry.to(q.dtype))

"""A quadratic Hamiltonian with a known geometry, used as a reference."""

from __future__ import annotations

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.geometries import MatrixGeometry
from symplectic_jepa.hamiltonians._base import AbstractSeparable


class QuadraticHamiltonian(AbstractSeparable):
    r"""``H(q, p) = ½ qᵀHq + ½‖p‖²`` with a fixed geometry ``H`` (default: identity) [paper, prop. 3.6].

    Args:
        dim: dimension ``d`` of ``q`` (and of ``p``).
        geometry: a `MatrixGeometry` or a symmetric positive definite ``(d, d)`` matrix; not learned.

    Raises:
        TypeError: if ``geometry`` is neither a floating-point tensor nor a `MatrixGeometry`.
        ValueError: if ``geometry`` has another shape, is not symmetric or not positive definite.
    """

    def __init__(self, dim: int, *, geometry: MatrixGeometry | Tensor | None = None) -> None:
        super().__init__()
        self.dim = _checks.positive_int("dim", dim)
        if geometry is not None and not isinstance(geometry, MatrixGeometry):
            matrix = _checks.floating("geometry", geometry)
            if not matrix.is_meta:  # on meta, values come with the weights
                matrix = _checks.positive_definite("geometry", matrix).to(matrix.dtype)
            geometry = MatrixGeometry(matrix)
        if geometry is not None and len(geometry.matrix) != dim:
            raise ValueError(f"geometry must have shape ({dim}, {dim}), got {tuple(geometry.matrix.shape)}")
        self.geometry = geometry

    def potential(self, q: Tensor) -> Tensor:
        """``V(q) = ½ qᵀHq``: ``(..., dim)`` to ``(...)``."""
        return -0.5 * (q * self.force(q)).sum(-1)

    def force(self, q: Tensor) -> Tensor:
        """``−Hq``: ``(..., dim)`` to ``(..., dim)``."""
        _checks.coordinates("q", q, self.dim)
        return -q if self.geometry is None else -(q @ self.geometry.matrix.to(q.dtype))

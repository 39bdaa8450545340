"""A geometry given by a dense matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import ExactBuffers, full_precision, wide_dtype
from symplectic_jepa.geometries._base import Geometry


class MatrixGeometry(Geometry, ExactBuffers):
    """A fixed dense ``H``, such as the result of `fit_geometry` [paper, theorem 3.3 and appendix F.2].

    Args:
        matrix: ``H``, symmetric positive definite ``(D, D)``, a tensor or a numpy array.

    Raises:
        TypeError: if ``matrix`` is not a floating-point tensor or array.
        ValueError: if ``matrix`` has another shape, or is not finite, symmetric and positive definite.

    Examples:
        >>> import torch
        >>> geometry = MatrixGeometry(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        >>> geometry.eigenvalues()
        tensor([1., 3.])
    """

    matrix: Tensor
    root: Tensor
    values: Tensor
    _exact = ("matrix", "root", "values")

    def __init__(self, matrix: _checks.Array) -> None:
        super().__init__()
        if not (isinstance(matrix, Tensor) and matrix.is_meta):  # on meta, values come with the weights
            given = _checks.array("matrix", matrix)
            matrix = _checks.positive_definite("matrix", given).to(given.dtype)
            if matrix.ndim != 2:
                raise ValueError(f"matrix must have shape (D, D), got {tuple(matrix.shape)}")
        self.register_buffer("matrix", matrix.detach().clone())
        self._decompose()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._decompose()

    @full_precision
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``H^{1/2} z``: ``(..., D)`` to ``(..., D)``."""
        _checks.same_device(z=_checks.coordinates("z", z, len(self.root)), matrix=self.root)
        return z @ self.root.to(z.dtype)

    def eigenvalues(self) -> Tensor:
        """The eigenvalues of ``H``, ascending, ``(D,)``."""
        return self.values

    def _decompose(self) -> None:
        """Compute the square root and the eigenvalues in float64; repeated whenever a matrix is loaded."""
        values, vectors = torch.linalg.eigh(self.matrix.to(wide_dtype(self.matrix)))
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
        dtype = torch.promote_types(self.matrix.dtype, torch.float32)
        self.register_buffer("root", root.to(dtype), persistent=False)
        self.register_buffer("values", values.to(dtype), persistent=False)

"""SIGReg in a fixed or learned geometry."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from symplectic_jepa import _checks
from symplectic_jepa.distributed import Ranks
from symplectic_jepa.geometries import Geometry
from symplectic_jepa.regularizers._base import Measured, Reduction
from symplectic_jepa.regularizers.sigreg import SIGReg, SIGRegSettings


class HamSIGReg(SIGReg):
    r"""`SIGReg` of ``H^{1/2} z``, so that the target of ``z`` is ``N(0, H⁻¹)`` [paper, theorem 3.3 and appendix F.2].

    Since ``H^{1/2}`` is symmetric, ``(H^{1/2} z)ᵀ a = zᵀ (H^{1/2} a)``. This transforms the ``M`` directions instead
    of the ``N`` samples.

    Args:
        geometry: geometry ``H``: `IdentityGeometry`, `DiagonalGeometry`, `MatrixGeometry`, `LaplacianGeometry`,
            `RadialGeometry` or your own.
        settings: ``slices``, ``knots``, ``t_max``, ``seed``, ``sync`` and ``process_group``; see `SIGReg`.

    A learnable geometry trains with the features: its parameters belong to the regularizer and to its objective.
    To update it more slowly, give it its own parameter group, for example
    ``{"params": regularizer.geometry.parameters(), "lr": 0.1 * lr}``, or an optimiser that steps less often.

    Raises:
        TypeError: if ``geometry`` is not a `Geometry`.
        ValueError: as `SIGReg`.
    """

    def __init__(self, geometry: Geometry, **settings: Unpack[SIGRegSettings]) -> None:
        super().__init__(**settings)
        self.geometry = _checks.instance("geometry", geometry, Geometry)

    def config(self) -> dict[str, Any]:
        """See `Pretrained.config`."""
        return {name: getattr(self, name) for name in ("geometry", *SIGRegSettings.__annotations__)}

    def reduction(self, x: Tensor, ranks: Ranks, *, directions: Tensor | None = None) -> Reduction:
        """The sums of `SIGReg` along ``H^{1/2} a``; see `BatchRegularizer`."""
        dim = _checks.samples("x", x).shape[-1]
        if directions is None:
            directions = self.schedule(dim, self.slices, dtype=x.dtype, device=x.device)
        columns = _checks.columns("directions", directions, x)
        try:
            directions = self.geometry.sqrt_apply(columns.mT).mT
        except ValueError as error:
            raise ValueError(f"x of shape {tuple(x.shape)} does not fit the geometry {self.geometry}") from error
        sums, finish_sigreg = super().reduction(x, ranks, directions=directions)

        def finish(totals: list[Tensor]) -> Measured:
            value, statistics = finish_sigreg(totals)
            low, high = self.geometry.eigenvalues().detach().aminmax()
            return Measured(value, {**statistics, "condition": high / low})

        return Reduction(sums, finish)

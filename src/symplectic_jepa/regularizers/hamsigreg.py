"""SIGReg in a geometry, and the geometry that is learned along with the features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.regularizers._base import Reduction
from symplectic_jepa.regularizers.geometries import Geometry, TokenGridGeometry
from symplectic_jepa.regularizers.sigreg import SIGReg


class HamSIGReg(SIGReg):
    r"""`SIGReg` of ``H^{1/2} z``, so that features tend to ``N(0, H⁻¹)`` [paper, theorem 3.3 and appendix F.2].

    Since ``H^{1/2}`` is symmetric, ``(H^{1/2} z)ᵀ a = zᵀ (H^{1/2} a)``: the ``M`` directions are transformed, not the
    ``N`` samples.

    Args:
        geometry: ``H``: `IdentityGeometry`, `DiagonalGeometry`, `LaplacianGeometry`, `RadialGeometry` or your own.
        slices: see `SIGReg`, as for the others.
        knots: number of knots.
        t_max: the last knot.
        seed: seed of the directions.
        sync: see `BatchRegularizer`.

    A learnable geometry trains with the features: its parameters are among those of the regularizer and of the
    objective around it. To update it more slowly give it a group of its own, for example
    ``{"params": regularizer.geometry.parameters(), "lr": 0.1 * lr}``, or an optimiser that steps less often.

    Raises:
        TypeError: if ``geometry`` is not a `Geometry`.
        ValueError: as `SIGReg`.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        slices: int = 1024,
        knots: int = 17,
        t_max: float = 3.0,
        seed: int = 0,
        sync: bool = True,
    ) -> None:
        super().__init__(slices=slices, knots=knots, t_max=t_max, seed=seed, sync=sync)
        if not isinstance(geometry, Geometry):
            raise TypeError(f"geometry must be a Geometry, got {type(geometry).__name__}")
        self.geometry = geometry

    def reduction(self, x: Tensor, *, directions: Tensor | None = None) -> Reduction:
        """Those of `SIGReg` along ``H^{1/2} a``; see `BatchRegularizer`."""
        dim = _checks.samples("x", x).shape[-1]
        if directions is None:
            directions = self.schedule(dim, self.slices, dtype=x.dtype, device=x.device)
        if directions.shape[:-1] == (dim,):  # the error for any other shape is SIGReg's
            try:
                directions = self.geometry.sqrt_apply(directions.to(x.dtype).mT).mT
            except ValueError as error:
                raise ValueError(f"x of shape {tuple(x.shape)} does not fit the geometry {self.geometry}") from error
        sums, finish_sigreg = super().reduction(x, directions=directions)

        def finish(totals: list[Tensor]) -> Tensor:
            loss = finish_sigreg(totals)
            low, high = self.geometry.eigenvalues().detach().aminmax()
            self.statistics["condition"] = high / low
            return loss

        return Reduction(sums, finish)


class RadialGeometry(TokenGridGeometry):
    r"""A learnable ``H`` whose eigenvalues grow with the radial frequency ``r = |f|`` on the token grid.

    ``log λ(r) = Σ_k w_k clamp(K r / r_max − k, 0, 1) − gauge``: piecewise linear, with steps

    ``w_k = log(max_condition) · e^{θ_k} / (e^b + Σ_j e^{θ_j})``

    that are positive, so ``λ`` is monotone, and whose sum stays below ``log(max_condition)``, so ``λ_max/λ_min`` stays
    below ``max_condition``. The gauge makes ``mean log λ = 0``: the scale of ``z`` is not ``H``'s to change. All three
    hold for every ``θ``; ``b`` is such that ``θ = 0``, where training starts and weight decay pulls, has
    ``initial_condition``.

    Args:
        grid: the tokens, as for `LaplacianGeometry`; two or more.
        knots: number ``K`` of parameters ``θ``.
        max_condition: bound of the condition number, above 1.
        initial_condition: the condition number at the start, above 1 and below ``max_condition``.
        halves: see `LaplacianGeometry`.
        boundary: see `TokenGridGeometry`.

    Raises:
        ValueError: if the grid has one token, or a setting is out of its range.
    """

    ramps: Tensor

    def __init__(
        self,
        grid: int | tuple[int, int],
        *,
        knots: int = 8,
        max_condition: float = 100.0,
        initial_condition: float = 2.0,
        halves: int = 2,
        boundary: str = "free",
    ) -> None:
        super().__init__(grid, halves=halves, boundary=boundary)
        self.theta = nn.Parameter(torch.zeros(_checks.positive_int("knots", knots)))
        self.log_bound = math.log(_checks.finite("max_condition", max_condition, minimum=1.0, exclusive=True))
        start = math.log(_checks.finite("initial_condition", initial_condition, minimum=1.0, exclusive=True))
        if start >= self.log_bound:
            raise ValueError(f"initial_condition must be below {max_condition:g}, got {initial_condition!r}")
        self.rest = math.log(knots * (self.log_bound / start - 1))  # b
        radius = self.frequency.square().sum(0).sqrt()
        if radius.numel() < 2:
            raise ValueError(f"grid must have two tokens or more, got {grid!r}")
        steps = (knots * radius / radius.max())[..., None] - torch.arange(knots)
        self.register_buffer("ramps", steps.clamp(0, 1), persistent=False)

    def eigenvalues(self) -> Tensor:
        """``λ``, ``(rows, columns)``, with a gradient to ``theta``."""
        logits = torch.cat((self.theta, self.theta.new_full((1,), self.rest)))
        log_values = self.ramps.to(logits.dtype) @ (self.log_bound * logits.softmax(0)[:-1])
        return (log_values - log_values.mean()).exp()

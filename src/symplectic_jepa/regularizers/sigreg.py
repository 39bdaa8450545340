"""SIGReg: the sliced Epps–Pulley distance to the isotropic standard Gaussian."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import wide_dtype
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction
from symplectic_jepa.regularizers.characteristic import characteristic_sums
from symplectic_jepa.regularizers.draws import Schedule


class SIGRegSettings(TypedDict, total=False):
    """The keyword arguments of `SIGReg`."""

    slices: int
    knots: int
    t_max: float
    seed: int
    sync: bool
    process_group: Group


class SIGReg(BatchRegularizer):
    r"""Sketched isotropic Gaussian regularization [LeJEPA, arXiv:2511.08544; the paper's baseline].

    The target of every slice ``y = z a`` along a random unit direction is the standard normal distribution. Its
    empirical characteristic function is compared with ``φ(t) = exp(−t²/2)`` at equally spaced knots:

    ``N Σ_j w_j [(mean_n cos(t_j y_n) − φ_j)² + (mean_n sin(t_j y_n))²]``, averaged over slices and leading dimensions,

    which is the trapezoid rule for ``N ∫ |ψ(t) − φ(t)|² φ(t) dt`` over ``[−t_max, t_max]``.

    Args:
        slices: number of directions ``M``, redrawn every training step.
        knots: number of knots ``T`` on ``[0, t_max]``.
        t_max: the last knot.
        seed: seed of the directions.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    A ``(V, N, D)`` input is one sample per view, as in LeJEPA; flatten it to pool the views. The gradient vanishes as
    the features collapse to a point; that of a `VarianceFloor` does not.

    Raises:
        ValueError: if ``slices < 1``, ``knots < 2`` or ``t_max`` is not positive.
    """

    def __init__(
        self,
        *,
        slices: int = 1024,
        knots: int = 17,
        t_max: float = 3.0,
        seed: int = 0,
        sync: bool = True,
        process_group: Group = None,
    ) -> None:
        super().__init__(sync=sync, process_group=process_group)
        self.slices = _checks.positive_int("slices", slices)
        self.knots = _checks.positive_int("knots", knots, maximum=2**16)
        if knots < 2:
            raise ValueError(f"knots must be an int >= 2, got {knots}")
        self.t_max = _checks.finite("t_max", t_max, minimum=0.0, exclusive=True)
        self.schedule = Schedule("unit_directions", seed=seed, every=1)

    @property
    def seed(self) -> int:
        """Seed of the directions."""
        return self.schedule.seed

    def reduction(self, x: Tensor, ranks: Ranks, *, directions: Tensor | None = None) -> Reduction:
        """Sums of ``N`` and of ``cos(t_j y)``, ``sin(t_j y)`` of samples ``(..., N, D)``; see `BatchRegularizer`.

        Args:
            x: samples.
            ranks: whose samples form the batch.
            directions: ``A``, ``(D, M)`` with unit columns; by default a new draw every training step.

        Raises:
            ValueError: if ``directions`` does not have ``D`` rows.
        """
        n, dim = _checks.samples("x", x).shape[-2:]
        if directions is None:
            directions = self.schedule(dim, self.slices, dtype=x.dtype, device=x.device)
        sums = characteristic_sums(x @ _checks.columns("directions", directions, x), self.spacing, self.knots)

        def finish(sums: list[Tensor]) -> Measured:
            total = sums[0].to(x.dtype)
            cos, sin = sums[1] / total, sums[2] / total
            weight, target = self._quadrature(x)
            loss = total * (weight * ((cos - target).square() + sin.square())).sum(-2).mean()
            return Measured(loss, {"epps_pulley": loss})

        return Reduction([count(n, x), *sums], finish)

    @property
    def spacing(self) -> float:
        """Distance between knots."""
        return self.t_max / (self.knots - 1)

    def _quadrature(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``w`` and target ``φ`` at the knots, ``(T, 1)`` each.

        They are recomputed in float64 on every call, so that dtype changes and the meta device cannot corrupt them.
        """
        t = torch.arange(self.knots, dtype=wide_dtype(like), device=like.device)[:, None] * self.spacing
        # Trapezoid on [0, t_max], doubled: the integrand is even, so the negative half adds the same.
        weight = torch.full_like(t, 2 * self.spacing)
        weight[0] = weight[-1] = self.spacing
        target = torch.exp(-0.5 * t.square())
        return (weight * target).to(like.dtype), target.to(like.dtype)

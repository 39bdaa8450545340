"""KerJEPA's maximum mean discrepancy to the standard Gaussian, of full features and of one-dimensional slices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import wide_dtype
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction
from symplectic_jepa.regularizers.covariance import project
from symplectic_jepa.regularizers.draws import Schedule
from symplectic_jepa.regularizers.pairs import Block, all_rows, centred, pair_sum


class MMD(BatchRegularizer):
    r"""``MMD²`` between the features and ``N(0, I)`` with a Gaussian kernel [KerJEPA, arXiv:2512.19605].

    ``mean_nm k(x_n, x_m) − 2 mean_n E k(x_n, g) + E k(g, g')``, ``k(x, y) = exp(−‖x − y‖²/2σ²)``, ``g, g' ~ N(0, I)``,
    ``E k(x, g) = (σ²/(σ² + 1))^{D/2} exp(−‖x‖²/2(σ² + 1))`` and ``E k(g, g') = (σ²/(σ² + 2))^{D/2}``.

    This V-statistic (including ``n = m``) is of order ``1/N`` for Gaussian features. Each rank computes the pairs of
    its own samples with those of all ranks, in blocks of at most 2²⁴ pairs. Over several ranks this takes two
    collectives before the objective's: the numbers of samples, which the host waits for, and the samples.

    Args:
        bandwidth: bandwidth ``σ``, by default ``√D``, because ``‖x − y‖²`` is about ``2D``; no fixed ``σ`` resolves
            features at large ``D``.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    Raises:
        ValueError: if ``bandwidth`` is not positive and finite.
    """

    def __init__(self, *, bandwidth: float | None = None, sync: bool = True, process_group: Group = None) -> None:
        super().__init__(sync=sync, process_group=process_group)
        if bandwidth is not None:
            bandwidth = _checks.finite("bandwidth", bandwidth, minimum=0.0, exclusive=True)
        self.bandwidth = bandwidth

    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Sums over the pairs of this rank's samples with all; see `BatchRegularizer`."""
        bandwidth = self.bandwidth or math.sqrt(_checks.samples("x", x).shape[-1])
        return mmd_reduction(x, all_rows(x, ranks), bandwidth, x.dtype)


class SlicedMMD(MMD):
    r"""The mean of the one-dimensional ``MMD²`` along random unit directions [KerJEPA, arXiv:2512.19605].

    ``√(2π) N MMD²`` at ``σ = 1`` is the integral that `SIGReg` approximates. It costs ``N²`` kernel values per slice.

    Args:
        slices: number of directions ``M``, redrawn every training step.
        bandwidth: bandwidth ``σ``.
        seed: seed of the directions.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    Raises:
        ValueError: if ``slices < 1``, or ``bandwidth`` is not positive and finite.
    """

    def __init__(
        self,
        *,
        slices: int = 64,
        bandwidth: float = 1.0,
        seed: int = 0,
        sync: bool = True,
        process_group: Group = None,
    ) -> None:
        super().__init__(sync=sync, process_group=process_group)
        self.bandwidth: float = _checks.finite("bandwidth", bandwidth, minimum=0.0, exclusive=True)
        self.slices = _checks.positive_int("slices", slices)
        self.schedule = Schedule("unit_directions", seed=seed, every=1)

    @property
    def seed(self) -> int:
        """Seed of the directions."""
        return self.schedule.seed

    def reduction(self, x: Tensor, ranks: Ranks, *, directions: Tensor | None = None) -> Reduction:
        """Sums over the pairs of this rank's slices with all; see `BatchRegularizer`.

        Args:
            x: samples, ``(..., N, D)``.
            ranks: whose samples form the batch.
            directions: ``(D, M)`` with unit columns; by default a new draw every training step.

        Raises:
            ValueError: if ``directions`` does not have ``D`` rows.
        """
        dim = _checks.samples("x", x).shape[-1]
        if directions is None:
            directions = self.schedule(dim, self.slices, dtype=x.dtype, device=x.device)
        slices = project(x, directions, name="directions").mT[..., None]
        return mmd_reduction(slices, all_rows(slices, ranks), self.bandwidth, x.dtype)


def mmd_reduction(x: Tensor, everyone: Tensor, bandwidth: float, dtype: torch.dtype) -> Reduction:
    """``MMD²`` to ``N(0, I)`` of the rows of all ranks, ``(..., N, d)``, of which ``(..., n, d)`` are this rank's.

    The kernel is computed in ``dtype``, after the mean of all rows is removed, which no distance sees; sums in float64.
    """
    dim, square = x.shape[-1], bandwidth**2
    own, other = (rows.to(dtype) for rows in centred(x, everyone))
    pairs = pair_sum(own, other, gaussian(square)).reshape(x.shape[:-2])
    cross = torch.exp(-x.square().sum(-1) / (2 * square + 2)).sum(-1, dtype=pairs.dtype)
    factor, target = (math.exp(-0.5 * dim * math.log1p(k / square)) for k in (1, 2))

    def finish(sums: list[Tensor]) -> Measured:
        total, pairs, cross = sums
        loss = (pairs / total.square() - 2 * factor * cross / total + target).mean().to(dtype)
        return Measured(loss, {"mmd": loss})

    return Reduction([count(x.shape[-2], x), pairs, cross], finish)


def gaussian(square: float) -> Block:
    """`pair_sum` of ``exp(−‖x_n − x_m‖²/2σ²)``, ``square = σ²``."""

    def block(rows: Tensor, everyone: Tensor) -> tuple[Tensor, Tensor]:
        halves = [0.5 * x.square().sum(-1) for x in (rows, everyone)]
        kernel = (rows @ everyone.mT).sub_(halves[0][..., None]).sub_(halves[1][..., None, :])
        kernel = kernel.clamp_max_(0).div_(square).exp_()
        mass = kernel.sum(-1, keepdim=True)
        return mass.sum((-2, -1), dtype=wide_dtype(rows)), (kernel @ everyone - mass * rows) * (2 / square)

    return block

"""KerJEPA's maximum mean discrepancy to the standard Gaussian, of full features and of one-dimensional slices."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._derivatives import once_differentiable, transforming
from symplectic_jepa._precision import wide_dtype
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction
from symplectic_jepa.regularizers.draws import Schedule

_ENTRIES = 2**24  # maximum number of kernel entries in memory at once


class MMD(BatchRegularizer):
    r"""``MMD²`` between the features and ``N(0, I)`` with a Gaussian kernel [KerJEPA, arXiv:2512.19605].

    ``mean_nm k(x_n, x_m) − 2 mean_n E k(x_n, g) + E k(g, g')``, ``k(x, y) = exp(−‖x − y‖²/2σ²)``, ``g, g' ~ N(0, I)``,
    ``E k(x, g) = (σ²/(σ² + 1))^{D/2} exp(−‖x‖²/2(σ² + 1))`` and ``E k(g, g') = (σ²/(σ² + 2))^{D/2}``.

    This V-statistic (including ``n = m``) is of order ``1/N`` for Gaussian features; see `gathered_rows` for its cost.

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
        """The rows of all ranks; see `BatchRegularizer`."""
        return Reduction(gathered_rows(_checks.samples("x", x), ranks), self._finish)

    def _finish(self, sums: list[Tensor]) -> Measured:
        x, weights = sums
        loss = squared_mmd(x, weights, self.bandwidth or math.sqrt(x.shape[-1])).mean().to(x.dtype)
        return Measured(loss, {"mmd": loss})


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
        self.bandwidth = _checks.finite("bandwidth", bandwidth, minimum=0.0, exclusive=True)
        self.slices = _checks.positive_int("slices", slices)
        self.schedule = Schedule("unit_directions", seed=seed, every=1)

    @property
    def seed(self) -> int:
        """Seed of the directions."""
        return self.schedule.seed

    def reduction(self, x: Tensor, ranks: Ranks, *, directions: Tensor | None = None) -> Reduction:
        """The projected rows of all ranks; see `BatchRegularizer`.

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
        rows = gathered_rows(x @ _checks.columns("directions", directions, x), ranks)
        return Reduction(rows, lambda sums: self._finish([sums[0].mT[..., None], sums[1]]))


def gathered_rows(x: Tensor, ranks: Ranks) -> list[Tensor]:
    """``x`` ``(..., N, D)`` and unit weights ``(N,)``, zero-padded so that their sums over ranks contain all rows.

    With several ranks the host first waits for a small collective of the row counts. Then all rows are exchanged, and
    every rank computes all pairs. Without the sum over ranks, the missing rows have weight 0.
    """
    weights = x.new_ones(x.shape[-2])
    if not ranks.shared:
        return [x, weights]
    rank = ranks.rank
    sizes = ranks.sum([F.pad(count(len(weights), x)[None], (rank, ranks.size - rank - 1))])[0].long().tolist()
    before, after = sum(sizes[:rank]), sum(sizes[rank + 1 :])
    return [F.pad(x, (0, 0, before, after)), F.pad(weights, (before, after))]


def squared_mmd(x: Tensor, weights: Tensor, bandwidth: float) -> Tensor:
    """``MMD²`` of ``Σ w_n δ(x_n) / Σ w_n`` to ``N(0, I)``: ``(..., N, d)`` to ``(...)``, summed in float64."""
    dim, square, total = x.shape[-1], bandwidth**2, weights.sum(dtype=wide_dtype(x))
    pairs = _kernel_sum(x.reshape(-1, *x.shape[-2:]), weights, square).reshape(x.shape[:-2])
    cross = (weights * torch.exp(-x.square().sum(-1) / (2 * square + 2))).sum(-1, dtype=total.dtype)
    factor, target = (math.exp(-0.5 * dim * math.log1p(k / square)) for k in (1, 2))
    return pairs / total.square() - 2 * factor * cross / total + target


def _kernel_sum(x: Tensor, weights: Tensor, square: float) -> Tensor:
    """``Σ_nm w_n w_m k(x_n, x_m)`` of ``(G, N, d)``; the gradient reuses the same kernel, which is not saved."""
    needs_gradient = (x.requires_grad and torch.is_grad_enabled()) or transforming()
    totals, grads, w = [], [], weights[:, None]
    with torch.no_grad():
        for part in torch.split(x, max(1, _ENTRIES // x.shape[-2] ** 2)):
            y = part - part.mean(-2, keepdim=True)  # keeps the distances, and their precision if the mean is large
            half = 0.5 * y.square().sum(-1)
            kernel = (y @ y.mT).sub_(half[..., None]).sub_(half[..., None, :]).clamp_max_(0).div_(square).exp_()
            mass = kernel @ w
            totals.append((w.to(wide_dtype(x)) * mass).sum((-2, -1)))
            if needs_gradient:
                grads.append((kernel @ (w * y) - mass * y) * (2 / square * w))
    total = torch.cat(totals)
    return _WithGradient.apply(x, total, torch.cat(grads)) if needs_gradient else total


class _WithGradient(torch.autograd.Function):
    """The ``value`` ``(G)`` of a function of ``x`` ``(G, …)``, whose ``gradient`` is known."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2], output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradient, _ = ctx.saved_tensors
        return gradient * grad.to(gradient.dtype)[:, None, None], None, None

"""Sums over all pairs of samples: each rank takes the pairs of its own rows, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from symplectic_jepa._derivatives import once_differentiable, transforming
from symplectic_jepa._precision import wide_dtype
from symplectic_jepa.distributed import Ranks

_ENTRIES = 2**24  # maximum number of pairs in memory at once

Block = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From rows ``(G, b, d)`` and all rows ``(G, N, d)`` to the sums over their pairs ``(G)`` and `pair_sum`'s gradient."""


def all_rows(x: Tensor, ranks: Ranks) -> Tensor:
    """The rows ``(..., N, D)`` of all ranks, without a gradient. The host waits for the row counts."""
    return ranks.gather(x, ranks.row_counts(x.shape[-2], x.device))


def few_rows(x: Tensor, ranks: Ranks) -> list[int] | None:
    """The row counts of all ranks if these are fewer rows than coordinates, ``N < D``; ``None`` otherwise.

    Pairs of rows are then fewer than pairs of coordinates. A compiled graph cannot wait for the row counts of other
    ranks, so there the answer is ``None``.
    """
    if ranks.shared and torch.compiler.is_compiling():
        return None
    counts = ranks.row_counts(x.shape[-2], x.device)
    return counts if sum(counts) < x.shape[-1] else None


def centred(x: Tensor, everyone: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of this rank and of all ranks, ``(G, ·, D)`` each, minus the mean of all, which is constant to autograd.

    It is subtracted twice: in float32 the first is rounded, which would be an offset as large as some gradients.
    """
    x, everyone = (rows.reshape(-1, *rows.shape[-2:]) for rows in (x, everyone))
    for _ in range(2):
        mean = everyone.mean(-2, keepdim=True)
        x, everyone = x - mean, everyone - mean
    return x, everyone


def pair_sum(x: Tensor, everyone: Tensor, block: Block) -> Tensor:
    """``Σ_n∈x Σ_m k(x_n, x_m)`` of a symmetric ``k``: ``(G, n, d)`` and ``(G, N, d)`` to ``(G)``, float64.

    The gradient at ``x_n`` is that of the sum over the rows of all ranks, ``2 Σ_m ∂₁k(x_n, x_m)``. So after a sum over
    ranks that also sums gradients, value and gradient are exact. Both are computed at once, and no pair is saved.
    """
    needs_gradient = (x.requires_grad and torch.is_grad_enabled()) or transforming()
    values, gradients = [], []
    with torch.no_grad():
        groups = max(1, _ENTRIES // (x.shape[-2] * everyone.shape[-2]))
        for own, other in zip(torch.split(x, groups), torch.split(everyone, groups), strict=True):
            rows = torch.split(own, max(1, _ENTRIES // (len(own) * other.shape[-2])), -2)
            parts = [block(part, other) for part in rows]
            values.append(torch.stack([value for value, _ in parts]).sum(0))
            if needs_gradient:
                gradients.append(torch.cat([gradient for _, gradient in parts], -2))
    value = torch.cat(values)
    return with_gradient(x, value, torch.cat(gradients)) if needs_gradient else value


def squared_products(rows: Tensor, everyone: Tensor) -> tuple[Tensor, Tensor]:
    """`pair_sum` of ``⟨x_n, x_m⟩²``: over all rows it is ``‖X Xᵀ‖² = ‖Xᵀ X‖²``."""
    products = rows @ everyone.mT
    return products.square().sum((-2, -1), dtype=wide_dtype(rows)), 4 * products @ everyone


def with_gradient(x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """The ``value`` ``(G)`` of a function of ``x`` ``(G, …)``, whose ``gradient`` is known."""
    result: Tensor = _WithGradient.apply(x, value, gradient)
    return result


class _WithGradient(torch.autograd.Function):
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

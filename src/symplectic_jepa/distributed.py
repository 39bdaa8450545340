"""The one global sum: statistics of the whole batch, exact under data parallelism."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from symplectic_jepa._precision import wide_dtype as wide_dtype


def world_size() -> int:
    """Number of processes; 1 without an initialised process group. Asked at call time, never stored."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.library.custom_op("symplectic_jepa::all_reduce_sum", mutates_args=())
def _all_reduce_sum(x: Tensor) -> Tensor:
    """Sum over ranks, forward and backward.

    ``dist.all_reduce`` inside the graph is in place and invisible to autograd: every rank would lose the gradient that
    reaches it through the others, and `DistributedDataParallel`, which averages, would leave it too small by the number
    of ranks. Summed in both directions, each rank holds ``W · ∂L/∂θ`` of its own samples and the average is exact.

    It is an operator, and not an autograd function that the compiler looks into: torch 2.11 makes of one a compiled
    graph with the right value and no gradient.
    """
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


@_all_reduce_sum.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _backward(ctx: Any, grad: Tensor) -> Tensor:
    summed: Tensor = _all_reduce_sum(grad)
    return summed


_all_reduce_sum.register_autograd(_backward)


def global_sums(local: Sequence[Tensor], *, sync: bool = True) -> list[Tensor]:
    """Sum each tensor over all ranks, in one collective.

    The tensors travel as one flat vector in the widest of their dtypes (sums and counts are float64 in this package, so
    that 1,027 samples stay 1,027).

    Args:
        local: this rank's sums; shapes must agree between ranks, numbers of samples need not.
        sync: ``False`` returns ``local`` unchanged.

    Returns:
        The sums over ranks, in the order and dtypes of ``local``.
    """
    if not sync or world_size() == 1 or not local:
        return list(local)
    dtype = local[0].dtype
    for x in local[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    flat: Tensor = _all_reduce_sum(torch.cat([x.reshape(-1).to(dtype) for x in local]))
    parts = flat.split_with_sizes([x.numel() for x in local])
    return [part.reshape(x.shape).to(x.dtype) for part, x in zip(parts, local, strict=True)]


def count(samples: int, like: Tensor) -> Tensor:
    """This rank's number of samples, to be summed: a float64 scalar on the device of ``like``."""
    return torch.full((), float(samples), dtype=wide_dtype(like), device=like.device)

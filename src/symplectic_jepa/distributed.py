"""The global sum behind all batch statistics, exact under data parallelism."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional, Union

import torch
import torch.distributed as dist
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._agreement import Comparison
from symplectic_jepa._derivatives import transforming
from symplectic_jepa._precision import wide_dtype

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

Group = Optional[Union["ProcessGroup", "DeviceMesh"]]  # noqa: UP045  (evaluated at run time, and not every torch build has these types)
_c10d: Any = getattr(dist, "distributed_c10d", None)  # absent where PyTorch is built without torch.distributed


@dataclass(frozen=True)
class Ranks:
    """The processes whose samples form one batch. Every collective and every rank query goes through this class.

    The group is stored by name, so that a module that holds it can be copied and compiled.

    Args:
        sync: if ``False``, the samples of this process form a batch by themselves.
        group: name of the process group; ``None`` for the default group.
        member: number of the module whose settings are compared between ranks; 0 compares nothing.
        counters: its counters of random draws, scalars on the CPU, which are compared too.
        empty: this rank has no samples; the row that it computes with stands in for none, and is not gathered.

    Raises:
        ValueError: if ``sync`` or ``empty`` is not a bool.
    """

    sync: bool = True
    group: str | None = None
    member: int = field(default=0, repr=False, compare=False)
    counters: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)
    empty: bool = False

    def __post_init__(self) -> None:
        _checks.boolean("sync", self.sync)
        _checks.boolean("empty", self.empty)

    @classmethod
    def of(cls, sync: bool, process_group: ProcessGroup | DeviceMesh | None) -> Ranks:
        """The ranks of a process group or a one-dimensional device mesh.

        Raises:
            TypeError: if ``process_group`` is anything else, or this rank does not belong to it.
            ValueError: if the mesh has several dimensions.
        """
        if process_group is None:
            return cls(sync)
        group: Any = process_group
        if hasattr(group, "get_group"):
            if group.ndim != 1:
                raise ValueError(f"process_group must be a DeviceMesh with one dimension, mesh['dp'], got {group}")
            group = group.get_group()
        if not isinstance(group, dist.ProcessGroup):
            raise TypeError(
                "process_group must be a ProcessGroup that this rank belongs to, a one-dimensional DeviceMesh, or "
                f"None, got {group!r}"
            )
        return cls(sync, group.group_name)

    @property
    def process_group(self) -> ProcessGroup | None:
        """The group itself; ``None`` for the default one."""
        return None if self.group is None else _c10d._resolve_process_group(self.group)

    @property
    def size(self) -> int:
        """Number of processes; 1 without an initialised process group. Evaluated at call time, never stored."""
        if not (self.sync and dist.is_available() and dist.is_initialized()):
            return 1
        if self.group is None:
            return dist.get_world_size()
        size: int = _c10d._get_group_size_by_name(self.group)  # torch.compile can trace this one
        return size

    @property
    def shared(self) -> bool:
        """Whether other processes also hold samples of this batch."""
        return self.size > 1

    @property
    def rank(self) -> int:
        """Rank of this process in the group."""
        return dist.get_rank(self.process_group) if self.shared else 0

    def sum(self, local: Sequence[Tensor]) -> list[Tensor]:
        """Sum each tensor over all ranks with one collective.

        The tensors are sent as one flat vector in float64, where the device has it, so that 1,027 samples stay 1,027.

        Args:
            local: this rank's sums. Shapes must agree between ranks; numbers of samples may differ.

        Returns:
            The sums over ranks, in the order and dtypes of ``local``.

        Raises:
            RuntimeError: on every rank, if the settings or the random draws of ``member`` differ between ranks.
        """
        if not self.shared or not local:
            return list(local)
        dtype = wide_dtype(local[0])
        flat = torch.cat([x.reshape(-1).to(dtype) for x in local])
        lengths = [x.numel() for x in local]
        reduce = _Transformed.apply if transforming() else _all_reduce_sum
        total: Tensor = reduce(flat, list(self.counters), self.group or "", self.member, lengths)
        parts = total.split_with_sizes(lengths)
        return [part.reshape(x.shape).to(x.dtype) for part, x in zip(parts, local, strict=True)]

    def row_counts(self, rows: int, device: torch.device) -> list[int]:
        """The numbers of rows on each rank, by a small collective that the host waits for."""
        if not self.shared:
            return [rows]
        own = torch.zeros(self.size, dtype=torch.int64, device=device)
        own[self.rank] = 0 if self.empty else rows
        counts: list[int] = self.sum([own])[0].tolist()
        return counts

    def gather(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows ``(..., N, D)`` of all ranks, in their order and without a gradient, with one collective.

        Args:
            x: this rank's rows ``(..., n, D)``; ``n`` may differ between ranks.
            counts: the number of rows on each rank, from `row_counts`.
        """
        x = x.detach()
        if not self.shared:
            return x
        rows = x.movedim(-2, 0)[: counts[self.rank]]
        padded = torch.cat((rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])))
        parts: Tensor = _all_gather(padded, self.group or "", self.size)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]).movedim(0, -2)


@torch.library.custom_op(
    "symplectic_jepa::all_reduce_sum",
    mutates_args=(),
    schema="(Tensor x, Tensor[] counters, str group, int member, SymInt[] lengths) -> Tensor",
)
def _all_reduce_sum(x: Tensor, counters: list[Tensor], group: str, member: int, lengths: list[int]) -> Tensor:
    """Sum over the ranks of a group (by name; empty for the default one), forward and backward.

    ``dist.all_reduce`` works in place and is invisible to autograd: every rank would lose the gradient that reaches it
    through the others, and since `DistributedDataParallel` averages, the result would be too small by the number of
    ranks. Summed in both directions, each rank holds ``W · ∂L/∂θ`` of its own samples and the average is exact.

    This is a custom operator because torch 2.11 compiles the equivalent autograd function into a graph with the right
    value and no gradient. It also lets a compiled graph compare the ranks, see `Comparison`; ``member`` and
    ``counters`` are those of `Ranks`.
    """
    ranks = Ranks(group=group or None).process_group
    if not member:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ranks)
        return total
    comparison = Comparison(member, lengths, [int(counter) for counter in counters], ranks)
    comparison.before(x.device)
    total = torch.cat((x, x.new_full((1,), comparison.digest)))
    dist.all_reduce(total, group=ranks)
    return comparison.after(total)


@_all_reduce_sum.register_fake
def _(x: Tensor, counters: list[Tensor], group: str, member: int, lengths: list[int]) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep_group(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, counters, ctx.group, *_ = inputs
    ctx.counters = len(counters)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _all_reduce_sum(grad, [], ctx.group, 0, []), [None] * ctx.counters, None, None, None


_all_reduce_sum.register_autograd(_backward, setup_context=_keep_group)


class _Transformed(torch.autograd.Function):
    """`_all_reduce_sum` for the transforms of ``torch.func``, which cannot differentiate a custom operator."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, counters: list[Tensor], group: str, member: int, lengths: list[int]) -> Tensor:
        total: Tensor = _all_reduce_sum(x, counters, group, member, lengths)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _keep_group(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _Transformed.apply(grad, [], ctx.group, 0, []), None, None, None, None


@torch.library.custom_op("symplectic_jepa::all_gather", mutates_args=())
def _all_gather(x: Tensor, group: str, size: int) -> Tensor:
    """The tensors of all ranks, ``(size, ...)``; an operator because ``torch.func`` passes wrapped tensors."""
    parts = x.new_empty(size, *x.shape)
    dist.all_gather(list(parts), x.contiguous(), group=Ranks(group=group or None).process_group)
    return parts


@_all_gather.register_fake
def _(x: Tensor, group: str, size: int) -> Tensor:
    return x.new_empty(size, *x.shape)


def count(samples: int, like: Tensor) -> Tensor:
    """This rank's number of samples as a summable float64 scalar on the device of ``like``."""
    return torch.full((), float(samples), dtype=wide_dtype(like), device=like.device)

"""The base class of regularizers: a scalar that is a function of sums over the global batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision
from symplectic_jepa.distributed import Group as Group
from symplectic_jepa.distributed import Ranks
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.regularizers._ranked import Ranked
from symplectic_jepa.regularizers.draws import set_step


class Measured(NamedTuple):
    """A scalar to minimise, and named statistics for logging."""

    value: Tensor
    statistics: dict[str, Tensor]


class Reduction(NamedTuple):
    """This rank's sums, and a function that maps their totals over all ranks to the result."""

    sums: list[Tensor]
    finish: Callable[[list[Tensor]], Measured]


def reduce_all(reductions: Sequence[Reduction], ranks: Ranks) -> list[Measured]:
    """Finish several reductions with a single collective; statistics are detached.

    Raises:
        TypeError: if a value or a statistic is not a floating-point tensor.
        ValueError: if one is not a scalar.
    """
    totals = iter(ranks.sum([x for reduction in reductions for x in reduction.sums]))
    measured = [reduction.finish([next(totals) for _ in reduction.sums]) for reduction in reductions]
    for value, statistics in measured:
        for name, scalar in {"the value": value, **statistics}.items():
            if _checks.floating(f"{name} of a regularizer", scalar).ndim:
                raise ValueError(f"{name} of a regularizer must be a scalar tensor, got shape {tuple(scalar.shape)}")
    return [Measured(value, {k: x.detach() for k, x in statistics.items()}) for value, statistics in measured]


def one_row(x: Tensor) -> Tensor:
    """One row of ones for empty ``(..., 0, D)``: the code of a rank without samples runs on it, for `nothing`."""
    return F.pad(x, (0, 0, 0, 1), value=1.0)


def nothing(reduction: Reduction) -> Reduction:
    """The contribution of a rank without samples: zeros, also as gradients."""
    return Reduction([0 * x for x in reduction.sums], reduction.finish)


class BatchRegularizer(Ranked, Pretrained, nn.Module, ABC):
    """A scalar of samples ``(..., N, D)`` that is exact under data parallelism; leading dimensions are averaged.

    Subclasses implement `reduction`. An objective sums the reductions of all its penalties in one collective, with
    `reduce_all`, and then calls every ``finish``. Any other module from ``(..., N, D)`` to a scalar also works in an
    objective, on the local batch.

    In eval mode no rank waits for another: statistics are those of the local batch, as in ``SyncBatchNorm``. For those
    of the global batch without gradients, call it in train mode under ``torch.no_grad()``, on every rank. A rank may
    have no samples, ``N = 0``, if another has some.

    Args:
        sync: use statistics of the global batch if ``torch.distributed`` is initialised; ``False`` uses the local one.
        process_group: the ranks that share the batch, as a process group or a one-dimensional device mesh; by default
            all ranks. Inside an objective, its ``sync`` and ``process_group`` take precedence.

    Examples:
        >>> import torch
        >>> from symplectic_jepa.regularizers import Measured, Reduction
        >>> class UnitNorm(BatchRegularizer):
        ...     def reduction(self, x, ranks):
        ...         n, norm = torch.tensor(x.shape[-2]), x.norm(dim=-1).sum(-1)  # to be summed over ranks
        ...         def finish(sums):
        ...             mean = sums[1] / sums[0]
        ...             return Measured((mean - 1).square().mean(), {"norm": mean.mean()})
        ...         return Reduction([n, norm], finish)
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> UnitNorm()(x), UnitNorm().measure(x).statistics
        (tensor(4.), {'norm': tensor(3.)})
    """

    if TYPE_CHECKING:
        __call__: Callable[..., Tensor]

    def __init__(self, *, sync: bool = True, process_group: Group = None) -> None:
        super().__init__(sync=sync, process_group=process_group)

    @abstractmethod
    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Local sums of ``(..., N, D)`` in float32 or better, and a function of their totals over ``ranks``."""

    def set_step(self, step: int | None) -> None:
        """Draw for training step ``step`` until the next call, instead of counting forward passes; see `set_step`.

        Raises:
            ValueError: if ``step`` is neither ``None`` nor an int >= 0.
        """
        set_step(self, step)

    def forward(self, x: Tensor, **given: Tensor | None) -> Tensor:
        """Map ``(..., N, D)`` to a scalar, averaged over leading dimensions.

        Args:
            x: samples.
            given: further arguments of a subclass's `reduction`, such as the ``directions`` of `SIGReg`.

        Raises:
            TypeError: if ``x`` is not a floating-point tensor.
            ValueError: if it has fewer than two dimensions, or too few samples for the statistic.
            RuntimeError: on every rank, if settings or random draws differ between the ranks that share the batch.
        """
        return self.measure(x, **given).value

    @full_precision
    def measure(self, x: Tensor, /, **given: Tensor | None) -> Measured:
        """The scalar and its statistics, which are detached and stay on the device; arguments as for `forward`."""
        ranks = self.batch_ranks
        return reduce_all([contribution(self, x, ranks, **given)], ranks)[0]


def contribution(regularizer: BatchRegularizer, x: Tensor, ranks: Ranks, **given: Tensor | None) -> Reduction:
    """The regularizer's reduction of ``(..., N, D)``, where this rank may have no samples if another has some."""
    if x.ndim > 1 and x.shape[-2] == 0 and ranks.shared:
        return nothing(regularizer.reduction(one_row(x), replace(ranks, empty=True), **given))
    return regularizer.reduction(x, ranks, **given)

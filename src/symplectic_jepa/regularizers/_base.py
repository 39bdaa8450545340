"""What the regularizers share: a scalar that is a function of sums over the global batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from symplectic_jepa._precision import full_precision
from symplectic_jepa.distributed import global_sums, world_size
from symplectic_jepa.pretrained import Pretrained


class Reduction(NamedTuple):
    """Half of a computation: this rank's sums, and what to make of the sums over all ranks."""

    sums: list[Tensor]
    finish: Callable[[list[Tensor]], Tensor]


def complete(reductions: Sequence[Reduction], *, sync: bool = True) -> list[Tensor]:
    """Finish several reductions with one collective for all of them."""
    totals = iter(global_sums([x for reduction in reductions for x in reduction.sums], sync=sync))
    return [reduction.finish([next(totals) for _ in reduction.sums]) for reduction in reductions]


class BatchRegularizer(Pretrained, nn.Module, ABC):
    """A scalar of samples ``(..., N, D)`` that is exact under data parallelism.

    Subclasses implement `reduction`; leading dimensions are averaged. A regularizer without it, any module from
    ``(..., N, D)`` to a scalar, works in the objectives too, on the local batch.

    Args:
        sync: statistics of the global batch when ``torch.distributed`` is initialised; ``False``: of the local one.
    """

    def __init__(self, *, sync: bool = True) -> None:
        super().__init__()
        self.sync = sync
        self.statistics: dict[str, Tensor] = {}

    @abstractmethod
    def reduction(self, x: Tensor) -> Reduction:
        """Local sums of ``(..., N, D)`` in float32 or better, and the scalar that follows from the global ones."""

    @property
    def shared(self) -> bool:
        """Whether other ranks have samples of this batch too. Asked at call time, never stored."""
        return self.sync and world_size() > 1

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """``(..., N, D)`` to a scalar, the mean over leading dimensions.

        Raises:
            TypeError: if ``x`` is not floating.
            ValueError: if it has fewer than two dimensions, or too few samples for the statistic.
        """
        return complete([self.reduction(x)], sync=self.sync)[0]

"""What the regularizers share: a scalar that is a function of sums over the global batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

from torch import Tensor, nn

from symplectic_jepa._precision import full_precision
from symplectic_jepa.distributed import Ranked, Ranks
from symplectic_jepa.pretrained import Pretrained

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

Group = Optional[Union["ProcessGroup", "DeviceMesh"]]  # noqa: UP045  (evaluated, and not every torch has them)


class Measured(NamedTuple):
    """A scalar to minimise, and the scalars behind it by name, for logging."""

    value: Tensor
    statistics: dict[str, Tensor]


class Reduction(NamedTuple):
    """Half of a computation: this rank's sums, and what to make of the sums over all ranks."""

    sums: list[Tensor]
    finish: Callable[[list[Tensor]], Measured]


def reduce_all(reductions: Sequence[Reduction], ranks: Ranks) -> list[Measured]:
    """Finish several reductions with one collective for all of them; their statistics are detached.

    Raises:
        ValueError: if a value or a statistic is not a scalar.
    """
    totals = iter(ranks.sum([x for reduction in reductions for x in reduction.sums]))
    measured = [reduction.finish([next(totals) for _ in reduction.sums]) for reduction in reductions]
    for value, statistics in measured:
        for name, scalar in {"the value": value, **statistics}.items():
            if scalar.ndim:
                raise ValueError(f"{name} of a regularizer must be a scalar tensor, got shape {tuple(scalar.shape)}")
    return [Measured(value, {k: x.detach() for k, x in statistics.items()}) for value, statistics in measured]


class BatchRegularizer(Ranked, Pretrained, nn.Module, ABC):
    """A scalar of samples ``(..., N, D)`` that is exact under data parallelism; leading dimensions are averaged.

    Subclasses implement `reduction`. An objective adds up the sums of all its penalties in one collective, with
    `reduce_all`, and then calls every ``finish``. A regularizer without it, any module from ``(..., N, D)`` to a
    scalar, works in the objectives too, on the local batch.

    Args:
        sync: statistics of the global batch when ``torch.distributed`` is initialised; ``False``: of the local one.
        process_group: the ranks that share the batch, as a process group or a one-dimensional device mesh; by default
            all of them. Inside an objective the objective's ``sync`` and ``process_group`` count instead.

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
        super().__init__()
        self.ranks = Ranks.of(sync, process_group)

    @abstractmethod
    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Local sums of ``(..., N, D)`` in float32 or better, and what follows from those over ``ranks``."""

    def forward(self, x: Tensor, **given: Tensor | None) -> Tensor:
        """``(..., N, D)`` to a scalar, the mean over leading dimensions.

        Args:
            x: samples.
            given: further arguments of a subclass's `reduction`, such as the ``directions`` of `SIGReg`.

        Raises:
            TypeError: if ``x`` is not floating.
            ValueError: if it has fewer than two dimensions, or too few samples for the statistic.
        """
        return self.measure(x, **given).value

    @full_precision
    def measure(self, x: Tensor, /, **given: Tensor | None) -> Measured:
        """The scalar and the statistics behind it, these detached and on the device; arguments as for `forward`."""
        return reduce_all([self.reduction(x, self.ranks, **given)], self.ranks)[0]

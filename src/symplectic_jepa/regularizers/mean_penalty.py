"""A penalty on the mean of the features."""

from __future__ import annotations

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Measured, Reduction


class MeanPenalty(BatchRegularizer):
    r"""``mean_i (mean_b x_bi)²`` [paper, appendix F.8].

    Args:
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.
    """

    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Sums of ``N`` and ``x``; see `BatchRegularizer`."""
        n = _checks.samples("x", x).shape[-2]

        def finish(sums: list[Tensor]) -> Measured:
            total, first = sums
            penalty = (first / total.to(x.dtype)).square().mean()
            return Measured(penalty, {"mean_square": penalty})

        return Reduction([count(n, x), x.sum(-2)], finish)

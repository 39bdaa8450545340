"""Features centred at zero."""

from __future__ import annotations

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.distributed import count
from symplectic_jepa.regularizers._base import BatchRegularizer, Reduction


class MeanPenalty(BatchRegularizer):
    r"""``mean_i (mean_b x_bi)²`` [paper, appendix F.8].

    Args:
        sync: see `BatchRegularizer`.
    """

    def reduction(self, x: Tensor) -> Reduction:
        """Sums of ``N`` and ``x``; see `BatchRegularizer`."""
        n = _checks.samples("x", x).shape[-2]

        def finish(sums: list[Tensor]) -> Tensor:
            total, first = sums
            penalty = (first / total.to(x.dtype)).square().mean()
            self.statistics = {"mean_square": penalty.detach()}
            return penalty

        return Reduction([count(n, x), x.sum(-2)], finish)

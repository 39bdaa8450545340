"""Features centred at zero."""

from __future__ import annotations

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision


class MeanPenalty(nn.Module):
    r"""``mean_i (mean_b x_bi)²`` [paper, appendix F.8]."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics: dict[str, Tensor] = {}

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """``(..., N, D)`` to a scalar, the mean over coordinates and leading dimensions."""
        penalty = _checks.samples("x", x).mean(-2).square().mean()
        self.statistics = {"mean_square": penalty.detach()}
        return penalty

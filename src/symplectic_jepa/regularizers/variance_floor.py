"""A floor for the standard deviation of every coordinate."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction
from symplectic_jepa.regularizers.covariance import shifted


class VarianceFloor(BatchRegularizer):
    r"""``mean_i relu(σ_min − sqrt(var_i + ε))²``, biased variance over the batch [paper, appendix F.8].

    Args:
        floor: floor ``σ_min``.
        eps: offset ``ε``, which keeps the gradient of the root finite at zero variance.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    Raises:
        ValueError: if ``floor`` or ``eps`` is not positive and finite.
    """

    def __init__(
        self, floor: float = 0.2, *, eps: float = 1e-4, sync: bool = True, process_group: Group = None
    ) -> None:
        super().__init__(sync=sync, process_group=process_group)
        self.floor = _checks.finite("floor", floor, minimum=0.0, exclusive=True)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)

    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Sums of ``N``, ``x`` and ``x²``; see `BatchRegularizer`."""
        n = _checks.samples("x", x, minimum=1 if ranks.shared else 2).shape[-2]
        samples = shifted(x)

        def finish(sums: list[Tensor]) -> Measured:
            total, first, square = sums
            var = (square / total - (first / total).square()).clamp_min(0)
            std = (var + self.eps).sqrt().to(x.dtype)
            return Measured(torch.relu(self.floor - std).square().mean(), {"std": std.mean()})

        return Reduction([count(n, x), samples.first(ranks), samples.squares(ranks)], finish)

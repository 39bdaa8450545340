"""A target for the mean square of the features."""

from __future__ import annotations

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction


class EnergyBudget(BatchRegularizer):
    r"""``(mean(x²) − τ)²`` over samples and coordinates [paper, eq. 33].

    Symplecticity does not prevent an encoder from shrinking every view to a point; this does. On its own it allows
    rank 1 (lemma A.9).

    Args:
        target: target ``τ`` for the mean square of a coordinate.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    Raises:
        ValueError: if ``target`` is not positive and finite.
    """

    def __init__(self, target: float = 1.0, *, sync: bool = True, process_group: Group = None) -> None:
        super().__init__(sync=sync, process_group=process_group)
        self.target = _checks.finite("target", target, minimum=0.0, exclusive=True)

    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Sums of ``N`` and of ``x²``; see `BatchRegularizer`."""
        n, dim = _checks.samples("x", x).shape[-2:]

        def finish(sums: list[Tensor]) -> Measured:
            total, square = sums
            energy = square / (total * dim).to(x.dtype)
            return Measured((energy - self.target).square().mean(), {"energy": energy.mean()})

        return Reduction([count(n, x), x.square().sum((-2, -1))], finish)

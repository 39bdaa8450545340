"""Scale in fixed units."""

from __future__ import annotations

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision


class EnergyBudget(nn.Module):
    r"""``(mean(x²) − τ)²`` over samples and coordinates [paper, eq. 33].

    Symplecticity does not stop an encoder from shrinking every view to a point; this does. Alone it allows rank 1
    (lemma A.9).

    Args:
        target: ``τ``, the mean square of a coordinate.

    Raises:
        ValueError: if ``target`` is not positive and finite.
    """

    def __init__(self, target: float = 1.0) -> None:
        super().__init__()
        self.target = _checks.finite("target", target, minimum=0.0, exclusive=True)
        self.statistics: dict[str, Tensor] = {}

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """``(..., N, D)`` to a scalar, the mean over leading dimensions."""
        energy = _checks.samples("x", x).square().mean((-2, -1))
        self.statistics = {"energy": energy.detach().mean()}
        return (energy - self.target).square().mean()

"""What a predictor is."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.state import join_state, split_state


class Predictor(Pretrained, nn.Module):
    """A map ``ẑ = Φ_{±h}^S(z)``; subclasses implement ``forward(z, *, direction=1)`` [paper, eq. 28].

    Args:
        dt: step size ``h > 0``; the direction carries the sign.
        steps: number of steps ``S``.
        learn_dt: learn ``h = softplus(θ)``, starting at ``dt``. Not for a JEPA matching loss, which ``h → 0``
            minimises (`HamJEPAObjective` refuses it); for fitting observed trajectories.

    Raises:
        ValueError: if ``dt`` is not positive and finite, or ``steps < 1``.
    """

    def __init__(self, *, dt: float, steps: int, learn_dt: bool = False) -> None:
        super().__init__()
        self._dt = _checks.finite("dt", dt, minimum=0.0, exclusive=True)
        self.steps = _checks.positive_int("steps", steps)
        # softplus⁻¹(h) = log(eʰ − 1)
        self.raw_dt = nn.Parameter(torch.tensor(math.log(math.expm1(dt)))) if learn_dt else None

    @property
    def learn_dt(self) -> bool:
        """Whether the step size is learned."""
        return self.raw_dt is not None

    def config(self) -> dict[str, Any]:
        """See `Pretrained.config`; ``dt`` is the one that a learned step size started from."""
        return {key: self._dt if key == "dt" else value for key, value in super().config().items()}

    @property
    def mixes_directions(self) -> bool:
        """Whether ``direction`` may be a tensor, some states forward in time and some in reverse in one call."""
        return False

    @property
    def dt(self) -> float | Tensor:
        """The step size: a float, or a scalar tensor when it is learned."""
        return self._dt if self.raw_dt is None else F.softplus(self.raw_dt)

    def forward(self, z: Tensor, *, direction: int | Tensor = 1) -> Tensor:
        """Predict the other view's state: ``(..., 2d)`` to ``(..., 2d)``."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward(z, *, direction)")

    def flow(self, q: Tensor, p: Tensor, *, direction: int | Tensor = 1) -> tuple[Tensor, Tensor]:
        """The same map on the two halves of the state apart: ``(..., d)`` twice to ``(..., d)`` twice.

        ``direction`` may be a tensor of 1 and −1, ``(..., 1)``, where `mixes_directions`.
        """
        return split_state(self(join_state(q, p), direction=direction))

    def _signed_dt(self, direction: int | Tensor, like: Tensor) -> float | Tensor:
        if isinstance(direction, Tensor) and self.mixes_directions:
            return direction.to(like.dtype) * self.dt
        if isinstance(direction, Tensor) or direction not in (1, -1):
            raise ValueError(f"direction must be 1 (forward time) or -1 (reverse time), got {direction!r}")
        return direction * self.dt

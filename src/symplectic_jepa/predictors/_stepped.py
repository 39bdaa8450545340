"""Predictors with a step size and a number of steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import at_full_precision
from symplectic_jepa._sharding import scattered
from symplectic_jepa.predictors._base import Direction, Predictor, check_direction


class SteppedPredictor(Predictor):
    """``ẑ = Φ_{±h}^S(z)``: ``S`` steps of size ``h``; subclasses implement `roll_out` [paper, eq. 28].

    Args:
        dt: step size ``h > 0``; the direction determines its sign.
        steps: number of steps ``S``.
        learn_dt: learn ``h = softplus(θ)``, starting at ``dt``, to fit observed trajectories. `HamJEPAObjective`
            rejects it, because ``h → 0`` minimises a JEPA matching loss.

    Raises:
        ValueError: if ``dt`` is not positive and finite, or ``steps < 1``.
    """

    def __init__(self, *, dt: float, steps: int, learn_dt: bool = False) -> None:
        super().__init__()
        self._dt = _checks.finite("dt", dt, minimum=0.0, exclusive=True)
        self.steps = _checks.positive_int("steps", steps)
        raw = torch.tensor(dt + math.log(-math.expm1(-dt)))  # softplus⁻¹(h) = log(eʰ − 1), without overflow
        self.raw_dt = nn.Parameter(raw) if _checks.boolean("learn_dt", learn_dt) else None

    @property
    def dt(self) -> float | Tensor:
        """The step size: a float, or a scalar tensor if it is learned."""
        return self._dt if self.raw_dt is None else F.softplus(self.raw_dt)

    def config(self) -> dict[str, Any]:
        """See `Pretrained.config`; for a learned step size, ``dt`` is its initial value."""
        return {name: self._dt if name == "dt" else value for name, value in super().config().items()}

    @property
    def learn_dt(self) -> bool:
        """Whether the step size is a parameter."""
        return self.raw_dt is not None

    @property
    def dt_per_state(self) -> bool:
        """Whether `roll_out` accepts one step size per state, so that both directions fit in one call."""
        return False

    @abstractmethod
    def roll_out(
        self, q: Tensor, p: Tensor, *, dt: float | Tensor, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``steps`` steps of the signed size ``dt``, in float32 or better: ``(..., d)`` twice to ``(..., d)`` twice.

        ``dt`` is a float, a scalar tensor if it is learned, or ``(n, 1, …, 1)`` if `dt_per_state`.
        """

    def flow(
        self, q: Tensor, p: Tensor, *, direction: Direction = 1, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take the steps, forward or in reverse time: ``(..., d)`` twice to ``(..., d)`` twice; see `Predictor`.

        Raises:
            ValueError: if ``direction`` is invalid, ``q`` and ``p`` differ in shape, or are on another device than the
                weights.
            TypeError: if a state is not floating-point, a ``control`` is given to a map that takes none, or a parameter
                is sharded (FSDP2) and not gathered.
        """
        _checks.states(q, p, control)
        self._check_gathered()
        self._check_device(q)
        signs = check_direction(direction, q)
        if not isinstance(signs, int) and not self.dt_per_state:
            return self.each_direction(q, p, direction=signs, control=control)

        def roll_out(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            return self.roll_out(q, p, dt=self._signed_dt(signs, q), control=control)

        q, p = at_full_precision(roll_out, q, p)
        return q, p

    def _check_device(self, q: Tensor) -> None:
        """Refuse states that are not where the weights are; eager, because a compiled graph is already traced there."""
        if torch.compiler.is_compiling():
            return
        weight = next((x for x in self.parameters() if x.ndim), q)
        if weight.device != q.device:
            raise ValueError(
                f"states z = [q | p] must be on the device of the weights, {weight.device}, got {q.device}"
            )

    def check_matching(self) -> None:
        """Reject a learned step size, which a matching loss drives to 0.

        Raises:
            ValueError: if the step size is learned.
        """
        if self.learn_dt:
            raise ValueError("predictor must have a fixed dt, got learn_dt=True: dt -> 0 minimises the matching loss")

    def _check_gathered(self) -> None:
        if (found := scattered(self)) is not None:
            raise TypeError(
                f"{found[0]} must be gathered before the predictor runs, got a {type(found[1]).__name__}: call "
                "fully_shard on the model, the objective, the predictor or its Hamiltonian, not on a smaller part"
            )

    def _signed_dt(self, signs: int | tuple[int, ...], like: Tensor) -> float | Tensor:
        dt = self.dt
        if isinstance(signs, int):
            return signs * dt
        # Fill on the device: a CUDA graph cannot capture copying a tensor of Python numbers from the host.
        signed = [like.new_full((), s * dt) if isinstance(dt, float) else (s * dt).to(like.dtype) for s in signs]
        return torch.stack(signed).reshape(-1, *(1 for _ in like.shape[1:]))

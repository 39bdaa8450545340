"""The interface of a predictor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._sharding import Gathering
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.state import join_state, split_state

Direction = int | Sequence[int]
"""1, −1, or a sequence of these with one entry per index of the first dimension."""


class Predictor(Gathering, Pretrained, nn.Module, ABC):
    """A map ``ẑ = Φ_±(z)`` from one view's state to the other's; subclasses implement `flow` [paper, eq. 28].

    Any map works; it needs no step size. If it handles only one direction per call, it can pass others to
    `each_direction`. An objective calls `flow`, so hooks on the predictor itself do not run there; hooks on the modules
    that `flow` calls do.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import HamJEPAObjective
        >>> class TwoMatrices(Predictor):
        ...     def __init__(self, dim):
        ...         super().__init__()
        ...         self.ahead, self.back = torch.nn.Linear(2 * dim, 2 * dim), torch.nn.Linear(2 * dim, 2 * dim)
        ...     def flow(self, q, p, *, direction=1, control=None):
        ...         if direction not in (1, -1):
        ...             return self.each_direction(q, p, direction=direction, control=control)
        ...         layer = self.ahead if direction == 1 else self.back
        ...         return layer(torch.cat((q, p), -1)).chunk(2, -1)
        >>> loss, _ = HamJEPAObjective(TwoMatrices(4))(torch.randn(2, 16, 8))
        >>> loss.shape
        torch.Size([])
    """

    _gathers: ClassVar[tuple[str, ...]] = ("flow", "energy")

    if TYPE_CHECKING:
        __call__: Callable[..., Tensor]

    @abstractmethod
    def flow(
        self, q: Tensor, p: Tensor, *, direction: Direction = 1, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict the other view's state, given in halves.

        Args:
            q: positions, ``(..., d)``.
            p: momenta, ``(..., d)``.
            direction: 1 (forward time), −1 (reverse time), or a sequence of these with one entry per index of the
                first dimension, such as ``(1, -1)`` for two stacked views.
            control: control input ``u``, ``(..., m)``, for a map that takes one.

        Returns:
            ``(q, p)``, each ``(..., d)``.
        """

    def forward(self, z: Tensor, *, direction: Direction = 1, control: Tensor | None = None) -> Tensor:
        """`flow` on flat states: ``(..., 2d)`` to ``(..., 2d)``.

        Raises:
            TypeError: if ``z`` is not a floating-point tensor.
            ValueError: if ``direction`` is invalid, or ``z`` has an odd last dimension.
        """
        return join_state(*self.flow(*split_state(z), direction=direction, control=control))

    def rollout(
        self, z: Tensor, controls: Tensor | None = None, *, steps: int | None = None, direction: int = 1
    ) -> Tensor:
        """Predict several frames, each from the one before: ``(..., 2d)`` to ``(T, ..., 2d)``.

        A frame is one `forward` and costs the same. ``rollout(z, u)[t]`` is the state after the inputs ``u[0] … u[t]``.

        Args:
            z: the first state, which is not part of the result.
            controls: control inputs ``(T, ..., m)``, one per frame.
            steps: number of frames ``T``; may be left out if ``controls`` are given.
            direction: 1 (forward time) or −1 (reverse time).

        Raises:
            ValueError: if neither ``controls`` nor ``steps`` is given, they disagree, or ``direction`` is not ±1.
            TypeError: if ``controls`` is not a floating-point tensor.
        """
        if controls is not None and _checks.floating("controls", controls).ndim < 2:
            raise ValueError(f"controls must have shape (T, ..., m), got {tuple(controls.shape)}")
        if steps is None:
            if controls is None:
                raise ValueError("steps must be given without controls, got None")
            steps = len(controls)
        _checks.positive_int("steps", steps)
        if controls is not None and len(controls) != steps:
            raise ValueError(f"controls must have {steps} frames (steps), got {len(controls)}")
        if not _is_sign(direction):
            raise ValueError(f"direction must be 1 or -1, got {direction!r}")
        q, p = split_state(z)
        frames = []
        for control in [None] * steps if controls is None else controls:
            q, p = self.flow(q, p, direction=direction, control=control)
            frames.append(join_state(q, p))
        return torch.stack(frames)

    def each_direction(
        self, q: Tensor, p: Tensor, *, direction: Direction, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Call `flow` once for every index of the first dimension, each in its own direction.

        Raises:
            TypeError: if a state or ``control`` is not a floating-point tensor.
            ValueError: if ``direction`` is invalid, or ``q`` and ``p`` differ in shape.
        """
        _checks.states(q, p, control)
        signs = check_direction(direction, q)
        if isinstance(signs, int):
            return self.flow(q, p, direction=signs, control=control)
        controls: Sequence[Tensor | None] = [control] * len(signs)
        if isinstance(control, Tensor) and control.ndim == q.ndim:  # one per index, or one for all
            controls = control.expand(len(signs), *control.shape[1:]).unbind()
        ends = [self.flow(q[i], p[i], direction=signs[i], control=u) for i, u in enumerate(controls)]
        return torch.stack([q for q, _ in ends]), torch.stack([p for _, p in ends])

    @property
    def takes_control(self) -> bool:
        """Whether the map takes a control, which must then be passed to the objective."""
        return False

    def check_matching(self) -> None:
        """Raise a ValueError if a matching loss has a trivial minimum; by default it has none."""


def check_direction(direction: Direction, q: Tensor) -> int | tuple[int, ...]:
    """Return ``direction`` as an int or a tuple of ints if it is valid for states like ``q``."""
    if isinstance(direction, (tuple, list)):
        if all(map(_is_sign, direction)) and q.ndim > 1 and len(direction) == q.shape[0]:
            return tuple(direction)
    elif isinstance(direction, int) and _is_sign(direction):
        return direction
    raise ValueError(
        "direction must be 1 (forward time), -1 (reverse time), or a sequence of these, one per index of the "
        f"first dimension of states {tuple(q.shape)}, got {_checks.shown(direction)}"
    )


def _is_sign(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in (1, -1)

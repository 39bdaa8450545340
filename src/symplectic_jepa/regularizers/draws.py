"""Random projections and directions as a function of (seed, step): equal on every rank, resumable, explicit."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks

Draw = Callable[[int, int, torch.Generator, torch.dtype], Tensor]


def orthonormal_projection(dim: int, k: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """``R`` of shape ``(dim, k)`` with orthonormal columns, from the QR of a Gaussian, on the generator's device."""
    gaussian = torch.randn(dim, k, generator=generator, device=generator.device)
    q: Tensor = torch.linalg.qr(gaussian.to(dtype)).Q
    return q


def unit_directions(dim: int, k: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """``A`` of shape ``(dim, k)`` with unit columns, uniform on the sphere, on the generator's device."""
    gaussian = torch.randn(dim, k, generator=generator, device=generator.device).to(dtype)
    return F.normalize(gaussian, dim=0)


class Schedule(nn.Module):
    """Hands out random matrices that depend on the seed and a step counter only.

    One call is one step. The matrix stays the same for ``every`` steps, is the same on every rank (on devices of one
    kind), and goes on after a resume: the counter is in ``state_dict``. In eval mode the counter stands still.

    Args:
        draw: `orthonormal_projection` or `unit_directions`.
        seed: the user's seed, at least 0.
        every: redraw after this many steps.

    Raises:
        ValueError: if ``every < 1`` or ``seed < 0``.
    """

    def __init__(self, draw: Draw, *, seed: int, every: int) -> None:
        super().__init__()
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be an int >= 0, got {seed!r}")
        self.draw = draw
        self.seed = seed
        self.every = _checks.positive_int("every", every)
        self.step = 0
        self._last: tuple[object, Tensor] | None = None

    def forward(self, dim: int, k: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return this step's ``(dim, k)`` matrix, and count the step when training.

        Raises:
            RuntimeError: inside ``torch.compile``, where a host-side draw would be frozen into the graph.
        """
        if torch.compiler.is_compiling():
            raise RuntimeError(
                "a compiled regularizer needs its random matrix from outside: pass projection= or directions= "
                "(made by .schedule(dim, k, dtype=…, device=…) before the compiled call)"
            )
        index = self.step // self.every
        self.step += self.training
        key = (index, self.seed, dim, k, dtype, device)
        if self._last is None or self._last[0] != key:
            # A new tensor, never a copy into the old one, which a pending backward pass may still need.
            # The odd multiplier keeps the streams of neighbouring seeds apart.
            state = (self.seed * 0x9E3779B97F4A7C15 + index) % 2**63
            generator = torch.Generator(device).manual_seed(state)
            with torch.inference_mode(False), torch.no_grad():
                self._last = (key, self.draw(dim, k, generator, dtype))
        return self._last[1]

    def get_extra_state(self) -> Tensor:
        """The step counter, for ``state_dict``."""
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from the step of a ``state_dict``."""
        self.step = int(state)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"{self.draw.__name__}, seed={self.seed}, every={self.every}"

"""Random projections and directions as a function of (seed, step): equal on every rank and resumable."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks


def orthonormal_projection(dim: int, k: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """``R`` of shape ``(dim, k)`` with orthonormal columns, from the QR of a Gaussian, on the generator's device.

    Raises:
        TypeError: if ``generator`` is not a generator, or ``dtype`` not a floating-point dtype.
        ValueError: if ``dim`` or ``k`` is not an int of at least 1, or ``k > dim``.
    """
    _check_draw(dim, k, generator, dtype)
    if k > dim:
        raise ValueError(f"k must be at most dim = {dim} for orthonormal columns, got {k}")
    gaussian = torch.randn(dim, k, generator=generator, device=generator.device)
    q: Tensor = torch.linalg.qr(gaussian.to(dtype)).Q.contiguous()
    return q


def unit_directions(dim: int, k: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """``A`` of shape ``(dim, k)`` with unit columns, uniform on the sphere, on the generator's device.

    Raises:
        TypeError: if ``generator`` is not a generator, or ``dtype`` not a floating-point dtype.
        ValueError: if ``dim`` or ``k`` is not an int of at least 1.
    """
    _check_draw(dim, k, generator, dtype)
    gaussian = torch.randn(dim, k, generator=generator, device=generator.device).to(dtype)
    return F.normalize(gaussian, dim=0)


def _check_draw(dim: int, k: int, generator: torch.Generator, dtype: torch.dtype) -> None:
    _checks.positive_int("dim", dim)
    _checks.positive_int("k", k)
    _checks.instance("generator", generator, torch.Generator)
    if not _checks.instance("dtype", dtype, torch.dtype).is_floating_point:
        raise TypeError(f"dtype must be a floating-point dtype, got {dtype}")


_DRAWS = {"orthonormal_projection": orthonormal_projection, "unit_directions": unit_directions}


def _draw(  # noqa: PLR0917
    kind: str, seed: int, index: int, dim: int, k: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    if device.type == "meta":  # it has no generators
        return torch.empty(dim, k, dtype=dtype, device=device)
    # The odd multiplier separates the streams of neighbouring seeds.
    generator = torch.Generator(device).manual_seed((seed * 0x9E3779B97F4A7C15 + index) % 2**63)
    with torch.inference_mode(False), torch.no_grad():
        return _DRAWS[kind](dim, k, generator, dtype)


_KEPT_BYTES = 2**28  # of projections; the newest is kept even if it is larger
_kept: dict[tuple[Any, ...], tuple[int, Tensor]] = {}  # the last draw of each stream, least recently used first


def _kept_draw(  # noqa: PLR0917
    kind: str, seed: int, index: int, dim: int, k: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """`_draw`, which keeps one matrix of each stream for the steps that share it."""
    stream = (kind, seed, dim, k, dtype, device)
    last, matrix = _kept.pop(stream, (-1, None))
    if matrix is None or last != index:
        matrix = _draw(kind, seed, index, dim, k, dtype, device)
    _kept[stream] = index, matrix
    while len(_kept) > 1 and sum(x.nbytes for _, x in _kept.values()) > _KEPT_BYTES:
        del _kept[next(iter(_kept))]
    return matrix


@torch.library.custom_op("symplectic_jepa::draw", mutates_args={"step"})
def _next_draw(  # noqa: PLR0917
    step: Tensor,
    fixed: Tensor,
    kind: str,
    seed: int,
    every: int,
    advance: bool,
    dim: int,
    k: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The matrix of the current step; one opaque node, because ``torch.compile`` cannot trace generators.

    ``step`` and ``fixed`` are on the CPU, so reading them does not synchronise.
    """
    if not fixed and _in_backward():  # checked here, because a compiled backward pass may also run this node again
        raise RuntimeError(
            "a forward pass inside a backward pass (torch.utils.checkpoint) must repeat the random draw of an earlier "
            "one, and which step that was is unknown: call set_step(step) on the objective or regularizer before the "
            "forward pass of every training step"
        )
    index = int(step) // every
    if advance and not fixed:
        step.add_(1)
    if every == 1:
        return _draw(kind, seed, index, dim, k, dtype, device)
    return _kept_draw(kind, seed, index, dim, k, dtype, device).clone()


@_next_draw.register_fake
def _(*arguments: Any) -> Tensor:
    dim, k, dtype, device = arguments[-4:]
    return torch.empty(dim, k, dtype=dtype, device=device)


def _in_backward() -> bool:
    """Whether autograd is running a backward pass on this thread."""
    from torch.utils.module_tracker import ModuleTracker  # noqa: PLC0415  (`import torch` does not load it)

    running: bool = ModuleTracker().is_bw  # the public name of torch._C._current_graph_task_id() != -1
    return running


class Schedule(nn.Module):
    """Returns random matrices that depend only on the seed and a step counter.

    One call in training mode is one step, unless `set_step` sets the step. The matrix stays the same for ``every``
    steps, is the same on every rank (on devices of one kind), and continues after a resume: the counter is in
    ``state_dict``. In eval mode the counter does not advance.

    A compiled graph contains one opaque operation that draws and counts like eager code. A CUDA graph cannot contain
    it: instead `hold` fixes the matrix in memory, and `advance` before each replay does what a call would have done.

    Args:
        kind: ``"orthonormal_projection"`` or ``"unit_directions"``.
        seed: seed, at least 0.
        every: redraw after this many steps.

    Raises:
        ValueError: if ``kind`` is unknown, ``every < 1`` or ``seed < 0``.
    """

    def __init__(self, kind: str, *, seed: int, every: int) -> None:
        super().__init__()
        self.kind = _checks.one_of("kind", kind, _DRAWS)
        self.seed = _checks.integer("seed", seed)
        self.every = _checks.positive_int("every", every)
        # Not a buffer, because the host reads it at every step and `.to(device)` would move it. Not an int, because a
        # compiled graph would treat it as a constant.
        self.step = torch.zeros((), dtype=torch.int64, device="cpu")  # even under a meta device
        self.fixed = torch.zeros((), dtype=torch.bool, device="cpu")  # whether calls leave the step as it is
        self.held = False
        self._matrix: Tensor | None = None

    def forward(self, dim: int, k: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return this step's ``(dim, k)`` matrix, and count the step when training and not held."""
        if self._matrix is not None and self.held:
            if self._matrix.shape != (dim, k) or self._matrix.dtype != dtype or self._matrix.device != device:
                raise ValueError(
                    f"a held schedule returns one matrix, {tuple(self._matrix.shape)} {self._matrix.dtype} on "
                    f"{self._matrix.device}; asked for {(dim, k)} {dtype} on {device}"
                )
            return self._matrix
        count = self.training and not self.held
        matrix = self._next(count, dim, k, dtype, device)
        if self.held:
            self._matrix = matrix
        return matrix

    def hold(self) -> None:
        """From the next call on, return the same tensor every time; `advance` overwrites it."""
        self.held, self._matrix = True, None

    def advance(self) -> None:
        """Update the held matrix to this step in place, and count the step unless it was set.

        Raises:
            RuntimeError: if nothing is held; first call `hold`, then the regularizer once.
        """
        if self._matrix is None:
            raise RuntimeError("advance() needs a held matrix: call hold(), then the regularizer once, first")
        dim, k = self._matrix.shape
        self._matrix.copy_(self._next(True, dim, k, self._matrix.dtype, self._matrix.device))

    def set_step(self, step: int | None) -> None:
        """Stay at ``step``; ``None`` counts calls again, from the current step on."""
        if step is not None:
            self.step.fill_(step)
        self.fixed.fill_(step is not None)

    def config(self) -> dict[str, Any]:
        """What determines the matrices, beside the step."""
        return {"kind": self.kind, "seed": self.seed, "every": self.every}

    def get_extra_state(self) -> Tensor:
        """The step counter, for ``state_dict``."""
        return self.step.clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue from the step of a ``state_dict``."""
        self.step.copy_(state)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"{self.kind}, seed={self.seed}, every={self.every}"

    def _next(self, count: bool, dim: int, k: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        matrix: Tensor = _next_draw(
            self.step, self.fixed, self.kind, self.seed, self.every, count, dim, k, dtype, device
        )
        return matrix


def hold_draws(module: nn.Module) -> None:
    """Fix every random matrix in ``module`` in memory, for a CUDA graph; see `advance_draws`.

    Call this before the warm-up calls that precede the capture. They then draw without counting steps.
    """
    for schedule in _schedules(module):
        schedule.hold()


def advance_draws(module: nn.Module) -> None:
    """Update every held matrix in ``module`` to its next step in place; call this before each CUDA graph replay.

    The losses then equal those of ordinary calls.

    Raises:
        RuntimeError: if nothing is held; first call `hold_draws`, then the module once.
    """
    for schedule in _schedules(module):
        schedule.advance()


def set_step(module: nn.Module, step: int | None) -> None:
    """Make every random matrix in ``module`` that of training step ``step``, until the next call.

    By default each forward pass in training mode is one step: it draws, then counts. That is wrong if a step has
    several forward passes: closures (`torch.optim.LBFGS`, SAM), gradient accumulation, or recomputation by
    ``torch.utils.checkpoint``, which the default refuses with a RuntimeError. Once the step is set, forward passes
    leave it as it is, so all of them use the same matrices. Call this before the first forward pass of every step, on
    every rank alike, and not again until its backward pass has ended.

    Compiled modules are not recompiled. Matrices held by `hold_draws` change at the next `advance_draws`, which then
    does not count. A ``state_dict`` contains the step, but not whether it was set.

    Args:
        module: a regularizer, an objective, or any module that contains some; without random matrices, nothing happens.
        step: the step, at least 0; ``None`` counts forward passes again, starting at the current step.

    Raises:
        ValueError: if ``step`` is neither ``None`` nor an int from 0 to 2⁶³ − 1.
    """
    if step is not None and (isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**63):
        raise ValueError(f"step must be an int from 0 to 2**63 - 1, or None, got {step!r}")
    for schedule in _schedules(module):
        schedule.set_step(step)


def _schedules(module: nn.Module) -> list[Schedule]:
    return [m for m in _checks.instance("module", module, nn.Module).modules() if isinstance(m, Schedule)]

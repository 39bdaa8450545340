"""Float32 or better regardless of autocast, and constants that no change of dtype rounds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Concatenate, TypeVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import ParamSpec, Self

from symplectic_jepa import _checks

P = ParamSpec("P")
M = TypeVar("M")
R = TypeVar("R")


def autocast_off(device: torch.device) -> AbstractContextManager[Any]:
    """A context that disables the caller's autocast on ``device``; the meta device has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32 if it was float16 or bfloat16; float32 and float64 are unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def power_of_two(top: Tensor) -> Tensor:
    """The largest power of two that is at most ``top``; 1 for 0. To divide by it is exact."""
    return torch.where(top > 0, top / (2 * torch.frexp(top).mantissa), 1.0)


def wide_dtype(x: Tensor) -> torch.dtype:
    """float64, or float32 on a device that has no float64."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def full_precision(
    forward: Callable[Concatenate[M, Tensor, P], R],
) -> Callable[Concatenate[M, Tensor, P], R]:
    """Decorate ``forward(self, x, …)``: autocast off, half-precision ``x`` cast to float32, float64 kept.

    Raises:
        TypeError: if ``x`` (by the name that it has in ``forward``) is not a floating-point tensor.
    """
    name = list(inspect.signature(forward).parameters)[1]

    @functools.wraps(forward)
    def wrapped(self: M, *args: Any, **kwargs: Any) -> R:
        if not args and name in kwargs:
            args = (kwargs.pop(name),)
        if not args:
            raise TypeError(f"{name} must be given to {type(self).__name__}")
        x, *others = args
        with autocast_off(_checks.floating(name, x).device):
            return forward(self, at_least_float32(x), *others, **kwargs)

    return cast("Callable[Concatenate[M, Tensor, P], R]", wrapped)  # by position or by name


def at_full_precision(function: Callable[..., tuple[Tensor, ...]], *states: Tensor) -> tuple[Tensor, ...]:
    """``function(*states)`` without autocast, in the widest dtype of the states and float32; results are cast back."""
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in states), torch.float32)
    with autocast_off(states[0].device):
        images = function(*(x.to(dtype) for x in states))
    return tuple(image.to(x.dtype) for image, x in zip(images, states, strict=True))


def exact_scalar(value: float) -> Tensor:
    """``value`` as a ``(1,)`` tensor on the default device, in float64 where available, so that 0.7 stays 0.7.

    Not ``()``: torch.compile treats a float64 scalar on the CPU as a Python number and compiles twice.
    """
    return torch.full((1,), value, dtype=wide_dtype(torch.empty(())))


class ExactBuffers(nn.Module):
    """Buffers named in `_exact` move between devices, but keep their dtype when the module is cast.

    They are constants that determine a loss; ``forward`` casts them to the dtype of the states.
    """

    _exact: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = {id(self._buffers[name]) for name in self._exact if name in self._buffers}

        def move(x: Tensor) -> Tensor:
            if id(x) not in exact:
                return fn(x)
            device = fn(torch.empty((), device=x.device)).device
            if device.type == "mps":  # no float64 there
                return x.float().to(device)
            moved = fn(x)
            return moved if moved.dtype == x.dtype else x.to(device)

        return super()._apply(move, recurse)  # type: ignore[no-untyped-call,no-any-return]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self._exact:  # older files store scalars as ()
            x = state_dict.get(prefix + name)
            if isinstance(x, Tensor) and x.ndim == 0:
                state_dict[prefix + name] = x[None]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

"""Argument checks shared by every module: each error names the argument, the value and what was expected."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Size, Tensor


def positive_int(name: str, value: int, *, maximum: int = 2**31 - 1) -> int:
    """Return ``value`` if it is an int from 1 to ``maximum``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an int >= 1, got {value!r}")
    if value > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {value}")
    return value


def finite(name: str, value: float, *, minimum: float = -math.inf, exclusive: bool = False) -> float:
    """Return ``value`` as a float if it is finite and at least (``exclusive``: above) ``minimum``."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < minimum or (exclusive and value == minimum):
        bound = "" if minimum == -math.inf else f" {'>' if exclusive else '>='} {minimum:g}"
        raise ValueError(f"{name} must be a finite number{bound}, got {value!r}")
    return float(value)


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of the ``allowed`` words."""
    words = tuple(allowed)
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {value!r}")
    return value


def samples(name: str, x: Tensor, *, minimum: int = 1) -> Tensor:
    """Return ``x`` if it is a floating ``(..., N, D)`` tensor with at least ``minimum`` rows N."""
    if not x.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got dtype {x.dtype}")
    if x.ndim < 2 or x.shape[-2] < minimum or 0 in x.shape:
        raise ValueError(f"{name} must have shape (..., N >= {minimum}, D >= 1), got {tuple(x.shape)}")
    return x


def coordinates(name: str, x: Tensor, dim: int) -> Tensor:
    """Return ``x`` if it is a floating ``(..., dim)`` tensor."""
    if not x.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got dtype {x.dtype}")
    if x.ndim == 0 or x.shape[-1] != dim:
        raise ValueError(f"{name} must have shape (..., {dim}), got {tuple(x.shape)}")
    return x


def fraction(name: str, value: float) -> float:
    """Return ``value`` as a float if it lies between 0 and 1."""
    if finite(name, value) < 0 or value > 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    return float(value)


def broadcasts(shape: Size, target: Size) -> bool:
    """Whether ``shape`` broadcasts to ``target`` without enlarging it."""
    aligned = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(size in (1, goal) for size, goal in aligned)

"""Argument checks shared by every module: each error names the argument, the value and what was expected."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Size, Tensor, nn

Array: TypeAlias = "Tensor | np.ndarray[Any, Any]"
"""A tensor or a numpy array, for functions that accept both."""

Word = TypeVar("Word", bound=str)
Value = TypeVar("Value")
_RTOL = 1e-5  # relative to the largest entry or eigenvalue: the rounding of a covariance summed in float32


def positive_int(name: str, value: int, *, maximum: int = 2**31 - 1) -> int:
    """Return ``value`` if it is an int from 1 to ``maximum``."""
    return integer(name, value, minimum=1, maximum=maximum)


def integer(name: str, value: int, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
    """Return ``value`` if it is an int from ``minimum`` to ``maximum``; the defaults are those of a seed."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be an int >= {minimum}, got {shown(value)}")
    if value > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {shown(value)}")
    return value


def finite(name: str, value: float, *, minimum: float = -math.inf, exclusive: bool = False) -> float:
    """Return ``value`` as a float if it is finite and at least (if ``exclusive``, above) ``minimum``."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Not math.isfinite, which cannot take an int that no float can hold.
    if not number or not abs(value) <= sys.float_info.max or value < minimum or (exclusive and value == minimum):
        bound = "" if minimum == -math.inf else f" {'>' if exclusive else '>='} {minimum:g}"
        raise ValueError(f"{name} must be a finite number{bound}, got {shown(value)}")
    return float(value)


def boolean(name: str, value: bool) -> bool:
    """Return ``value`` if it is ``True`` or ``False``; a word such as ``"no"`` would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def one_of(name: str, value: Word, allowed: Iterable[str]) -> Word:
    """Return ``value`` if it is one of the ``allowed`` words."""
    words = tuple(allowed)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {shown(value)}")
    return value


def instance(name: str, value: Value, cls: type) -> Value:
    """Return ``value`` if it is an instance of ``cls``."""
    if not isinstance(value, cls):
        raise TypeError(f"{name} must be a {cls.__name__}, got {kind(value)}")
    return value


def function(name: str, value: Value, *, expected: str = "a module or a function") -> Value:
    """Return ``value`` if it is a module or a function; a class is neither."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"{name} must be {expected}, got {kind(value)}")
    return value


def mapping(name: str, value: Mapping[str, Value] | None, cls: type) -> dict[str, Value]:
    """Return ``value`` as a dict if it holds instances of ``cls`` under names; ``None`` is empty."""
    if not isinstance(value, (Mapping, nn.ModuleDict, type(None))):
        raise TypeError(f"{name} must be a dict of {cls.__name__} by name, got {kind(value)}")
    items: dict[str, Value] = dict((value or {}).items())
    for key, item in items.items():
        if not isinstance(key, str) or not key or "." in key or hasattr(nn.ModuleDict(), key):
            raise ValueError(f"{name} must have names as keys, without dots and unknown to nn.ModuleDict, got {key!r}")
        instance(f"{name}[{key!r}]", item, cls)
    return items


def path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return ``value`` as a path, with ``~`` expanded."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a path, a string or a Path, got {kind(value)}")
    if not text or "\0" in text:
        raise ValueError(f"{name} must be a path, neither empty nor with a null character, got {text!r}")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~someone who does not exist
        raise ValueError(f"{name} must be a path in a home that exists, got {text!r}: {error}") from error


def shown(value: object) -> str:
    """A plain value in an error message; only the kind of anything that may be large."""
    if isinstance(value, int) and abs(value) > 2**64:  # Python refuses to print thousands of digits
        return "an int beyond 2**64"
    return repr(value)[:200] if isinstance(value, (int, float, complex, str, tuple, type(None))) else kind(value)


def kind(value: object) -> str:
    """The type of a value in an error message."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def array(name: str, x: Array) -> Tensor:
    """Return ``x`` as a tensor, sharing the memory of a numpy array where possible; nobody may write to it."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biufc" and x.dtype.itemsize <= 16:
        with warnings.catch_warnings():  # a read-only array, such as a file that np.memmap shows, need not be copied
            warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
            x = torch.from_numpy(np.require(x, x.dtype.newbyteorder("="), "C"))
    if not isinstance(x, Tensor):
        got = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else kind(x)
        raise TypeError(f"{name} must be a tensor or a numeric numpy array, got {got}")
    if x.layout != torch.strided or x.is_meta:
        raise TypeError(f"{name} must be a dense tensor with values, got layout {x.layout} on {x.device}")
    return x


def floating(name: str, x: Tensor) -> Tensor:
    """Return ``x`` if it is a dense floating-point tensor."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.layout != torch.strided:
        got = kind(x)
        if isinstance(x, Tensor):
            got = f"dtype {x.dtype}" if x.layout == torch.strided else f"layout {x.layout}"
        raise TypeError(f"{name} must be a floating-point tensor, got {got}")
    return x


def same_device(**tensors: Tensor) -> None:
    """Raise unless all ``tensors`` are on one device."""
    devices = [x.device for x in tensors.values()]
    if any(device != devices[0] for device in devices):
        raise ValueError(f"{', '.join(tensors)} must be on the same device, got {', '.join(map(str, devices))}")


def states(q: Tensor, p: Tensor, control: Tensor | None = None) -> None:
    """Raise unless ``q`` and ``p`` are floating-point tensors of the same shape ``(..., d)`` on the same device."""
    if floating("q", q).shape != floating("p", p).shape or q.ndim == 0:
        raise ValueError(f"q and p must share a shape (..., d), got {tuple(q.shape)} and {tuple(p.shape)}")
    if control is None:
        same_device(q=q, p=p)
    else:
        same_device(q=q, p=p, control=floating("control", control))


def samples(name: str, x: Tensor, *, minimum: int = 1) -> Tensor:
    """Return ``x`` if it is a floating-point ``(..., N, D)`` tensor with at least ``minimum`` rows N."""
    if floating(name, x).ndim < 2 or x.shape[-2] < minimum or 0 in (*x.shape[:-2], x.shape[-1]):
        raise ValueError(f"{name} must have shape (..., N >= {minimum}, D >= 1), got {tuple(x.shape)}")
    return x


def coordinates(name: str, x: Tensor, dim: int) -> Tensor:
    """Return ``x`` if it is a floating-point ``(..., dim)`` tensor."""
    if floating(name, x).ndim == 0 or x.shape[-1] != dim:
        raise ValueError(f"{name} must have shape (..., {dim}), got {tuple(x.shape)}")
    return x


def columns(name: str, matrix: Tensor, x: Tensor) -> Tensor:
    """Return ``matrix`` in the dtype of samples ``x``, ``(..., N, D)``, if it is ``(D, k)`` on their device."""
    if floating(name, matrix).ndim != 2 or matrix.shape[0] != x.shape[-1] or matrix.shape[1] < 1:
        raise ValueError(f"{name} must have shape ({x.shape[-1]}, k >= 1), got {tuple(matrix.shape)}")
    same_device(**{"x": x, name: matrix})
    return matrix.to(x.dtype)


def fraction(name: str, value: float) -> float:
    """Return ``value`` as a float if it lies between 0 and 1."""
    if finite(name, value) < 0 or value > 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    return float(value)


def control(u: Tensor, inputs: int, q: Tensor) -> Tensor:
    """Return ``u`` in the dtype of ``q`` if it is floating-point, ``(..., inputs)``, and broadcasts to the states."""
    batch = q.shape[:-1]
    if floating("control", u).shape[-1:] != (inputs,) or not broadcasts(u.shape[:-1], batch):
        raise ValueError(
            f"control must have shape (..., {inputs}) with leading dimensions that broadcast to {tuple(batch)}, "
            f"got {tuple(u.shape)}"
        )
    return u.to(q.dtype)


def control_or_none(u: Tensor | None, inputs: int, q: Tensor, *, system: object) -> Tensor | None:
    """`control` of a system with ``inputs > 0``; ``None`` of one without, which must not be given a control."""
    name = type(system).__name__
    if not inputs and u is not None:
        raise TypeError(f"control must be None for a {name} with control_dim=0, got a {type(u).__name__}")
    if inputs and u is None:
        raise ValueError(f"control must be given to a {name} with control_dim={inputs}, got None")
    return None if u is None else control(u, inputs, q)


def broadcasts(shape: Size, target: Size) -> bool:
    """Whether ``shape`` broadcasts to ``target`` without enlarging it."""
    aligned = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(size in (1, goal) for size, goal in aligned)


def matrices(name: str, x: Tensor) -> Tensor:
    """Return ``x`` if it is a floating-point ``(..., d, d)`` tensor; reads no values."""
    if floating(name, x).ndim < 2 or x.shape[-1] != x.shape[-2] or 0 in x.shape:
        raise ValueError(f"{name} must have shape (..., d, d), d >= 1, got {tuple(x.shape)}")
    return x


def square(name: str, matrix: Tensor) -> Tensor:
    """Return ``matrix`` in float64 if it is a finite floating-point ``(..., d, d)`` tensor."""
    if not matrices(name, matrix).isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return matrix.to(torch.float64)


def positive_definite(name: str, matrix: Tensor, *, semidefinite: bool = False) -> Tensor:
    """Return the symmetric part of ``matrix``, in float64, if it is symmetric positive (semi-)definite."""
    matrix = square(name, matrix)
    fixed = matrix.detach()
    skew = (fixed - fixed.mT).abs().amax((-2, -1))
    if (skew > _RTOL * fixed.abs().amax((-2, -1))).any():
        raise ValueError(f"{name} must be symmetric, got max |{name} - {name}^T| = {skew.max().item():.3g}")
    if semidefinite:
        values = torch.linalg.eigvalsh(fixed)
        if (values[..., 0] < -_RTOL * values[..., -1].abs()).any():
            raise ValueError(
                f"{name} must be positive semi-definite, got smallest eigenvalue {values[..., 0].min().item():.3g}"
            )
    elif torch.linalg.cholesky_ex(fixed).info.any():
        smallest = torch.linalg.eigvalsh(fixed)[..., 0].min().item()
        raise ValueError(f"{name} must be positive definite, got smallest eigenvalue {smallest:.3g}")
    return (matrix + matrix.mT) / 2

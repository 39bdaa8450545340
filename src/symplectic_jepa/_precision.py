"""Batch statistics are computed in float32 or better, whatever autocast asks for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, TypeVar

import torch
from torch import Tensor
from typing_extensions import ParamSpec

P = ParamSpec("P")
M = TypeVar("M")
R = TypeVar("R")


def full_precision(
    forward: Callable[Concatenate[M, Tensor, P], R],
) -> Callable[Concatenate[M, Tensor, P], R]:
    """Decorate ``forward(self, x, …)``: autocast off, half-precision ``x`` cast to float32, float64 kept."""

    @functools.wraps(forward)
    def wrapped(self: M, x: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast(x.device.type, enabled=False):
            if x.is_floating_point():
                x = x.to(torch.promote_types(x.dtype, torch.float32))
            return forward(self, x, *args, **kwargs)

    return wrapped

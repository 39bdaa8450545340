"""What our autograd functions share: a first derivative only, also under ``torch.func``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Gradients = TypeVar("Gradients", Tensor, tuple[Tensor | None, ...])


def transforming() -> bool:
    """Whether a transform of ``torch.func`` is active."""
    return torch._C._are_functorch_transforms_active()


def once_differentiable(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Decorate a backward pass whose result may not be differentiated; the function must save its input or its output.

    PyTorch's decorator of this name returns second derivatives of zero under ``torch.func`` instead of raising.
    """

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Tensor) -> Gradients:
        with torch.no_grad():
            result = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return result
        known = (*ctx.saved_tensors, *grads)
        if isinstance(result, tuple):
            return tuple(None if x is None else _Constant.apply(x, *known) for x in result)
        constant: Tensor = _Constant.apply(result, *known)
        return constant

    return wrapped


class _Constant(torch.autograd.Function):
    """A value that may not be differentiated with respect to the tensors it was computed from."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, *known: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        raise RuntimeError("a regularizer or a matrix root of symplectic_jepa can be differentiated only once")

"""Sums of the empirical characteristic function at equally spaced knots, and their gradient."""

from __future__ import annotations

import functools
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._derivatives import once_differentiable

CACHED = 2**16  # elements per tensor, so that about six tensors fit in a core's cache


def characteristic_sums(y: Tensor, spacing: float, knots: int) -> tuple[Tensor, Tensor]:
    """``N`` times the empirical characteristic function of every column, at ``t_j = j · spacing``.

    CUDA tensors use one Triton kernel per pass if Triton is installed; otherwise torch does the same arithmetic.

    Args:
        y: samples ``(..., N, M)``, float32 or float64.
        spacing: distance between knots.
        knots: number of knots ``T``.

    Returns:
        ``Σ_n cos(t_j y)`` and ``Σ_n sin(t_j y)``, each ``(..., T, M)``, once differentiable.

    Raises:
        TypeError: if ``y`` is neither float32 nor float64.
        ValueError: if ``y`` has fewer than two dimensions or an empty one, or ``knots < 1``.
    """
    _checks.positive_int("knots", knots)
    if _checks.samples("y", y).dtype not in (torch.float32, torch.float64):
        raise TypeError(f"y must be float32 or float64, got {y.dtype}")
    width = columns = y.shape[-1]
    if y.device.type == "cpu" and not torch.compiler.is_compiling():
        # Eager torch makes about ten passes per knot; a few columns at a time stay in the cache.
        width = max(16, CACHED * columns // y.numel())
    parts = [_CharacteristicSums.apply(part, spacing, knots) for part in torch.split(y, width, -1)]
    cos, sin = torch.cat(parts, -1).unbind(-3)
    return cos, sin


class _CharacteristicSums(torch.autograd.Function):
    """Map ``(..., N, M)`` to the sums of cos and sin, ``(..., 2, T, M)``.

    Each pass evaluates cos and sin once and gets the other knots by rotation. Only ``y`` is saved, and each pass needs
    only a few ``(N, M)`` tensors, never one of size ``(N, M, T)``.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, spacing: float, knots: int) -> Tensor:
        return fused_sums(y, spacing, knots) if y.is_cuda else torch_sums(y, spacing, knots)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, int], output: Tensor) -> None:
        y, ctx.spacing, _ = inputs
        ctx.save_for_backward(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return (fused_gradient if y.is_cuda else torch_gradient)(y, grad, ctx.spacing), None, None


def torch_sums(y: Tensor, spacing: float, knots: int) -> Tensor:
    """Sums of ``cos jθ`` and ``sin jθ``, ``θ = spacing · y``, rotating from ``(j − 1)θ`` to ``jθ``."""
    theta = spacing * y
    c1, s1 = theta.cos(), theta.sin()
    none = y.new_zeros(y.shape[:-2] + y.shape[-1:])
    cos, sin = [none + y.shape[-2]], [none]
    c, s = c1, s1
    for j in range(1, knots):
        if j > 1:
            c, s = torch.addcmul(c * c1, s, s1, value=-1), torch.addcmul(s * c1, c, s1)
        cos.append(c.sum(-2))
        sin.append(s.sum(-2))
    return torch.stack((torch.stack(cos, -2), torch.stack(sin, -2)), -3)


def torch_gradient(y: Tensor, grad: Tensor, spacing: float) -> Tensor:
    """``Σ_j t_j (grad_sin_j cos jθ − grad_cos_j sin jθ)``, the real part of a polynomial in ``e^{iθ}``, by Horner.

    Its coefficients are ``t_j (grad_sin_j + i grad_cos_j)``; the constant one is zero, since ``t_0 = 0``.
    """
    theta = spacing * y
    c1, s1 = theta.cos(), theta.sin()
    t = torch.arange(grad.shape[-2], dtype=y.dtype, device=y.device)[:, None] * spacing
    b, a = (grad * t)[..., None, :].unbind(-4)
    real, imag = a[..., -1, :, :], b[..., -1, :, :]
    for j in range(grad.shape[-2] - 2, 0, -1):
        real, imag = (
            torch.addcmul(torch.addcmul(a[..., j, :, :], real, c1), imag, s1, value=-1),
            torch.addcmul(torch.addcmul(b[..., j, :, :], real, s1), imag, c1),
        )
    return torch.addcmul(real * c1, imag, s1, value=-1)


# These operators are opaque to torch.compile, so compiled and eager code run the same kernels. Triton is imported when
# one of them is first executed, never on import or during tracing.


@functools.cache
def _kernels() -> ModuleType | None:
    """The Triton kernels, or ``None`` with a single warning if Triton cannot be imported."""
    try:
        from symplectic_jepa.regularizers import characteristic_triton  # noqa: PLC0415
    except ImportError as error:
        warnings.warn(f"SIGReg runs without its fused CUDA kernels, in plain torch: {error}", stacklevel=2)
        return None
    return characteristic_triton


@torch.library.custom_op(
    "symplectic_jepa::characteristic_sums", mutates_args=(), schema="(Tensor y, float spacing, int knots) -> Tensor"
)
def fused_sums(y: Tensor, spacing: float, knots: int) -> Tensor:
    """`torch_sums` in one kernel."""
    kernels = _kernels()
    return (torch_sums if kernels is None else kernels.sums)(y.contiguous(), spacing, knots)


@torch.library.custom_op(
    "symplectic_jepa::characteristic_gradient",
    mutates_args=(),
    schema="(Tensor y, Tensor grad, float spacing) -> Tensor",
)
def fused_gradient(y: Tensor, grad: Tensor, spacing: float) -> Tensor:
    """`torch_gradient` in one kernel."""
    kernels = _kernels()
    return (torch_gradient if kernels is None else kernels.gradient)(y.contiguous(), grad.contiguous(), spacing)


@fused_sums.register_fake
def _(y: Tensor, spacing: float, knots: int) -> Tensor:
    return y.new_empty(*y.shape[:-2], 2, knots, y.shape[-1])


@fused_gradient.register_fake
def _(y: Tensor, grad: Tensor, spacing: float) -> Tensor:
    return y.new_empty(y.shape)

"""What the theory shares: checks of matrices and scalars, tensors or arrays; everything in float64 from here on."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa._derivatives import once_differentiable
from symplectic_jepa._precision import power_of_two


def square(name: str, matrix: Array) -> Tensor:
    """Return ``matrix`` as a float64 tensor if it is finite, floating and ``(..., d, d)``."""
    return _checks.square(name, _checks.array(name, matrix))


def spd(name: str, matrix: Array, *, semidefinite: bool = False, like: Tensor | None = None) -> Tensor:
    """Return the symmetric part of ``matrix``, if it is symmetric positive (semi-)definite and fits ``like``."""
    checked = _checks.positive_definite(name, _checks.array(name, matrix), semidefinite=semidefinite)
    if like is not None:
        fits(name, checked, like)
    return checked


def fits(name: str, matrix: Tensor, like: Tensor) -> None:
    """Refuse a matrix of another ``d`` than ``like``, or with leading dimensions that do not broadcast to its own."""
    d = like.shape[-1]
    if matrix.shape[-1] != d or not _broadcast(matrix.shape[:-2], like.shape[:-2]):
        expected = f"(..., {d}, {d}), to fit {tuple(like.shape)}"
        raise ValueError(f"{name} must have shape {expected}, got {tuple(matrix.shape)}")
    _checks.same_device(**{name: matrix, "the other": like})


def scalar(name: str, value: float | Array, *, positive: bool = False, like: Tensor | None = None) -> Tensor:
    """Return ``value`` as a float64 tensor if it is finite and (if asked) positive.

    ``like``: matrices on whose device it goes, and to whose leading dimensions it broadcasts.
    """
    number = value.item() if isinstance(value, np.number) else value
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        lowest = 0.0 if positive else -math.inf
        value = np.asarray(_checks.finite(name, number, minimum=lowest, exclusive=True))
    x = _checks.array(name, cast("Array", value))
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name} must be real, got dtype {x.dtype}")
    if not x.isfinite().all() or (positive and (x <= 0).any()):
        raise ValueError(f"{name} must be a finite number{' > 0' if positive else ''}, got {_checks.shown(value)}")
    if like is not None and not _broadcast(x.shape, like.shape[:-2]):
        raise ValueError(f"{name} must broadcast to {tuple(like.shape[:-2])}, got shape {tuple(x.shape)}")
    return x.to(torch.float64 if like is None else like)


def broadcast(**given: Tensor) -> None:
    """Refuse tensors whose shapes do not broadcast, or that are on different devices."""
    if not _broadcast(*(x.shape for x in given.values())):
        shapes = ", ".join(str(tuple(x.shape)) for x in given.values())
        raise ValueError(f"{', '.join(given)} must broadcast, got shapes {shapes}")
    _checks.same_device(**given)


def _broadcast(*shapes: torch.Size) -> bool:
    try:
        torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True


def symplectic_defect(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The largest entry of ``MᵀΩM − Ω`` and ``‖M‖²``, its unit: ``(..., 2d, 2d)`` to ``(...)`` twice."""
    fixed = matrix.detach()
    upper, lower = fixed.chunk(2, dim=-2)
    product = upper.mT @ lower  # MᵀΩM = AᵀB − BᵀA for M = [A; B]
    top, bottom = torch.eye(fixed.shape[-1], dtype=fixed.dtype, device=fixed.device).chunk(2, dim=-2)
    omega = top.mT @ bottom - bottom.mT @ top
    defect = (product - product.mT - omega).abs().amax((-2, -1))
    return defect, torch.linalg.matrix_norm(fixed, ord=2).square()


def trace(matrix: Tensor) -> Tensor:
    """``tr``: ``(..., d, d)`` to ``(...)``."""
    total: Tensor = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total


def without_scale(x: Tensor) -> Tensor:
    """``x``, ``(..., m, n)``, over a power of two near its largest entry, for what does not depend on its scale.

    Squares of the result neither overflow nor vanish.
    """
    return x / power_of_two(x.detach().abs().amax((-2, -1), keepdim=True))


def positive_trace(name: str, matrix: Tensor) -> Tensor:
    """Return ``tr`` of a positive semi-definite ``matrix`` that is not zero."""
    value = trace(matrix)
    if (value <= 0).any():
        raise ValueError(f"{name} must not be zero, got trace {value.min().item():.3g}: nothing varies")
    return value


class _SymmetricRoot(torch.autograd.Function):
    """``H^{1/2}``; differentiable also where eigenvalues of ``H`` coincide, unlike ``eigh``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, root: Tensor, vectors: Tensor) -> Tensor:
        result: Tensor = (vectors * root.unsqueeze(-2)) @ vectors.mT
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:], output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # S² = H gives S dS + dS S = dH: in the eigenbasis of S, dS_ij = dH_ij / (s_i + s_j), and so its adjoint.
        root, vectors, _ = ctx.saved_tensors
        inner = (vectors.mT @ grad @ vectors) / (root.unsqueeze(-1) + root.unsqueeze(-2))
        return vectors @ inner @ vectors.mT, None, None


def symmetric_root(matrix: Tensor) -> Tensor:
    """``H^{1/2}`` of symmetric positive definite ``(..., d, d)``."""
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = _SymmetricRoot.apply(matrix, values.clamp(min=0).sqrt(), vectors)
    return root


def in_metric(H: Tensor, cov: Tensor) -> Tensor:
    """``LᵀΣL`` with ``H = LLᵀ``: the spectrum, trace and norm of ``H^{1/2} Σ H^{1/2}``."""
    # It is H^{1/2} Σ H^{1/2} up to a rotation, without an eigendecomposition of H.
    factor = torch.linalg.cholesky(H)
    matrix: Tensor = factor.mT @ cov @ factor
    return (matrix + matrix.mT) / 2

"""What the theory shares: checks of matrices and scalars, everything in float64 from here on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_RTOL = 1e-5  # of the largest entry or eigenvalue: the rounding of a covariance that was summed in float32


def square(name: str, matrix: Tensor) -> Tensor:
    """Return ``matrix`` in float64 if it is a finite floating ``(..., d, d)`` tensor."""
    if not matrix.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got dtype {matrix.dtype}")
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or 0 in matrix.shape:
        raise ValueError(f"{name} must have shape (..., d, d), d >= 1, got {tuple(matrix.shape)}")
    if not matrix.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return matrix.to(torch.float64)


def spd(name: str, matrix: Tensor, *, semidefinite: bool = False, like: Tensor | None = None) -> Tensor:
    """Return the symmetric part of ``matrix`` if it is symmetric positive (semi-)definite and as wide as ``like``."""
    matrix = square(name, matrix)
    if like is not None and matrix.shape[-1] != like.shape[-1]:
        raise ValueError(f"{name} must have shape (..., {like.shape[-1]}, {like.shape[-1]}), got {tuple(matrix.shape)}")
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


def scalar(name: str, value: float | Tensor, *, positive: bool = False, like: Tensor | None = None) -> Tensor:
    """Return ``value`` as a float64 tensor (on the device of ``like``) if it is finite and (if asked) positive."""
    x = torch.as_tensor(value, dtype=torch.float64, device=None if like is None else like.device)
    if not x.isfinite().all() or (positive and (x <= 0).any()):
        raise ValueError(f"{name} must be a finite number{' > 0' if positive else ''}, got {value!r}")
    return x


def trace(matrix: Tensor) -> Tensor:
    """``tr``: ``(..., d, d)`` to ``(...)``."""
    total: Tensor = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total


def positive_trace(name: str, matrix: Tensor) -> Tensor:
    """Return ``tr`` of a positive semi-definite ``matrix`` that is not zero."""
    value = trace(matrix)
    if (value <= 0).any():
        raise ValueError(f"{name} must not be zero, got trace {value.min().item():.3g}: nothing varies")
    return value


class _SymmetricRoot(torch.autograd.Function):
    """``H^{1/2}``; differentiable also where eigenvalues of ``H`` coincide, unlike ``eigh``."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        root = values.clamp(min=0).sqrt()
        ctx.save_for_backward(root, vectors)
        result: Tensor = (vectors * root.unsqueeze(-2)) @ vectors.mT
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # S² = H gives S dS + dS S = dH: in the eigenbasis of S, dS_ij = dH_ij / (s_i + s_j), and so its adjoint.
        root, vectors = ctx.saved_tensors
        inner = (vectors.mT @ grad @ vectors) / (root.unsqueeze(-1) + root.unsqueeze(-2))
        result: Tensor = vectors @ inner @ vectors.mT
        return result


def symmetric_root(matrix: Tensor) -> Tensor:
    """``H^{1/2}`` of symmetric positive definite ``(..., d, d)``."""
    root: Tensor = _SymmetricRoot.apply(matrix)
    return root


def in_metric(H: Tensor, cov: Tensor) -> Tensor:
    """``LᵀΣL`` with ``H = LLᵀ``: the spectrum, trace and norm of ``H^{1/2} Σ H^{1/2}``."""
    # It is H^{1/2} Σ H^{1/2} up to a rotation, without an eigendecomposition of H.
    factor = torch.linalg.cholesky(H)
    matrix: Tensor = factor.mT @ cov @ factor
    return (matrix + matrix.mT) / 2

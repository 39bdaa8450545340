"""Geometries: symmetric positive definite operators ``H`` on states, by their eigenvalues and their square root."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision


class Geometry(nn.Module, ABC):
    """``H`` on vectors ``(..., D)``; `HamSIGReg` asks for nothing else, so a user's own is two methods."""

    @abstractmethod
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``H^{1/2} z``, the symmetric root: ``(..., D)`` to ``(..., D)``, in float32 or better."""

    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Every eigenvalue of ``H``; one that all channels and both halves share stands there once."""


class IdentityGeometry(Geometry):
    """``H = I``: with it `HamSIGReg` is `SIGReg`."""

    one: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(1), persistent=False)

    @full_precision
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``z``."""
        return z

    def eigenvalues(self) -> Tensor:
        """``(1,)``."""
        return self.one


class DiagonalGeometry(Geometry):
    """``H = diag(λ)`` with fixed ``λ``.

    Args:
        diagonal: ``λ``, ``(D,)``, positive.

    Raises:
        ValueError: if ``diagonal`` is not a vector of positive finite numbers.
    """

    diagonal: Tensor

    def __init__(self, diagonal: Tensor) -> None:
        super().__init__()
        if diagonal.ndim != 1 or not (diagonal.isfinite() & (diagonal > 0)).all():
            raise ValueError(f"diagonal must be (D,), positive and finite, got {tuple(diagonal.shape)}: {diagonal}")
        self.register_buffer("diagonal", diagonal.detach().clone())

    @full_precision
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``λ_i^{1/2} z_i``: ``(..., D)`` to ``(..., D)``."""
        if z.ndim == 0 or z.shape[-1] != len(self.diagonal):
            raise ValueError(f"z must have shape (..., {len(self.diagonal)}), got {tuple(z.shape)}")
        return z * self.diagonal.to(z.dtype).sqrt()

    def eigenvalues(self) -> Tensor:
        """``(D,)``."""
        return self.diagonal


class _TokenGrid(Geometry):
    """A function of frequency on the token grid, equal for ``q``, ``p`` and every channel.

    A state is ``[q | p]``, each half flattened in (row, column, channel) order. ``boundary="free"`` (Neumann: a border
    token has fewer neighbours, as on an image) is diagonal in the DCT-II, computed as the FFT of the mirrored grid;
    ``"periodic"`` (opposite borders touch) in the FFT itself.
    """

    frequency: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, grid: int | tuple[int, int], *, halves: int, boundary: str) -> None:
        super().__init__()
        self.grid = (grid, 1) if isinstance(grid, int) else grid
        for side in self.grid:
            _checks.positive_int("grid", side)
        self.halves = _checks.positive_int("halves", halves)
        self.boundary = _checks.one_of("boundary", boundary, ("free", "periodic"))
        index = [torch.arange(n) for n in self.grid]
        turns = [k / (2 * n) if boundary == "free" else k.minimum(n - k) / n for k, n in zip(index, self.grid, strict=True)]
        angles = [2 * math.pi * turn.double() for turn in turns]
        self.register_buffer("frequency", torch.stack(torch.meshgrid(*angles, indexing="ij")), persistent=False)
        if boundary == "free":  # mode k of the mirrored 2n tokens is DCT mode k; its copy is at 2n − k, at n there is 0
            index = [torch.cat((k, k[-1:], k.flip(0)[:-1])) for k in index]
        self.register_buffer("rows", index[0], persistent=False)
        self.register_buffer("columns", index[1][: len(index[1]) // 2 + 1], persistent=False)

    @full_precision
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``H^{1/2} z`` of ``(..., halves · h · w · channels)``.

        Raises:
            ValueError: if the last dimension does not hold whole token grids.
        """
        h, w = self.grid
        if z.ndim == 0 or z.shape[-1] == 0 or z.shape[-1] % (self.halves * h * w):
            expected = f"a multiple of {self.halves} x {h} x {w} (halves x rows x columns)"
            raise ValueError(f"z must have as its last dimension {expected}, got shape {tuple(z.shape)}")
        x = z.unflatten(-1, (self.halves, h, w, z.shape[-1] // (self.halves * h * w)))
        if self.boundary == "free":
            x = torch.cat((x, x.flip(-3)), -3)
            x = torch.cat((x, x.flip(-2)), -2)
        root = self.eigenvalues().to(x.dtype).sqrt()[self.rows][:, self.columns]
        filtered = torch.fft.rfft2(x, dim=(-3, -2)) * root[..., None]
        x = torch.fft.irfft2(filtered, s=x.shape[-3:-1], dim=(-3, -2))
        return x[..., :h, :w, :].flatten(-4)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"grid={self.grid}, halves={self.halves}, boundary={self.boundary!r}"

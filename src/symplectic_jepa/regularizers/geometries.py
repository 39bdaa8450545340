"""Geometries: symmetric positive definite operators ``H`` on states, by their eigenvalues and their square root."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision
from symplectic_jepa.pretrained import Pretrained


class Geometry(Pretrained, nn.Module, ABC):
    """``H`` on vectors ``(..., D)``; `HamSIGReg` asks for nothing else, so a user's own is two methods."""

    @abstractmethod
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``H^{1/2} z``, the symmetric root: ``(..., D)`` to ``(..., D)``, in float32 or better."""

    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Every eigenvalue of ``H``; one that all channels and both halves share stands there once."""


class DiagonalGeometry(Geometry):
    """``H = diag(λ)``, fixed [paper, appendix F.2].

    Args:
        diagonal: ``λ > 0``, ``(D,)``, or ``(1,)`` for any ``D``.

    Raises:
        ValueError: if ``diagonal`` is no vector, or not positive and finite.
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
        if z.ndim == 0 or len(self.diagonal) not in (1, z.shape[-1]):
            raise ValueError(f"z must have shape (..., {len(self.diagonal)}), got {tuple(z.shape)}")
        return z * self.diagonal.to(z.dtype).sqrt()

    def eigenvalues(self) -> Tensor:
        """``λ``."""
        return self.diagonal


class IdentityGeometry(DiagonalGeometry):
    """``H = I``: with it `HamSIGReg` is `SIGReg` [paper, appendix F.2]."""

    def __init__(self) -> None:
        super().__init__(torch.ones(1))


class TokenGridGeometry(Geometry):
    """A function of frequency on the token grid, the same for both halves of ``[q | p]`` and for every channel.

    Each half is flattened in (row, column, channel) order. With ``boundary="free"`` (Neumann: the ends of a chain are
    no neighbours, as on an image) the modes are the cosines of the DCT-II, reached by the FFT of the mirrored grid;
    with ``"periodic"`` those of the FFT itself. Subclasses give the `eigenvalues` ``(rows, columns)``.

    Args:
        grid: ``L`` tokens in a chain, or ``(rows, columns)``.
        halves: 2 for a state ``[q | p]``, 1 for ``q`` or ``p`` alone.
        boundary: ``"free"`` or ``"periodic"``.

    Raises:
        ValueError: for another grid or boundary, or a size below 1.
    """

    frequency: Tensor  # of every mode along both axes, (2, rows, columns), radians per token
    fold: Tensor  # mode of every bin of the FFT, as an index into the flattened eigenvalues

    def __init__(self, grid: int | tuple[int, int], *, halves: int = 2, boundary: str = "free") -> None:
        super().__init__()
        self.grid = grid if isinstance(grid, tuple) else (grid, 1)
        if len(self.grid) != 2 or any(type(side) is not int for side in self.grid):
            raise ValueError(f"grid must be an int or (rows, columns), got {grid!r}")
        self.halves = _checks.positive_int("halves", halves)
        self.boundary = _checks.one_of("boundary", boundary, ("free", "periodic"))
        modes = [torch.arange(_checks.positive_int("grid", side)) for side in self.grid]
        if boundary == "free":
            angles = [k.double() * math.pi / len(k) for k in modes]
            modes = [torch.cat((k, k[-1:], k[1:].flip(0))) for k in modes]  # bins k and 2n − k, while bin n is empty
        else:
            angles = [k.minimum(len(k) - k).double() * 2 * math.pi / len(k) for k in modes]
        fold = modes[0][:, None] * self.grid[1] + modes[1][: len(modes[1]) // 2 + 1]  # the bins that rfft2 keeps
        self.register_buffer("frequency", torch.stack(torch.meshgrid(*angles, indexing="ij")), persistent=False)
        self.register_buffer("fold", fold, persistent=False)

    @full_precision
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``H^{1/2} z``: ``(..., halves · rows · columns · channels)`` to the same."""
        blocks = (self.halves, *self.grid)
        if z.ndim == 0 or z.shape[-1] == 0 or z.shape[-1] % math.prod(blocks):
            raise ValueError(f"z must have a multiple of {blocks} (halves, rows, columns) last, got {tuple(z.shape)}")
        x: Tensor = z.reshape(*z.shape[:-1], *blocks, z.shape[-1] // math.prod(blocks))
        for axis in (-3, -2) if self.boundary == "free" else ():
            x = torch.cat((x, x.flip(axis)), axis)
        root = self.eigenvalues().to(x.dtype).sqrt().flatten()[self.fold]
        spectrum = torch.fft.rfft2(x, dim=(-3, -2)) * root[..., None]
        x = torch.fft.irfft2(spectrum, s=x.shape[-3:-1], dim=(-3, -2))
        return x[..., : self.grid[0], : self.grid[1], :].reshape(z.shape)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"grid={self.grid}, halves={self.halves}, boundary={self.boundary!r}"


class LaplacianGeometry(TokenGridGeometry):
    """``H = κν + ε``, ``ν`` the graph Laplacian of a chain (``grid=L``) or grid (``grid=(rows, columns)``) of tokens.

    [paper, appendix F.2]

    Args:
        grid: the tokens.
        kappa: ``κ ≥ 0``, how stiff the bonds between neighbours are.
        eps: ``ε > 0``, the smallest eigenvalue.
        halves: 2 for a state ``[q | p]``, 1 for ``q`` or ``p`` alone.
        boundary: see `TokenGridGeometry`.

    Raises:
        ValueError: as `TokenGridGeometry`, and for ``κ < 0`` or ``ε ≤ 0``.
    """

    def __init__(
        self,
        grid: int | tuple[int, int],
        *,
        kappa: float = 1.0,
        eps: float = 1.0,
        halves: int = 2,
        boundary: str = "free",
    ) -> None:
        super().__init__(grid, halves=halves, boundary=boundary)
        self.kappa = _checks.finite("kappa", kappa, minimum=0.0)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)

    def eigenvalues(self) -> Tensor:
        """``κ Σ_axes (2 − 2 cos f) + ε``, ``(rows, columns)``."""
        return self.kappa * (2 - 2 * self.frequency.cos()).sum(0) + self.eps

"""`characteristic` in Triton: each pass reads ``y`` once. Imported only when first needed."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 32
WARPS = 4


@triton.jit
def _tile(n, m, blocks, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """This program's leading index, columns, offsets into ``(G, N, M)`` (may exceed 2³¹) and their mask."""
    leading = tl.program_id(0).to(tl.int64) // blocks
    rows = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    offsets = (leading * n + rows)[:, None] * m + columns[None, :]
    return leading, columns, offsets, (rows < n)[:, None] & (columns < m)[None, :]


@triton.jit
def sums_kernel(  # noqa: PLR0917
    y, partial, n, m, blocks, SPACING: tl.constexpr, KNOTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Write one tile's share of the sums to ``partial``, ``(G, blocks, 2, T, M)``."""
    _, columns, offsets, inside = _tile(n, m, blocks, ROWS, COLUMNS)
    theta = tl.load(y + offsets, mask=inside, other=0.0) * SPACING
    # Rows past the end add nothing: their cos starts at 0 instead of 1 and stays 0 under rotation.
    c = inside.to(theta.dtype)
    s = tl.zeros_like(theta)
    c1, s1 = tl.cos(theta) * c, tl.sin(theta)
    out = partial + tl.program_id(0).to(tl.int64) * 2 * KNOTS * m + columns
    for j in range(KNOTS):
        tl.store(out + j * m, tl.sum(c, 0), mask=columns < m)
        tl.store(out + (KNOTS + j) * m, tl.sum(s, 0), mask=columns < m)
        c, s = c * c1 - s * s1, s * c1 + c * s1


@triton.jit
def gradient_kernel(  # noqa: PLR0917
    y, grad, out, n, m, blocks, SPACING: tl.constexpr, KNOTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Horner's rule on one tile; ``grad`` is ``(G, 2, T, M)``."""
    leading, columns, offsets, inside = _tile(n, m, blocks, ROWS, COLUMNS)
    theta = tl.load(y + offsets, mask=inside, other=0.0) * SPACING
    c1, s1 = tl.cos(theta), tl.sin(theta)
    real, imag = tl.zeros_like(theta), tl.zeros_like(theta)
    grad += leading * 2 * KNOTS * m + columns
    for k in range(1, KNOTS):
        j = KNOTS - k
        a = tl.load(grad + (KNOTS + j) * m, mask=columns < m, other=0.0) * j
        b = tl.load(grad + j * m, mask=columns < m, other=0.0) * j
        real, imag = real + a[None, :], imag + b[None, :]
        real, imag = real * c1 - imag * s1, imag * c1 + real * s1
    tl.store(out + offsets, real * SPACING, mask=inside)


def sums(y: Tensor, spacing: float, knots: int) -> Tensor:
    """Contiguous ``(..., N, M)`` to ``(..., 2, T, M)``; deterministic, because it uses no atomics."""
    grid, blocks, options = launch(y)
    partial = y.new_empty(*y.shape[:-2], blocks, 2, knots, y.shape[-1])
    sums_kernel[grid](y, partial, *y.shape[-2:], blocks, SPACING=spacing, KNOTS=knots, **options)
    return partial.sum(-4)


def gradient(y: Tensor, grad: Tensor, spacing: float) -> Tensor:
    """``(..., N, M)`` and ``(..., 2, T, M)``, both contiguous, to ``(..., N, M)``."""
    grid, blocks, options = launch(y)
    out = torch.empty_like(y)
    gradient_kernel[grid](y, grad, out, *y.shape[-2:], blocks, SPACING=spacing, KNOTS=grad.shape[-2], **options)
    return out


def launch(y: Tensor) -> tuple[tuple[int, int], int, dict[str, int]]:
    """The grid, the number of row blocks per leading index, and the tile options."""
    # 16 elements per thread, 8 in float64, so that the four values carried per element stay in registers.
    rows = 256 // y.element_size()
    n, m = y.shape[-2:]
    blocks = triton.cdiv(n, rows)
    grid = (y.numel() // (n * m) * blocks, triton.cdiv(m, COLUMNS))
    return grid, blocks, {"ROWS": rows, "COLUMNS": COLUMNS, "num_warps": WARPS}

"""Factorises a linear symplectic map with an invertible block into a kick, a scaling and a drift."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa.theory._inputs import square, symplectic_defect


class KickDriftScaling(NamedTuple):
    """Symplectic factors ``(..., 2d, 2d)`` with ``matrix = drift @ scaling @ kick``."""

    drift: Tensor
    scaling: Tensor
    kick: Tensor


def kick_drift_scaling(matrix: Array, *, tolerance: float = 1e-5) -> KickDriftScaling:
    r"""``[[A,B],[C,D]] = [[I,BD⁻¹],[0,I]] [[D⁻ᵀ,0],[0,D]] [[I,0],[D⁻¹C,I]]`` [paper, proposition C.3].

    Args:
        matrix: a linear symplectic map ``(..., 2d, 2d)`` on columns ``[q; p]`` (a Jacobian, or `quadratic_flow`).
        tolerance: largest entry allowed of ``MᵀΩM − Ω``, in units of ``‖M‖²``.

    Returns:
        The three factors. ``BD⁻¹`` and ``D⁻¹C`` are symmetrised exactly, so the two shears are exactly symplectic.

    Raises:
        ValueError: if the matrix is not symplectic, its block ``D`` is singular, or ``tolerance`` is negative or not
            finite.
    """
    matrix = square("matrix", matrix)
    if matrix.shape[-1] % 2:
        raise ValueError(f"matrix must have shape (..., 2d, 2d), got {tuple(matrix.shape)}")
    d = matrix.shape[-1] // 2
    B, C, D = matrix[..., :d, d:], matrix[..., d:, :d], matrix[..., d:, d:]
    eye = torch.eye(d, dtype=matrix.dtype, device=matrix.device).expand_as(D)
    zero = torch.zeros_like(D)
    defect, unit = symplectic_defect(matrix)
    if not (defect <= _checks.finite("tolerance", tolerance, minimum=0.0) * unit).all():
        raise ValueError(f"matrix must be symplectic, got max |M^T Ω M - Ω| = {defect.max().item():.3g}")
    smallest = torch.linalg.svdvals(D.detach())[..., -1]
    if (smallest <= 2 * d * torch.finfo(matrix.dtype).eps * unit.sqrt()).any():
        raise ValueError(
            f"the lower right block D of matrix must be invertible, got smallest singular value "
            f"{smallest.min().item():.3g}; a rotation by a quarter turn, for example, has no such factors"
        )

    upper = _symmetric(torch.linalg.solve(D, B, left=False))
    lower = _symmetric(torch.linalg.solve(D, C))
    return KickDriftScaling(
        drift=_blocks(eye, upper, zero, eye),
        scaling=_blocks(torch.linalg.inv(D).mT, zero, zero, D),
        kick=_blocks(eye, zero, lower, eye),
    )


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _blocks(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.cat((torch.cat((a, b), -1), torch.cat((c, d), -1)), -2)

"""The flat layout of a phase-space state, ``z = [q | p]``."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks


def split_state(z: Tensor) -> tuple[Tensor, Tensor]:
    """Split a flat state into position and momentum (views, no copy) [paper, eq. 3].

    Args:
        z: ``(..., 2d)``, laid out ``[q | p]``.

    Returns:
        ``(q, p)``, each ``(..., d)``.

    Raises:
        TypeError: if ``z`` is not a floating-point tensor.
        ValueError: if its last dimension is missing or odd.
    """
    if _checks.floating("z", z).ndim == 0 or z.shape[-1] % 2 or z.shape[-1] == 0:
        raise ValueError(f"z must have an even last dimension [q | p], got shape {tuple(z.shape)}")
    q, p = z.chunk(2, dim=-1)
    return q, p


def join_state(q: Tensor, p: Tensor) -> Tensor:
    """Join position and momentum into a flat state; the inverse of `split_state` [paper, eq. 3].

    Args:
        q: positions, ``(..., d)``.
        p: momenta, ``(..., d)``.

    Returns:
        ``z = [q | p]``, ``(..., 2d)``.

    Raises:
        TypeError: if one is not a floating-point tensor.
        ValueError: if their shapes or devices differ.
    """
    _checks.states(q, p)
    return torch.cat((q, p), dim=-1)

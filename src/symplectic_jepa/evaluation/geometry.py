"""Directions and lengths of features: pair cosines, norms, alignment, uniformity. No gradients.

Features are tensors or numpy arrays; results are tensors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa._precision import autocast_off
from symplectic_jepa.distributed import Group
from symplectic_jepa.evaluation._inputs import (
    cpu_generator,
    feature_matrix,
    feature_samples,
    row_norms,
    together,
    unit_rows,
)

_CHUNK = 1024
_PAIRS = 2**23  # distances held at once


@torch.no_grad()
def pair_cosines(features: Array, *, pairs: int = 20000, seed: int = 0) -> Tensor:
    """Cosines ``⟨x_i, x_j⟩ / (‖x_i‖ ‖x_j‖)`` of random pairs of different rows, the mean NOT removed.

    A diagnostic of the paper [paper, appendix D.1]. A common mean direction shows up as cosines far above 0, even if
    the centred covariance (`spectrum`) has high rank, so look at both.

    Args:
        features: ``(N >= 2, D)``, a tensor or a numpy array.
        pairs: number of pairs; ``i != j`` in each, pairs may repeat.
        seed: seed of the draw, which is the same on every device.

    Returns:
        ``(pairs,)`` in float32 or better. A row of zeros has cosine 0 with everything.

    Raises:
        TypeError: if features are not floating.
        ValueError: if features are not a finite matrix with at least two rows, or a setting is out of range.
    """
    x = feature_matrix("features", features, minimum=2)
    _checks.positive_int("pairs", pairs)
    generator = cpu_generator(seed)
    n = len(x)
    first = torch.randint(n, (pairs,), generator=generator, device="cpu")
    shift = torch.randint(1, n, (pairs,), generator=generator, device="cpu")  # 1 … n-1, so never the same row
    index = torch.stack((first, (first + shift) % n)).to(x.device)
    cosines = []
    for i, j in torch.split(index, _CHUNK, dim=1):
        left, right = (unit_rows(x[rows]) for rows in (i, j))
        cosines.append((left * right).sum(dim=-1))
    return torch.cat(cosines)


@torch.no_grad()
def feature_norms(features: Array) -> Tensor:
    """Euclidean norms of the rows, ``‖z_i‖`` [paper, appendix D.1].

    Args:
        features: ``(..., N, D)``, a tensor or a numpy array.

    Returns:
        ``(..., N)`` in float32 or better, in the units of the features.

    Raises:
        TypeError: if features are not floating.
        ValueError: if they are empty, not finite or have fewer than two dimensions.
    """
    return row_norms(feature_samples("features", features)).squeeze(-1)


@torch.no_grad()
def alignment(z_a: Array, z_b: Array) -> Tensor:
    """Mean squared distance of two views on the unit sphere, ``mean ‖u_a - u_b‖²`` with ``u = z/‖z‖``.

    The alignment of [Wang & Isola 2020, arXiv:2005.10242], α = 2: 0 for equal directions, 2 for
    orthogonal ones, 4 for opposite ones. A row of zeros stays at the origin.

    Args:
        z_a: features of the first view, ``(..., N, D)``, a tensor or a numpy array.
        z_b: features of the second view, row by row the same samples.

    Returns:
        A scalar in float32 or better.

    Raises:
        TypeError: if a view is not floating.
        ValueError: if the shapes differ or a view is empty or not finite.
    """
    z_a, z_b = feature_samples("z_a", z_a), feature_samples("z_b", z_b)
    if z_a.shape != z_b.shape:
        raise ValueError(f"z_a and z_b must have the same shape, got {tuple(z_a.shape)} and {tuple(z_b.shape)}")
    _checks.same_device(z_a=z_a, z_b=z_b)
    difference = unit_rows(z_a) - unit_rows(z_b)
    return difference.square().sum(dim=-1).mean()


@torch.no_grad()
def uniformity(z: Array, *, t: float = 2.0, process_group: Group = None) -> Tensor:
    """Logarithm of the mean Gaussian potential over all pairs, ``log mean_{i<j} exp(-t ‖u_i - u_j‖²)``.

    The uniformity of [Wang & Isola 2020, arXiv:2005.10242]: 0 if all directions agree, and more negative the more
    evenly they cover the sphere. At most 2²³ distances are held at once.

    Args:
        z: features of one view, ``(N >= 2, D)``, a tensor or a numpy array. With a group, the rows of this rank, at
            least one.
        t: sharpness of the potential, above 0.
        process_group: the ranks whose rows are paired; by default this process alone. Each pairs its own rows with
            those that follow, on every rank.

    Returns:
        A scalar in float32 or better.

    Raises:
        TypeError: if z is not floating.
        ValueError: if z is not a finite matrix with at least two rows, or ``t <= 0``.
    """
    ranks = together(process_group)
    u = unit_rows(feature_matrix("z", z, minimum=1 if ranks.shared else 2))
    _checks.finite("t", t, minimum=0.0, exclusive=True)
    with autocast_off(u.device):
        counts = ranks.row_counts(len(u), u.device)
        total, before = sum(counts), sum(counts[: ranks.rank])
        everyone, size = ranks.gather(u, counts), max(1, _PAIRS // total)
        blocks = [_block_log_sum(rows, everyone[before + i * size :], t) for i, rows in enumerate(torch.split(u, size))]
        own = torch.logsumexp(torch.stack(blocks), dim=0)
        sums = ranks.gather(own.reshape(1, 1), [1] * ranks.size)
    return torch.logsumexp(sums.flatten(), dim=0) - math.log(total * (total - 1) / 2)


def _block_log_sum(rows: Tensor, rest: Tensor, t: float) -> Tensor:
    """``log Σ exp(-t ‖u_i - u_j‖²)`` over ``i`` in rows and ``j > i`` in rest, whose first rows are these."""
    square = rest.square().sum(dim=1)  # 1, up to rounding and rows of zeros
    distance = square[: len(rows), None] + square - 2.0 * rows @ rest.T
    later = torch.ones_like(distance, dtype=torch.bool).triu(diagonal=1)
    return torch.logsumexp(distance.clamp(min=0.0).mul(-t).where(later, -math.inf), dim=(0, 1))

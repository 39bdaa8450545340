"""Covariance spectrum of features, and two rank proxies."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa._precision import at_least_float32, power_of_two
from symplectic_jepa.distributed import Group
from symplectic_jepa.evaluation._inputs import cpu_generator, feature_matrix, together


class Spectrum(NamedTuple):
    """Largest eigenvalues of a covariance, descending, float64, and the rank proxies computed from exactly these."""

    eigenvalues: Tensor
    effective_rank: float
    participation_ratio: float


@torch.no_grad()
def spectrum(
    features: Array, *, samples: int = 5000, top: int = 256, seed: int = 0, process_group: Group = None
) -> Spectrum:
    """Eigenvalues of the mean-centred covariance ``Σ (x - x̄)(x - x̄)ᵀ / (N - 1)``, computed in float64.

    The paper's diagnostic [paper, appendix D.1]: 5,000 features, top 256. Both proxies use only the RETAINED
    eigenvalues, as in the paper's "top-256" figures, so neither exceeds ``top``; compare them only at equal ``top``.
    With fewer rows than dimensions the ``N x N`` Gram matrix is decomposed instead, which has the same nonzero
    eigenvalues.

    Args:
        features: ``(N >= 2, D)``, a tensor or a numpy array. With a group, the rows of this rank, at least one.
        samples: rows used at most, at least 2, chosen at random without replacement (all rows, if there are
            no more).
        top: eigenvalues kept at most.
        seed: seed of the choice of rows.
        process_group: the ranks whose rows are chosen from; by default this process alone. Only the chosen rows travel.

    Returns:
        ``min(top, D)`` eigenvalues, which are 0 beyond the rank of the data, with
        ``effective_rank = exp(-Σ p_i log p_i)``, ``p = λ/Σλ``, and ``participation_ratio = (Σλ)²/Σλ²``.
        Both are 0 for features that are all equal.

    Raises:
        TypeError: if features are not floating.
        ValueError: if features are not a finite matrix with at least two rows, or a setting is out of range.
    """
    ranks = together(process_group)
    x = feature_matrix("features", features, minimum=1 if ranks.shared else 2)
    if _checks.positive_int("samples", samples) < 2:
        raise ValueError(f"samples must be an int >= 2, got {samples!r}")
    _checks.positive_int("top", top)
    generator = cpu_generator(seed)
    counts = ranks.row_counts(len(x), x.device)
    if sum(counts) > samples:
        chosen = torch.randperm(sum(counts), generator=generator, device="cpu")[:samples]
        before = sum(counts[: ranks.rank])
        x = x[(chosen[(chosen >= before) & (chosen < before + len(x))] - before).to(x.device)]
    x = ranks.gather(x, ranks.row_counts(len(x), x.device))
    x = x.double()
    scale = power_of_two(x.abs().max())  # squares of what is left neither overflow nor vanish
    x = x / scale
    x = x - x.mean(dim=0)
    n, dim = x.shape
    moment = (x @ x.T if n < dim else x.T @ x) / (n - 1)
    found = torch.linalg.eigvalsh(moment).flip(0)[:top].clamp(min=0.0)
    eigenvalues = found.new_zeros(min(top, dim))
    eigenvalues[: len(found)] = found
    proxies = effective_rank(eigenvalues).item(), _participation_ratio(eigenvalues).item()
    return Spectrum(eigenvalues * scale.square(), *proxies)


def effective_rank(eigenvalues: Array) -> Tensor:
    """Exponential of the entropy of a spectrum, ``exp(-Σ p_i log p_i)`` with ``p = λ/Σλ``.

    It is 1 for one nonzero eigenvalue and ``n`` for ``n`` equal ones, and does not depend on their scale
    [Roy & Vetterli 2007; paper, appendix D.1].

    Args:
        eigenvalues: ``(..., n)``, a tensor or a numpy array; negative ones, the rounding of an eigensolver, count as 0.

    Returns:
        ``(...)``, in ``[1, n]``; 0 for a spectrum that is all zero.

    Raises:
        TypeError: if eigenvalues are not floating.
        ValueError: if there are none, or one is NaN or infinite.
    """
    values, total = _nonnegative(eigenvalues)
    entropy = torch.special.entr(values / total.clamp(min=torch.finfo(values.dtype).tiny).unsqueeze(-1)).sum(dim=-1)
    return torch.where(total > 0, entropy.exp(), 0.0)


def _participation_ratio(eigenvalues: Array) -> Tensor:
    """``(Σλ)²/Σλ²`` of a spectrum ``(..., n)``, in ``[1, n]``; 0 for a spectrum that is all zero."""
    values, total = _nonnegative(eigenvalues)
    shares = values / total.clamp(min=torch.finfo(values.dtype).tiny).unsqueeze(-1)  # λ² could underflow, p² cannot
    return torch.where(total > 0, 1.0 / shares.square().sum(dim=-1), 0.0)


def _nonnegative(eigenvalues: Array) -> tuple[Tensor, Tensor]:
    """The spectrum in float32 or better, in units of its largest, with rounding below 0 removed, and its sum."""
    eigenvalues = _checks.floating("eigenvalues", _checks.array("eigenvalues", eigenvalues))
    if eigenvalues.ndim == 0 or eigenvalues.shape[-1] == 0:
        raise ValueError(f"eigenvalues must have shape (..., n >= 1), got {tuple(eigenvalues.shape)}")
    if not eigenvalues.isfinite().all():
        raise ValueError("eigenvalues must be finite, got NaN or infinity")
    values = at_least_float32(eigenvalues).clamp(min=0.0)
    values = values / power_of_two(values.detach().amax(-1, keepdim=True))  # the sum must neither overflow nor vanish
    return values, values.sum(dim=-1)

"""What the evaluations share: checks of features and labels, lengths at any scale, seeded CPU generators."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa._precision import at_least_float32, power_of_two
from symplectic_jepa.distributed import Group, Ranks


class LabelledFeatures(NamedTuple):
    """Features ``(N, D)``, floating, as given, and their int64 labels ``(N,)``."""

    features: Tensor
    labels: Tensor


def feature_samples(name: str, x: Array, *, minimum: int = 1) -> Tensor:
    """Return ``x``, detached, as a tensor if it holds finite floating samples ``(..., N >= minimum, D)``."""
    x = _checks.samples(name, _checks.array(name, x), minimum=minimum).detach()
    low, high = torch.aminmax(x)  # NaN propagates through both; no copy the size of x
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise ValueError(f"{name} must be finite, got NaN or infinity; did the encoder diverge?")
    return x


def feature_matrix(name: str, x: Array, *, minimum: int = 1) -> Tensor:
    """`feature_samples` of one matrix ``(N >= minimum, D)``."""
    x = feature_samples(name, x, minimum=minimum)
    if x.ndim != 2:
        raise ValueError(f"{name} must have shape (N, D), got {tuple(x.shape)}; flatten each sample first")
    return x


def labelled(name: str, features: Array, labels: Array) -> LabelledFeatures:
    """Check features against their labels; features are not copied, labels come back as int64."""
    x = feature_matrix(f"{name}_features", features)
    labels = _checks.array(f"{name}_labels", labels)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name}_labels must be integer class indices, got dtype {labels.dtype}")
    if labels.shape != x.shape[:1]:
        raise ValueError(
            f"{name}_labels must have shape ({len(x)},), one per row of {name}_features, got {tuple(labels.shape)}"
        )
    classes = labels.to(x.device, torch.int64)
    if labels.dtype == torch.uint64 and (classes < 0).any():  # wrapped around
        raise ValueError(f"{name}_labels must fit into int64, got a label of 2**63 or more")
    return LabelledFeatures(x, classes)


def together(process_group: Group) -> Ranks:
    """The ranks that evaluate together; without a group this process alone, so that it never waits."""
    return Ranks.of(process_group is not None, process_group)


def same_width(train: Tensor, test: Tensor) -> None:
    """Reject test features whose dimension differs from that of the training features."""
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"train_features and test_features must have the same dimension, got {train.shape[1]} and {test.shape[1]}"
        )


def row_norms(x: Tensor) -> Tensor:
    """``‖x_i‖`` of every row, ``(..., 1)``, in float32 or better, of any scale that the dtype has."""
    _, scale, norms = _scaled(x)
    return scale * norms


def unit_rows(x: Tensor) -> Tensor:
    """``x_i / ‖x_i‖``, in float32 or better, for rows of any scale; a row of zeros stays one."""
    scaled, _, norms = _scaled(x)
    return scaled.div_(norms.clamp_min(torch.finfo(norms.dtype).tiny))


def _scaled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A copy of ``x`` with each row divided by a power of two near its largest entry, that power, and its norms.

    Its squares neither overflow nor vanish.
    """
    x = at_least_float32(x)
    top = torch.linalg.vector_norm(x, math.inf, dim=-1, keepdim=True)
    scale = power_of_two(top)
    scaled = x / scale
    norms: Tensor = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled, scale, norms


def cpu_generator(seed: int) -> torch.Generator:
    """A separate generator for ``seed``: the same draws on every device, and the global generator is not touched."""
    return torch.Generator(device="cpu").manual_seed(_checks.integer("seed", seed))

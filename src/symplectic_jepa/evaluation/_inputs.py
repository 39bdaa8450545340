"""What the evaluations share: checks of features and labels, full precision, seeded CPU generators."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from symplectic_jepa import _checks


class LabelledFeatures(NamedTuple):
    """Features ``(N, D)``, float32 or float64, and their int64 labels ``(N,)``."""

    features: Tensor
    labels: Tensor


def feature_matrix(name: str, x: Tensor, *, minimum: int = 1) -> Tensor:
    """Return ``x``, detached, if it is a finite floating ``(N >= minimum, D)`` matrix."""
    _checks.samples(name, x, minimum=minimum)
    if x.ndim != 2:
        raise ValueError(f"{name} must have shape (N, D), got {tuple(x.shape)}; flatten each sample first")
    low, high = torch.aminmax(x.detach())  # NaN propagates through both; no copy the size of x
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise ValueError(f"{name} must be finite, got NaN or infinity; did the encoder diverge?")
    return x.detach()


def labelled(name: str, features: Tensor, labels: Tensor) -> LabelledFeatures:
    """Check features against their labels; features come back in float32 or better, labels as int64."""
    x = feature_matrix(f"{name}_features", features)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name}_labels must be integer class indices, got dtype {labels.dtype}")
    if labels.shape != x.shape[:1]:
        raise ValueError(
            f"{name}_labels must have shape ({len(x)},), one per row of {name}_features, got {tuple(labels.shape)}"
        )
    return LabelledFeatures(at_least_float32(x), labels.to(x.device, torch.int64))


def same_width(train: Tensor, test: Tensor) -> None:
    """Reject test features whose dimension differs from that of the training features."""
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"train_features and test_features must have the same dimension, got {train.shape[1]} and {test.shape[1]}"
        )


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32 if it was half or bfloat16; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def autocast_off(device: torch.device) -> torch.autocast:
    """A context in which the caller's autocast does not lower matrix products on ``device``."""
    return torch.autocast(device.type, enabled=False)


def cpu_generator(seed: int) -> torch.Generator:
    """A separate generator for ``seed``: the same draws on every device, and the global generator is not touched."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an int >= 0, got {seed!r}")
    return torch.Generator(device="cpu").manual_seed(seed)

"""A floor under every coordinate's standard deviation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision


class VarianceFloor(nn.Module):
    r"""``mean_i relu(σ_min − sqrt(var_i + ε))²``, biased variance over the batch [paper, appendix F.8].

    Args:
        floor: ``σ_min``.
        eps: ``ε``, keeps the gradient of the root finite at zero variance.

    Raises:
        ValueError: if ``floor`` or ``eps`` is not positive and finite.
    """

    def __init__(self, floor: float = 0.2, *, eps: float = 1e-4) -> None:
        super().__init__()
        self.floor = _checks.finite("floor", floor, minimum=0.0, exclusive=True)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)
        self.statistics: dict[str, Tensor] = {}

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """``(..., N, D)`` to a scalar, the mean over coordinates and leading dimensions."""
        std = (_checks.samples("x", x).var(-2, correction=0) + self.eps).sqrt()
        self.statistics = {"std": std.detach().mean()}
        return torch.relu(self.floor - std).square().mean()

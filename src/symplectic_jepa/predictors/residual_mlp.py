"""The ablation: a residual MLP in place of the flow."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.predictors._base import Predictor


class ResidualMLPPredictor(Predictor):
    r"""The ablation MLP-HJEPA: ``z ← z ± h · g(z)``, ``S`` steps, neither symplectic nor invertible.

    ``g`` is a GELU MLP ``2d → hidden_dim → … → 2d`` [paper, section 5.1]. Precision as for the dynamics:
    float32 or better.

    Args:
        dim: ``d``, half the dimension of a state.
        hidden_dim: width of the hidden layers.
        depth: number of hidden layers.
        dt: step size ``h > 0``.
        steps: number of steps ``S``.
        learn_dt: see `Predictor`.

    Raises:
        ValueError: for a size below 1 or a ``dt`` that is not positive and finite.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden_dim: int = 256,
        depth: int = 2,
        dt: float = 0.05,
        steps: int = 2,
        learn_dt: bool = False,
    ) -> None:
        super().__init__(dt=dt, steps=steps, learn_dt=learn_dt)
        self.dim = _checks.positive_int("dim", dim)
        _checks.positive_int("hidden_dim", hidden_dim)
        _checks.positive_int("depth", depth, maximum=1000)
        widths = [2 * dim] + [hidden_dim] * depth
        layers: list[nn.Module] = []
        for i, o in pairwise(widths):
            layers += [nn.Linear(i, o), nn.GELU()]
        self.residual = nn.Sequential(*layers, nn.Linear(widths[-1], 2 * dim))

    @property
    def hidden_dim(self) -> int:
        """Width of the hidden layers."""
        first: nn.Linear = self.residual[0]  # type: ignore[assignment]
        return first.out_features

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.residual) // 2

    @property
    def mixes_directions(self) -> bool:
        """See `Predictor`."""
        return True

    def forward(self, z: Tensor, *, direction: int | Tensor = 1) -> Tensor:
        """Roll out states ``(..., 2d)``, forward or in reverse time.

        Raises:
            ValueError: if ``direction`` is not 1 or −1, or ``z`` does not end in ``2 · dim``.
        """
        _checks.coordinates("z", z, 2 * self.dim)
        dtype = z.dtype
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(torch.promote_types(dtype, torch.float32))
            h = self._signed_dt(direction, z)
            for _ in range(self.steps):
                z = z + h * self._residual(z)
        return z.to(dtype)

    def _residual(self, z: Tensor) -> Tensor:
        """``g(z)``, the weights in the dtype of the state."""
        for layer in self.residual:
            if isinstance(layer, nn.Linear):
                bias = layer.bias
                z = F.linear(z, layer.weight.to(z.dtype), None if bias is None else bias.to(z.dtype))
            else:
                z = layer(z)
        return z

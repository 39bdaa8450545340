"""A predictor without structure: a small causal transformer over past states and actions, as in LeWorldModel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from symplectic_jepa.objectives import PredictionLoss, mean_over_samples
from symplectic_jepa.objectives.penalty import StateParts
from symplectic_jepa.regularizers import Reduction

CONTEXT = 8  # frames


class CausalTransformer(nn.Module):
    """``ẑ_{t+1} = z_t + g(z_{t−7…t}, u_{t−7…t})`` [LeWorldModel, arXiv:2603.19312]."""

    def __init__(self, dim: int, *, control_dim: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.inputs = nn.Linear(2 * dim + control_dim, width)
        self.places = nn.Parameter(0.02 * torch.randn(CONTEXT, 1, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, activation="gelu", norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.outputs = nn.Linear(width, 2 * dim)

    def forward(self, states: Tensor, controls: Tensor) -> Tensor:
        """The state after each of up to 8 frames, ``(T, B, 2d)``, under controls ``(T, B, m)``."""
        x = self.inputs(torch.cat((states, controls), -1)) + self.places[: len(states)]
        mask = nn.Transformer.generate_square_subsequent_mask(len(states))
        change: Tensor = self.outputs(self.blocks(x, mask=mask, is_causal=True))
        return states + change

    def rollout(self, states: Tensor, controls: Tensor) -> Tensor:
        """Continue ``(C, B, 2d)`` under controls of the past and the future, ``(C − 1 + T, B, m)``: ``(T, B, 2d)``."""
        path, known = list(states), len(states)
        while len(path) < len(controls) + 1:
            past = torch.stack(path[-CONTEXT:])
            path.append(self(past, controls[len(path) - len(past) : len(path)])[-1])
        return torch.stack(path[known:])


class TeacherForced(PredictionLoss):
    """One-frame errors with the encoder's own states as past, ``mean ‖ẑ_{t+1} − z_{t+1}‖² / 2d``."""

    views = 2

    def __init__(self, predictor: CausalTransformer) -> None:
        super().__init__()
        self.predictor = predictor

    def reduction(self, parts: StateParts, control: Tensor | None) -> Reduction:
        """See `PredictionLoss`."""
        states = parts["z"]
        assert control is not None
        predicted = self.predictor(states[:-1], control)
        return mean_over_samples((predicted - states[1:]).square().mean((0, -1)))

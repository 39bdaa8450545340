"""Feature vectors to phase-space states, for observations over time."""

from __future__ import annotations

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.state import join_state


class PhaseSpaceVectorEncoder(Pretrained, nn.Module):
    """A backbone's features as a state ``z = [q | p] = W f(x)``, by one linear layer.

    To encode motion, let ``x`` hold several frames, such as ``k`` images stacked along the channels;
    `PhaseSpaceCausalEncoder` keeps the position free of earlier frames [stacked frames: Hamiltonian generative
    networks, arXiv:1909.13789].

    Args:
        backbone: module that maps observations to features ``(..., F)``.
        features: number of features ``F``.
        dim: dimension ``d`` of ``q`` (and of ``p``).

    Raises:
        ValueError: for a size below 1.
        TypeError: if ``backbone`` is not a module.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> encoder = PhaseSpaceVectorEncoder(nn.Flatten(-3), features=3 * 8 * 8, dim=16)
        >>> encoder(torch.randn(10, 4, 3, 8, 8)).shape
        torch.Size([10, 4, 32])
    """

    def __init__(self, backbone: nn.Module, *, features: int, dim: int) -> None:
        super().__init__()
        self.features = _checks.positive_int("features", features)
        self.dim = _checks.positive_int("dim", dim)
        self.backbone = _checks.instance("backbone", backbone, nn.Module)
        self.projection = nn.Linear(features, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Encode observations that the backbone maps to ``(..., F)`` into states ``(..., 2d)``.

        Raises:
            ValueError: if the backbone returns another number of features.
            TypeError: if ``x`` is not floating-point.
        """
        z: Tensor = self.projection(_features(self.backbone(_checks.floating("x", x)), self.features))
        return z


class PhaseSpaceCausalEncoder(Pretrained, nn.Module):
    """A state whose position reads the current frame only, and whose momentum reads the last ``k``.

    ``q_t = W f(x_t)`` and ``p_t = Σ_{i<k} M_i f(x_{t−i})``: a momentum is a difference over time, a position is not.
    The backbone encodes each frame once, and no state depends on a later frame. Two frames determine the momentum in
    discrete mechanics, too [Marsden and West (2001), Acta Numerica 10, 357].

    Args:
        backbone: module that maps frames ``(N, ...)`` to features ``(N, F)``.
        features: number of features ``F``.
        dim: dimension ``d`` of ``q`` (and of ``p``).
        frames: number of frames ``k`` that the momentum reads, at least 2.

    Raises:
        ValueError: for a size below 1, or ``frames < 2``.
        TypeError: if ``backbone`` is not a module.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> encoder = PhaseSpaceCausalEncoder(nn.Flatten(), features=3 * 8 * 8, dim=16, frames=3)
        >>> encoder(torch.randn(10, 4, 3, 8, 8)).shape  # frames 2 to 9
        torch.Size([8, 4, 32])
    """

    def __init__(self, backbone: nn.Module, *, features: int, dim: int, frames: int = 2) -> None:
        super().__init__()
        self.features = _checks.positive_int("features", features)
        self.dim = _checks.positive_int("dim", dim)
        self.frames = _checks.positive_int("frames", frames)
        if frames < 2:
            raise ValueError(f"frames must be an int >= 2, for momenta are differences between frames, got {frames}")
        self.backbone = _checks.instance("backbone", backbone, nn.Module)
        self.position = nn.Linear(features, dim)
        self.momentum = nn.Linear(frames * features, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Encode frames ``(T, B, ...)`` into states ``(T − k + 1, B, 2d)``; the first is that of frame ``k − 1``.

        The first ``k − 1`` frames have no state, so the controls that belong to the states are ``controls[k - 1:]``.

        Raises:
            ValueError: if there are fewer than ``k`` frames, or the backbone returns another number of features.
            TypeError: if ``x`` is not floating-point.
        """
        if _checks.floating("x", x).ndim < 3 or x.shape[0] < self.frames:
            raise ValueError(f"x must have shape (T >= {self.frames}, B, ...), got {tuple(x.shape)}")
        f = _features(self.backbone(x.flatten(0, 1)), self.features).reshape(*x.shape[:2], -1)
        windows = f.unfold(0, self.frames, 1).transpose(-1, -2).flatten(-2)  # oldest frame first
        return join_state(self.position(f[self.frames - 1 :]), self.momentum(windows))


def _features(features: Tensor, expected: int) -> Tensor:
    if features.ndim < 2 or features.shape[-1] != expected:
        raise ValueError(f"backbone must return features (..., {expected}), got {tuple(features.shape)}")
    return features

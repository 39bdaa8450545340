"""Images to phase-space states."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.state import join_state

_STAGE_CHANNELS = {2: 128, 3: 256, 4: 512}  # of ResNet-18


class ResNet18(Pretrained, nn.Sequential):
    """A randomly initialised ResNet-18 cut after one of its stages: ``(B, 3, H, W)`` to ``(B, C, h, w)``.

    Args:
        stem: ``"cifar"`` (3×3 stride-1 convolution, no max-pool) or ``"imagenet"`` (the usual one).
        token_layer: the last stage, 2, 3 or 4, with ``C`` = 128, 256 or 512; later stages are not kept.

    Raises:
        ValueError: for an unknown stem or stage.
    """

    def __init__(self, *, stem: str = "cifar", token_layer: int = 3) -> None:
        from torchvision.models import resnet18  # noqa: PLC0415  (only this module needs torchvision)

        _checks.one_of("stem", stem, ("cifar", "imagenet"))
        if token_layer not in _STAGE_CHANNELS:
            raise ValueError(f"token_layer must be 2, 3 or 4, got {token_layer!r}")
        net = resnet18(weights=None)
        if stem == "cifar":
            conv = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            # torchvision's own rule for its convolutions
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            first: list[nn.Module] = [conv, net.bn1, net.relu]
        else:
            first = [net.conv1, net.bn1, net.relu, net.maxpool]
        super().__init__(*first, *(getattr(net, f"layer{i}") for i in range(1, token_layer + 1)))
        self.stem = stem
        self.token_layer = token_layer


class PhaseSpaceTokenEncoder(Pretrained, nn.Module):
    r"""A backbone's token grid as a state ``z = [q | p]`` [paper, section 4.1 and appendix F.4].

    Tokens are pooled to ``grid`` (if given), projected by a 1×1 convolution without bias and BatchNorm to
    ``token_channels``; per token the first half of the channels is ``q`` and the second ``p``, and each half is
    flattened in (row, column, channel) order: ``d = h · w · token_channels / 2``. There is no projector: it would
    mix ``q`` and ``p``.

    Args:
        backbone: module from ``(B, 3, H, W)`` to a feature map ``(B, C, h, w)`` or to tokens ``(B, N, C)``. Class and
            register tokens are its to drop: only where tokens are pooled to ``grid`` are they noticed.
        in_channels: ``C``.
        token_channels: channels per token after the projection; even.
        grid: side of the token grid (or ``(h, w)``) that features are pooled to adaptively; ``None`` keeps the
            backbone's.

    Raises:
        ValueError: for a size below 1, or odd ``token_channels``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        in_channels: int,
        token_channels: int = 32,
        grid: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = _checks.positive_int("in_channels", in_channels)
        if _checks.positive_int("token_channels", token_channels) % 2:
            raise ValueError(f"token_channels must be even, half for q and half for p, got {token_channels}")
        sides = grid if isinstance(grid, tuple) else (grid, grid)
        if grid is not None and (len(sides) != 2 or any(type(s) is not int or s < 1 for s in sides)):
            raise ValueError(f"grid must be an int >= 1, a pair of them, or None, got {grid!r}")
        self.grid = None if grid is None else sides
        self.backbone = backbone
        self.token_projection = nn.Sequential(
            nn.Conv2d(in_channels, token_channels, kernel_size=1, bias=False), nn.BatchNorm2d(token_channels)
        )

    @classmethod
    def resnet18(
        cls,
        *,
        stem: str = "cifar",
        token_layer: int = 3,
        token_channels: int = 32,
        grid: int | tuple[int, int] | None = None,
    ) -> PhaseSpaceTokenEncoder:
        """Build the paper's encoder: a randomly initialised ResNet-18 cut after ``token_layer``.

        Args:
            stem: ``"cifar"`` (3×3 stride-1 convolution, no max-pool) or ``"imagenet"`` (the usual one).
            token_layer: stage whose feature map becomes the tokens, 2, 3 or 4; later stages are not built.
            token_channels: see the class.
            grid: see the class; the paper uses 8 for ImageNet (14×14 pooled to 8×8) and ``None`` for CIFAR.

        Raises:
            ValueError: for an unknown stem or layer.
        """
        return cls(
            ResNet18(stem=stem, token_layer=token_layer),
            in_channels=_STAGE_CHANNELS[token_layer],
            token_channels=token_channels,
            grid=grid,
        )

    @property
    def token_channels(self) -> int:
        """Channels per token after the projection."""
        projection: nn.Conv2d = self.token_projection[0]  # type: ignore[assignment]
        return projection.out_channels

    def forward(self, images: Tensor) -> Tensor:
        """Encode images ``(B, 3, H, W)`` into states ``(B, 2d)``.

        Raises:
            ValueError: if the backbone's output is neither ``(B, C, h, w)`` nor ``(B, N, C)`` with
                ``C = in_channels``, or tokens that are no square grid are to be pooled.
        """
        tokens = self.token_projection(self._feature_map(self.backbone(images)))
        q, p = rearrange(tokens, "b (half c) h w -> half b (h w c)", half=2)
        return join_state(q, p)

    def _feature_map(self, features: Tensor) -> Tensor:
        """``(B, C, h, w)`` on the target grid, from a feature map or tokens."""
        if features.ndim == 3 and features.shape[2] == self.in_channels:
            # Without pooling no step looks at the neighbours, so any number of tokens may stand in one row.
            side = round(features.shape[1] ** 0.5) if self.grid else 1
            if self.grid and side * side != features.shape[1]:
                raise ValueError(
                    f"grid={self.grid} needs tokens on a square grid to pool, got {features.shape[1]} tokens; let "
                    "the backbone drop its class and register tokens"
                )
            features = rearrange(features, "b (h w) c -> b c h w", h=side)
        if features.ndim != 4 or features.shape[1] != self.in_channels:
            raise ValueError(
                f"backbone must return (B, {self.in_channels}, h, w) or (B, N, {self.in_channels}), got "
                f"{tuple(features.shape)}"
            )
        if self.grid and features.shape[2:] != self.grid:
            features = F.adaptive_avg_pool2d(features, self.grid)
        return features

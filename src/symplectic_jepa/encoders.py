"""Images to phase-space states."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.state import join_state

Stem = Literal["cifar", "imagenet"]
_STAGE_CHANNELS = {2: 128, 3: 256, 4: 512}  # of ResNet-18


class ResNet18(Pretrained, nn.Sequential):
    """A randomly initialised ResNet-18 cut after one of its stages: ``(B, 3, H, W)`` to ``(B, C, h, w)``.

    Args:
        stem: ``"cifar"`` (3×3 stride-1 convolution, no max-pool) or ``"imagenet"`` (the standard stem).
        token_layer: the last stage to keep: 2, 3 or 4, with ``C`` = 128, 256 or 512.

    Raises:
        ValueError: for an unknown stem or stage.
    """

    def __init__(self, *, stem: Stem, token_layer: int) -> None:
        from torchvision.models import resnet18  # noqa: PLC0415  (only this module needs torchvision)

        _checks.one_of("stem", stem, get_args(Stem))
        if token_layer not in _STAGE_CHANNELS:
            raise ValueError(f"token_layer must be 2, 3 or 4, got {token_layer!r}")
        net = resnet18(weights=None)
        if stem == "cifar":
            conv = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            # as torchvision initialises its convolutions
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            first: list[nn.Module] = [conv, net.bn1, net.relu]
        else:
            first = [net.conv1, net.bn1, net.relu, net.maxpool]
        super().__init__(*first, *(getattr(net, f"layer{i}") for i in range(1, token_layer + 1)))
        self.stem = stem
        self.token_layer = token_layer


class PhaseSpaceTokenEncoder(Pretrained, nn.Module):
    r"""A backbone's token grid as a state ``z = [q | p]`` [paper, section 4.1 and appendix F.4].

    Tokens are pooled to ``grid`` (if given) and projected to ``token_channels`` by a 1×1 convolution without bias and
    BatchNorm. The first half of each token's channels is ``q``, the second half ``p``. Each half is flattened in (row,
    column, channel) order, so ``d = h · w · token_channels / 2``. There is no projector, because it would mix ``q`` and
    ``p``.

    Args:
        backbone: module that maps ``(B, 3, H, W)`` to a feature map ``(B, C, h, w)`` or to tokens ``(B, N, C)`` in
            row-major order.
        in_channels: number of channels ``C`` of the backbone's output.
        token_channels: channels per token after the projection; even.
        grid: side (or ``(h, w)``) of the token grid for adaptive pooling; ``None`` keeps the backbone's grid.
        prefix_tokens: number of leading class and register tokens to drop.
        token_shape: ``(h, w)`` of the remaining tokens. The default, a square, requires a square image and a square
            number of tokens.

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
        prefix_tokens: int = 0,
        token_shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = _checks.positive_int("in_channels", in_channels)
        if _checks.positive_int("token_channels", token_channels) % 2:
            raise ValueError(f"token_channels must be even, half for q and half for p, got {token_channels}")
        self.grid = None if grid is None else _sides("grid", grid)
        self.prefix_tokens = _checks.natural("prefix_tokens", prefix_tokens)
        self.token_shape = None if token_shape is None else _sides("token_shape", token_shape)
        self.backbone = backbone
        self.token_projection = nn.Sequential(
            nn.Conv2d(in_channels, token_channels, kernel_size=1, bias=False), nn.BatchNorm2d(token_channels)
        )

    @classmethod
    def resnet18(
        cls,
        *,
        stem: Stem = "cifar",
        token_layer: int = 3,
        token_channels: int = 32,
        grid: int | tuple[int, int] | None = None,
    ) -> PhaseSpaceTokenEncoder:
        """Build the paper's encoder: a randomly initialised ResNet-18 cut after ``token_layer``.

        Args:
            stem: ``"cifar"`` (3×3 stride-1 convolution, no max-pool) or ``"imagenet"`` (the standard stem).
            token_layer: stage whose feature map becomes the tokens: 2, 3 or 4.
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
        """Encode images ``(..., B, 3, H, W)`` into states ``(..., B, 2d)``, all leading dimensions as one batch.

        Raises:
            ValueError: if ``images`` has fewer than four dimensions, the backbone's output is neither ``(B, C, h, w)``
                nor ``(B, N, C)`` with ``C = in_channels``, or the shape of its token grid is unknown.
        """
        if images.ndim < 4:
            raise ValueError(f"images must have shape (..., B, 3, H, W), got {tuple(images.shape)}")
        features = self.backbone(images.flatten(0, -4))
        tokens = self.token_projection(self._feature_map(features, square=images.shape[-1] == images.shape[-2]))
        q, p = rearrange(tokens, "b (half c) h w -> half b (h w c)", half=2)
        z = join_state(q, p)
        return z.reshape(*images.shape[:-3], z.shape[-1])

    def _feature_map(self, features: Tensor, *, square: bool) -> Tensor:
        """Feature map or tokens as ``(B, C, h, w)`` on the target grid; ``square`` is whether the image is square."""
        if features.ndim == 3 and features.shape[2] == self.in_channels:
            features = features[:, self.prefix_tokens :]
            h, w = self.token_shape or self._square(features.shape[1], square)
            if h * w != features.shape[1]:
                raise ValueError(
                    f"token_shape={self.token_shape} needs {h * w} tokens, got {features.shape[1]} after "
                    f"prefix_tokens={self.prefix_tokens}"
                )
            features = rearrange(features, "b (h w) c -> b c h w", h=h)
        elif self.prefix_tokens or self.token_shape:
            raise ValueError(
                f"prefix_tokens and token_shape are for a backbone that returns tokens (B, N, {self.in_channels}), got "
                f"{tuple(features.shape)}"
            )
        if features.ndim != 4 or features.shape[1] != self.in_channels:
            raise ValueError(
                f"backbone must return (B, {self.in_channels}, h, w) or (B, N, {self.in_channels}), got "
                f"{tuple(features.shape)}"
            )
        if self.grid and features.shape[2:] != self.grid:
            features = F.adaptive_avg_pool2d(features, self.grid)
        return features

    def _square(self, count: int, square_image: bool) -> tuple[int, int]:
        """The sides of a square token grid; raises an error that explains what to set if there is none."""
        side = math.isqrt(count)
        if count and square_image and side**2 == count:
            return side, side
        extra = count - side**2
        raise ValueError(
            f"token_shape=(h, w) must be given for {count} tokens of a {'' if square_image else 'non-'}square image "
            f"(prefix_tokens={self.prefix_tokens}): they are not known to be a square grid"
            + (f"; if {extra} of them are class and register tokens, set prefix_tokens={extra}" if extra else "")
        )


def _sides(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    sides = value if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise ValueError(f"{name} must be an int >= 1, a pair of them, or None, got {value!r}")
    return sides[0], sides[1]

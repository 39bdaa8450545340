"""The embedded data set: small texture images, generated on the fly, with nothing to download.

A class is a pattern and an orientation ("checks 45°"). Everything else about an image is random: phase, frequency,
tilt by a few degrees, bends in the lines, both colours and which is lighter, uneven illumination and pixel noise. Two
images of a class therefore share few pixel values, and nearest neighbours on raw pixels do poorly. The class survives
random resized crops, colour jitter and blur, but not flips or large rotations: these turn 45° into 135°.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.recipe.sections import CLASSES, Data

PATTERNS = ("stripes", "checks", "dashes")
ORIENTATIONS = (0, 45, 90, 135)  # of the lines, in degrees anticlockwise from the horizontal
CLASS_NAMES = tuple(f"{pattern} {angle}°" for pattern in PATTERNS for angle in ORIENTATIONS)

MIN_SIZE = 16  # below this, the finest pattern has less than about two pixels per cycle
CYCLES = (4.0, 7.0)  # per image width, across the lines
TILT = 6.0  # at most, in degrees; a crop of aspect 3/4 adds 8, and classes are 45 apart
BEND = 1.5  # at most, in radians of phase; it keeps two images from matching pixel by pixel
LUMA = (0.299, 0.587, 0.114)


def make_textures(count: int, *, classes: int = 8, size: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw ``count`` texture images and their labels.

    Args:
        count: number of images. Class sizes differ by at most one.
        classes: use the first ``classes`` names in ``CLASS_NAMES``: 4 are stripes, 8 add checks, 12 add dashes.
        size: height and width in pixels. The patterns scale with it.
        seed: seed of a separate generator; the global one is not used. Take different seeds for training and test
            images: a larger ``count`` draws new images, it does not extend the smaller set.

    Returns:
        uint8 images ``(count, 3, size, size)`` and int64 labels ``(count,)``, in random order.
    """
    _check_int("count", count, 1, None)
    _check_int("classes", classes, 2, len(CLASS_NAMES))
    _check_int("size", size, MIN_SIZE, None)
    _check_int("seed", seed, 0, 2**63 - 1)
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    labels = (torch.arange(count) % classes)[torch.randperm(count, generator=generator)]
    kind = labels // len(ORIENTATIONS)
    angle = torch.tensor(ORIENTATIONS)[labels % len(ORIENTATIONS)] + uniform(-TILT, TILT)

    # Distances across and along the lines, in image widths; y runs downwards.
    across = _ramp(torch.deg2rad(90 - angle), size)
    along = _ramp(torch.deg2rad(-angle), size)
    omega = 2 * math.pi * uniform(*CYCLES, 1, 1)
    phase = uniform(0, 2 * math.pi, 2, 1, 1) + _smooth(uniform(-BEND, BEND, 2, 4, 4), size)
    wave = torch.cos(omega * across + phase[:, 0])
    slow = torch.cos(omega / 2 * along + phase[:, 1])  # half the frequency: cells are twice as long as they are wide

    field = wave  # in [-1, 1]: 1 is foreground, -1 is background
    for index, soft in ((1, wave * slow), (2, torch.minimum(wave, slow + 0.4))):
        field = torch.where((kind == index)[:, None, None], torch.tanh(6 * soft), field)

    # The colours differ by at least 0.2 in luma, so that a greyscale copy keeps the pattern.
    grey = uniform(0.3, 0.7, 1)
    sign = 1 - 2 * torch.randint(0, 2, (count, 1), generator=generator)
    offset = sign * uniform(0.1, 0.22, 1)
    foreground = _colour(grey + offset, uniform(-0.4, 0.4, 3))
    background = _colour(grey - offset, uniform(-0.4, 0.4, 3))
    mix = (field[:, None] + 1) / 2
    images = mix * foreground + (1 - mix) * background

    images += _smooth(uniform(-1, 1, 1, 4, 4), size) * uniform(0, 0.3, 1, 1, 1)
    images += torch.randn(images.shape, generator=generator) * uniform(0.03, 0.15, 1, 1, 1)
    return images.clamp_(0, 1).mul_(255).round_().to(torch.uint8), labels


def _ramp(direction: Tensor, size: int) -> Tensor:
    """Position along ``direction`` (radians, clockwise from the x axis), in widths from the centre."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    cosine, sine = direction.cos()[:, None, None], direction.sin()[:, None, None]
    return axis[None, None, :] * cosine + axis[None, :, None] * sine


def _smooth(grid: Tensor, size: int) -> Tensor:
    return F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=True)


def _colour(luma: Tensor, tint: Tensor) -> Tensor:
    """RGB with exactly the given luma, and as much of the tint as fits between 0 and 1."""
    tint = tint - (tint * torch.tensor(LUMA)).sum(1, keepdim=True)
    room = torch.where(tint > 0, 1 - luma, luma) / tint.abs().clamp_min(1e-6)
    return (luma + tint * room.amin(1, keepdim=True).clamp_max(1))[:, :, None, None]


def _check_int(name: str, value: int, low: int, high: int | None) -> None:
    wanted = f">= {low}" if high is None else f"from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int {wanted}, got {value!r}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name} must be an int {wanted}, got {value}")


class Textures:
    """The textures as a data set: stripes and checks, each in four orientations."""

    resident = True
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    class_names = CLASS_NAMES[: CLASSES["textures"]]

    def __init__(self, config: Data, *, train: bool) -> None:
        # Different seeds, so that no test image repeats the draws of a training image.
        count, seed = (config.train_size, 0) if train else (config.test_size, 1)
        self._pixels, self._labels = make_textures(count, classes=len(self.class_names), seed=seed)

    def __len__(self) -> int:
        return len(self._labels)

    def image(self, index: int) -> Tensor:
        return self._pixels[index]

    def labels(self) -> Tensor:
        return self._labels

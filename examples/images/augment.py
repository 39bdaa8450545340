"""The augmentation of the paper's recipes, for a whole batch at once, on the training device.

The pixels equal those of ``torchvision.transforms.v2.functional`` on a single float image, but every op takes one
parameter per image, a tensor ``(B,)``. To skip an image, an op gets a parameter that changes nothing. No shape depends
on a random draw, and nothing is read back to the host. Crop, resize, flip and blur are linear and act on rows and
columns separately, so each is two batched matrix products ``rows @ image @ columns.T``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from examples.recipe.sections import AugmentConfig

RATIO = (3 / 4, 4 / 3)  # width : height of a crop
ATTEMPTS = 10  # to draw a crop that fits into the image
BOX_DRAWS = 2 * ATTEMPTS + 2  # uniform draws per box
DRAWS = BOX_DRAWS + 4 + 4 + 6  # per view: the box, jitter factors, jitter order, and six for the other ops


def sample_boxes(
    noise: Tensor, height: int | Tensor, width: int | Tensor, scale: tuple[float, float]
) -> tuple[Tensor, ...]:
    """Top, left, height and width of one crop per image, in whole pixels, from uniforms ``(BOX_DRAWS, B)``.

    ``height`` and ``width`` are numbers for all images, or tensors ``(B,)``. As in torchvision, the first of ten
    attempts that fits is used, or else the largest central crop with an allowed aspect ratio. Here all attempts are
    drawn at once.
    """
    area, ratio, (top, left) = noise.split((ATTEMPTS, ATTEMPTS, 2))
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** ratio
    h, w = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (h >= 1) & (h <= height) & (w >= 1) & (w <= width)
    any_fits, first = fits.any(0), fits.int().argmax(0, keepdim=True)
    h = torch.where(any_fits, h.gather(0, first)[0], _least(height, width / RATIO[0]))
    w = torch.where(any_fits, w.gather(0, first)[0], _least(width, height * RATIO[1]))
    top = torch.where(any_fits, top * (height - h + 1), (height - h) / 2)
    left = torch.where(any_fits, left * (width - w + 1), (width - w) / 2)
    return top.floor(), left.floor(), h, w


def _least(side: int | Tensor, other: float | Tensor) -> int | Tensor:
    """The smaller of ``side`` and the rounded ``other``."""
    return torch.minimum(side, other.round()) if isinstance(other, Tensor) else min(side, round(other))


def resample_matrix(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """``(B, out, size)``: resizes pixels ``[start, start + length)`` of an axis to ``out``, antialiased."""
    start, length = start[:, None, None], length[:, None, None]
    step = length / out
    pixel = torch.arange(size, device=start.device) + 0.5 - start
    centre = (torch.arange(out, device=start.device)[:, None] + 0.5) * step
    # A triangle that extends one pixel of the coarser grid to each side, limited to the crop.
    weight = (1 - (pixel - centre).abs() / step.clamp_min(1)).clamp_min(0)
    weight = weight * ((pixel > 0) & (pixel < length))
    return weight / weight.sum(-1, keepdim=True)


def blur_matrix(sigma: Tensor, kernel_size: int, size: int) -> Tensor:
    """``(B, size, size)``: a Gaussian with ``kernel_size`` taps and reflected borders; sigma 0 is the identity."""
    offset = torch.arange(kernel_size, device=sigma.device) - kernel_size // 2
    taps = (-0.5 * (offset / sigma[:, None].clamp_min(1e-3)) ** 2).softmax(1)
    pixel = torch.arange(size, device=sigma.device)
    source = size - 1 - (size - 1 - (pixel + offset[:, None]).abs()).abs()
    routes = (source[:, :, None] == pixel).to(taps.dtype)  # (kernel_size, size, size): tap, to, from
    return (taps @ routes.flatten(1)).unflatten(1, (size, size))


def resized_crop(images: Tensor, box: tuple[Tensor, ...], flip: Tensor, size: int) -> Tensor:
    """Resize the box (top, left, height, width) of each image to ``size × size``, mirrored where ``flip``."""
    top, left, height, width = box
    rows = resample_matrix(top, height, images.shape[2], size)
    columns = resample_matrix(left, width, images.shape[3], size)
    return _separable(images, rows, columns.lerp(columns.flip(1), flip.float()[:, None, None]))


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    return _separable(images, *(blur_matrix(sigma, kernel_size, size) for size in images.shape[2:]))


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor[:, None, None, None]).clamp(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(_luma(images).mean((2, 3), keepdim=True), images, factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(_luma(images), images, factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue by ``shift`` full circles; the largest and smallest channel values stay the same."""
    r, g, b = images.unbind(1)
    high, low = torch.maximum(torch.maximum(r, g), b), torch.minimum(torch.minimum(r, g), b)
    chroma = high - low
    unit = chroma.clamp_min(1e-12)  # Below, a lerp by a sign of 0 or 1 is torch.where, faster on the CPU.
    sixth = (2 * unit + (b - r)).lerp(4 * unit + (r - g), (high - g).sign())  # green largest, or blue
    sixth = (g - b).lerp(sixth, (high - r).sign())
    hue = (sixth / unit + 6 * shift[:, None, None]).remainder(6)
    # Around the circle, each channel is a trapezoid between the smallest and the largest value.
    trapezoids = (hue - 3).abs() - 1, 2 - (hue - 2).abs(), 2 - (hue - 4).abs()
    return torch.stack([low + chroma * t.clamp(0, 1) for t in trapezoids], 1)


def color_jitter(images: Tensor, factors: Tensor, keys: Tensor, place: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue by ``factors (4, B)``; ``keys (3, B)`` sort the first three.

    Hue comes after ``place (B,)`` of them, from 0 to 3. They share one formula; those after hue wait with a factor of 1
    before it, which changes nothing, and the reverse.
    """
    order = keys.argsort(0)
    factor = factors.gather(0, order)
    turn = torch.arange(3, device=images.device)[:, None]

    def blends(x: Tensor, mine: Tensor) -> Tensor:
        for op, strength in zip(order[..., None, None, None], factor.where(mine, 1), strict=True):
            grey = _luma(x)
            # Brightness (0) blends with black, contrast (1) with the mean grey, saturation (2) with grey.
            goal = grey.lerp(grey.mean((2, 3), keepdim=True), (op == 1).float()) * (op > 0)
            x = _blend(goal, x, strength)
        return x

    return blends(adjust_hue(blends(images, turn < place), factors[3]), turn >= place)


def to_grayscale(images: Tensor, apply: Tensor) -> Tensor:
    return images.lerp(_luma(images), apply.float()[:, None, None, None])


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert pixels at or above ``threshold``; infinity leaves an image unchanged."""
    return torch.where(images >= threshold[:, None, None, None], 1 - images, images)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8, or float from 0 to 1, to normalised float32. Evaluation uses only this."""
    x = images.float() / 255 if images.dtype == torch.uint8 else images
    # Numbers, not tensors, because a CUDA graph does not allow copies to the device.
    return torch.stack([(c - m) / s for c, m, s in zip(x.unbind(1), mean, std, strict=True)], 1)


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Uniforms ``(DRAWS, count)`` for a batch, except that the last of the jitter's order is the place of hue.

    The places are dealt to four groups of fixed size, so that all 24 orders are equally likely (almost, if 4 does not
    divide the batch).
    """
    noise = torch.rand(DRAWS, count, generator=generator, device=generator.device)
    key = noise[BOX_DRAWS + 7]
    for place, group in enumerate(key.argsort().tensor_split(4)):
        key[group] = place
    return noise


class Augment:
    """uint8 ``(B, 3, H, W)`` to normalised float32 ``(B, 3, size, size)``, with separate draws for every image."""

    def __init__(self, config: AugmentConfig, mean: Sequence[float], std: Sequence[float]) -> None:
        self.config, self.mean, self.std = config, tuple(mean), tuple(std)
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise ValueError(f"mean and std must be three numbers each, with std above 0, got {mean!r} and {std!r}")

    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        sizes: Tensor | None = None,
        *,
        count: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> Tensor:
        """Views of images on the generator's device; ``sizes`` ``(B, 2)``: heights and widths of padded images.

        The images may be one rank's share (``tensor_split``) of a batch of ``count``. Draws are made for the whole
        batch, so an image's view does not depend on the number of ranks.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be uint8 (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        noise = draw(len(images) if count is None else count, generator).tensor_split(ranks, 1)[rank]
        if noise.shape[1] != len(images):
            raise ValueError(f"images must be the {noise.shape[1]} of rank {rank} of {ranks}, got {len(images)}")
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 would round pixels
            return self.apply(images, noise, sizes)

    def apply(self, images: Tensor, noise: Tensor, sizes: Tensor | None = None) -> Tensor:
        """The same from given draws ``(DRAWS, B)``: a pure function that compiles to one graph."""
        c = self.config
        boxes, factors, order, (flip, jitter, grey, blur, sigma, solar) = noise.split((BOX_DRAWS, 4, 4, 6))
        x, (height, width) = images.float() / 255, images.shape[2:] if sizes is None else sizes.float().unbind(1)
        x = resized_crop(x, sample_boxes(boxes, height, width, c.scale), flip < c.flip, c.size)
        if c.jitter_prob > 0 and any(c.jitter):
            spread = (2 * factors - 1) * (jitter < c.jitter_prob)
            centred = [m + s * u for m, s, u in zip((1, 1, 1, 0), c.jitter, spread, strict=True)]
            x = color_jitter(x, torch.stack(centred), order[:3], order[3])
        if c.grayscale_prob > 0:
            x = to_grayscale(x, grey < c.grayscale_prob)
        if c.blur_prob > 0:
            low, high = c.blur_sigma
            x = gaussian_blur(x, (low + (high - low) * sigma) * (blur < c.blur_prob), c.blur_kernel)
        if c.solarize_prob > 0:
            x = solarize(x, torch.where(solar < c.solarize_prob, c.solarize_threshold, math.inf))
        return normalize(x, self.mean, self.std)


def _luma(images: Tensor) -> Tensor:
    r, g, b = images.split(1, 1)
    return 0.2989 * r + 0.587 * g + 0.114 * b  # torchvision's weights


def _blend(goal: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return goal.lerp(images, factor[:, None, None, None]).clamp(0, 1)


def _separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return rows[:, None] @ (images.flatten(1, 2) @ columns.mT).unflatten(1, images.shape[1:3])

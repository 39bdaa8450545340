"""Batches of images that do not stay on the training device: packed in a file, or read one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import center_crop

from examples.images.contract import Images, checked_image


class Padded(NamedTuple):
    """uint8 images ``(B, 3, H, W)``, each in the upper left corner, and their heights and widths ``(B, 2)``."""

    images: Tensor
    sizes: Tensor


class Selected(Dataset[np.ndarray]):
    """Some images of a split, in order. Indexing with a tensor of positions reads a batch onto the device.

    A batch is padded to its largest image, and augmentation crops each image within its own bounds.

    Args:
        source: the split.
        crop: side of the centre crop in evaluation.
        workers: processes that call ``source.image``; 0 for a source that only copies memory.
    """

    def __init__(self, source: Images, *, crop: int, workers: int = 0) -> None:
        self.source, self.crop, self.workers = source, crop, workers
        self.kept, self.device = np.arange(len(source)), torch.device("cpu")

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def shape(self) -> torch.Size:
        """Shape of all images after a centre crop, as in evaluation."""
        return torch.Size((len(self), 3, self.crop, self.crop))

    def to(self, device: torch.device) -> Selected:
        """The same images, read onto another device."""
        moved = copy(self)
        moved.device = device
        return moved

    def subset(self, kept: Tensor) -> Selected:
        """The images where the mask ``kept`` is true, or at the positions in it."""
        part = copy(self)
        part.kept = self.kept[kept.cpu().numpy()]
        return part

    def image(self, position: int) -> np.ndarray:
        """One image ``(3, h, w)``."""
        return checked_image(self.source, int(self.kept[position]))

    def __getitem__(self, positions: Tensor) -> Padded:
        return self._moved(pad([self.image(int(i)) for i in positions]))

    def _moved(self, batch: Padded) -> Padded:
        move = {"device": self.device, "non_blocking": True}
        pinned = batch.images.pin_memory() if self.device.type == "cuda" else batch.images
        return Padded(pinned.to(**move), batch.sizes.to(**move))

    def batches(self, positions: Sequence[Tensor]) -> Iterator[Padded]:
        """A batch for each tensor of positions, read ahead."""
        if self.workers:
            yield from map(self._moved, self._collated(positions, pad))
            return
        with ThreadPoolExecutor(1) as thread:
            ahead = [thread.submit(self.__getitem__, p) for p in positions[:1]]
            for following in [*positions[1:], None][: len(positions)]:
                ready = ahead.pop()
                if following is not None:
                    ahead.append(thread.submit(self.__getitem__, following))
                yield ready.result()

    def centres(self, chunk: int) -> Iterator[Tensor]:
        """Centre crops of all images, ``(chunk, 3, crop, crop)`` at a time."""
        positions = torch.arange(len(self)).split(chunk)
        for batch in self._collated(positions, partial(_centre, crop=self.crop)):
            yield batch.to(self.device)

    def _collated(self, positions: Sequence[Tensor], collate: Callable[[list[np.ndarray]], Any]) -> DataLoader[Any]:
        indices = [p.tolist() for p in positions]
        # A generator of its own, because a DataLoader draws a seed from the global one.
        own = {"generator": torch.Generator(), "num_workers": self.workers}
        return DataLoader(_Single(self), batch_sampler=indices, collate_fn=collate, **own)


class _Single(Dataset[np.ndarray]):
    """Single images, for a DataLoader."""

    def __init__(self, images: Selected) -> None:
        self.images = images

    def __getitem__(self, position: int) -> np.ndarray:
        return self.images.image(position)


def pad(images: Sequence[np.ndarray]) -> Padded:
    """A batch of images of any sizes."""
    sizes = torch.tensor([x.shape[1:] for x in images])
    height, width = sizes.max(0).values.tolist()
    batch = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for row, image in zip(batch.numpy(), images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return Padded(batch, sizes)


def _centre(images: Sequence[np.ndarray], *, crop: int) -> Tensor:
    if small := [x.shape for x in images if min(x.shape[1:]) < crop]:
        raise SystemExit(f"data.crop must be at most the images' shorter side, got {crop} for an image {small[0]}")
    return torch.stack([center_crop(torch.from_numpy(np.array(x)), [crop, crop]) for x in images])


def batches(images: Tensor | Selected, positions: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images and sizes (None if all are equal) for each tensor of positions; `Selected` ones are read ahead."""
    if isinstance(images, Tensor):
        yield from ((images[p], None) for p in positions)
    else:
        yield from images.batches(positions)

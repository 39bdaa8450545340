"""A folder of pictures, decoded once: uint8 pixels of every image, one after the other, in a memory-mapped file.

Each image keeps its shape: its shorter side is resized to ``size`` pixels, the longer one cut at twice that. A batch is
padded to its largest image; augmentation crops each within its own bounds. What is read stays in the system's page
cache, so memory is bounded by the machine, not by the data.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import center_crop, resize
from tqdm import tqdm

SAMPLED = 64  # images whose headers are read for an estimate of the size


class Padded(NamedTuple):
    """uint8 images ``(B, 3, H, W)``, each in the upper left corner, and their heights and widths ``(B, 2)``."""

    images: Tensor
    sizes: Tensor


class PackedImages:
    """Images of one split in a file; indexed by a tensor of positions it reads a batch onto its device."""

    def __init__(self, path: Path, *, crop: int) -> None:
        index = np.load(path.with_suffix(".npz"))
        self.pixels = np.memmap(path, np.uint8, mode="r")
        self.offsets, self.sizes, self.labels = index["offsets"], index["sizes"], torch.from_numpy(index["labels"])
        self.crop, self.device = crop, torch.device("cpu")

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def shape(self) -> torch.Size:
        """That of all images when each is cropped in its centre, as for an evaluation."""
        return torch.Size((len(self), 3, self.crop, self.crop))

    def to(self, device: torch.device) -> PackedImages:
        """The same, read onto a device."""
        moved = copy(self)
        moved.device = device
        return moved

    def subset(self, kept: Tensor) -> PackedImages:
        """The images where ``kept`` is true, or at the positions that it holds."""
        part, mask = copy(self), kept.cpu().numpy()
        part.offsets, part.sizes, part.labels = self.offsets[mask], self.sizes[mask], self.labels[kept.cpu()]
        return part

    def __getitem__(self, positions: Tensor) -> Padded:
        chosen = positions.cpu().numpy()
        sizes = self.sizes[chosen]
        height, width = sizes.max(0)
        batch = torch.zeros(len(chosen), 3, height, width, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        view = batch.numpy()
        for i, position in enumerate(chosen):
            h, w = self.sizes[position]
            view[i, :, :h, :w] = self.image(position)
        move = {"device": self.device, "non_blocking": True}
        return Padded(batch.to(**move), torch.from_numpy(sizes).to(**move))

    def image(self, position: int) -> np.ndarray:
        """One image ``(3, h, w)``, not copied."""
        h, w = (int(side) for side in self.sizes[position])
        start = self.offsets[position]
        return self.pixels[start : start + 3 * h * w].reshape(3, h, w)

    def centres(self, chunk: int) -> Iterator[Tensor]:
        """All images, cropped in their centres, ``(chunk, 3, crop, crop)`` at a time."""
        for start in range(0, len(self), chunk):
            parts = []
            for position in range(start, min(start + chunk, len(self))):
                parts.append(center_crop(torch.from_numpy(np.array(self.image(position))), [self.crop, self.crop]))
            yield torch.stack(parts).to(self.device)


def batches(images: Tensor | PackedImages, positions: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images and their sizes (None: all alike) for each tensor of positions; packed ones are read one batch ahead."""
    if isinstance(images, Tensor) or not positions:
        yield from ((images[p], None) for p in positions)
        return
    with ThreadPoolExecutor(1) as thread:
        ahead = [thread.submit(images.__getitem__, p) for p in positions[:1]]
        for following in [*positions[1:], None]:
            ready = ahead.pop()
            if following is not None:
                ahead.append(thread.submit(images.__getitem__, following))
            yield ready.result()


class _Decoded(Dataset[np.ndarray | str]):
    """Decoded and resized pixels of each file, or why it cannot be read."""

    def __init__(self, files: Sequence[Path], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> np.ndarray | str:
        try:
            with Image.open(self.files[position]) as image:
                return shrink(image.convert("RGB"), self.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return f"{self.files[position]}: {error}"


def shrink(image: Image.Image, size: int) -> np.ndarray:
    """``(3, h, w)``: the shorter side ``size`` pixels, the longer one at most ``2 · size``, from the centre."""
    image = resize(image, size)
    width, height = image.size
    image = center_crop(image, [min(height, 2 * size), min(width, 2 * size)])
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def estimate(files: Sequence[Path], size: int) -> int:
    """Bytes that these images will take, from the headers of a few."""
    sides = []
    for path in files[:: max(1, len(files) // SAMPLED)]:
        try:
            with Image.open(path) as image:
                sides.append(min(2.0, max(image.size) / min(image.size)))
        except OSError:  # counted and named when it is decoded
            continue
    return int(3 * size * size * (sum(sides) / max(1, len(sides))) * len(files))


def pack(
    path: Path, files: Sequence[Path], labels: Sequence[int], *, size: int, workers: int, tolerated: float
) -> None:
    """Decode ``files`` into ``path`` and its index; unreadable ones are left out and listed beside.

    Raises:
        SystemExit: naming the files, as soon as more than ``tolerated`` of them cannot be read.
    """
    loader = DataLoader(_Decoded(files, size), batch_size=None, num_workers=workers)
    offsets, sizes, kept, unreadable = [0], [], [], []
    with path.open("wb") as out:
        for label, item in zip(labels, tqdm(loader, desc=f"packing {path.stem}", unit="image"), strict=True):
            if isinstance(item, str):
                unreadable.append(item)
                if len(unreadable) > tolerated * len(files):
                    raise SystemExit(
                        f"{len(unreadable)} of {len(files)} images cannot be read (data.corrupt_share tolerates "
                        f"{tolerated:g} of them): " + "; ".join(unreadable[:5])
                    )
                continue
            pixels = np.asarray(item)
            out.write(pixels.tobytes())
            offsets.append(offsets[-1] + pixels.size)
            sizes.append(pixels.shape[1:])
            kept.append(label)
    index = {"offsets": offsets[:-1], "sizes": sizes, "labels": kept}
    np.savez(path.with_suffix(".npz"), **{k: np.asarray(v, np.int64) for k, v in index.items()})
    if unreadable:
        print(f"{len(unreadable)} of {len(files)} images of {path.stem} cannot be read and are left out")
        path.with_suffix(".unreadable.txt").write_text("\n".join(unreadable) + "\n")


def check_space(folder: Path, needed: int, limit_gib: float) -> None:
    """Refuse to fill the disk.

    Raises:
        SystemExit: naming what is needed and what is there.
    """
    free, gib = shutil.disk_usage(folder).free, 2**30
    if needed > limit_gib * gib:
        raise SystemExit(f"packing needs about {needed / gib:.1f} GiB, data.cache_gib allows {limit_gib:g}")
    if needed > free:
        raise SystemExit(f"packing needs about {needed / gib:.1f} GiB, {folder} (data.cache) has {free / gib:.1f} free")

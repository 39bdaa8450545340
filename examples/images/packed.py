"""Images decoded once into a memory-mapped file of uint8 pixels.

Images keep their aspect ratios: the shorter side is resized to ``size`` pixels, the longer side is cropped to at most
twice that. A batch is padded to its largest image, and augmentation crops each image within its own bounds. Pixels stay
in the system's page cache, so memory is limited by the machine, not by the data.
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

SAMPLED = 64  # images whose headers are read to estimate the size


class Padded(NamedTuple):
    """uint8 images ``(B, 3, H, W)``, each in the upper left corner, and their heights and widths ``(B, 2)``."""

    images: Tensor
    sizes: Tensor


class PackedImages:
    """The packed images of one split. Indexing with a tensor of positions reads a batch onto the device."""

    def __init__(self, path: Path, *, crop: int) -> None:
        index = np.load(path.with_suffix(".npz"))
        self.pixels = np.memmap(path, np.uint8, mode="r")
        self.offsets, self.sizes, self.labels = index["offsets"], index["sizes"], torch.from_numpy(index["labels"])
        self.crop, self.device = crop, torch.device("cpu")

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def shape(self) -> torch.Size:
        """Shape of all images after a centre crop, as in evaluation."""
        return torch.Size((len(self), 3, self.crop, self.crop))

    def to(self, device: torch.device) -> PackedImages:
        """The same images, read onto another device."""
        moved = copy(self)
        moved.device = device
        return moved

    def subset(self, kept: Tensor) -> PackedImages:
        """The images where the mask ``kept`` is true, or at the positions in it."""
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
        """One image ``(3, h, w)``, without a copy."""
        h, w = (int(side) for side in self.sizes[position])
        start = self.offsets[position]
        return self.pixels[start : start + 3 * h * w].reshape(3, h, w)

    def centres(self, chunk: int) -> Iterator[Tensor]:
        """Centre crops of all images, ``(chunk, 3, crop, crop)`` at a time."""
        for start in range(0, len(self), chunk):
            parts = []
            for position in range(start, min(start + chunk, len(self))):
                parts.append(center_crop(torch.from_numpy(np.array(self.image(position))), [self.crop, self.crop]))
            yield torch.stack(parts).to(self.device)


def batches(images: Tensor | PackedImages, positions: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images and sizes (None if all are equal) for each tensor of positions; packed images are read ahead."""
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
    """Decoded and resized pixels of each file, or the reason why it cannot be read."""

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
    """``(3, h, w)``: shorter side ``size`` pixels, longer side centre-cropped to at most ``2 · size``."""
    image = resize(image, size)
    width, height = image.size
    image = center_crop(image, [min(height, 2 * size), min(width, 2 * size)])
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def estimate(files: Sequence[Path], size: int) -> int:
    """Estimated bytes of the packed images, from the headers of a few."""
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
    """Decode ``files`` into ``path`` and its index; skip unreadable files and list them in a text file next to it.

    Raises:
        SystemExit: naming the files, as soon as more than a share ``tolerated`` of them cannot be read.
    """
    loader = DataLoader(_Decoded(files, size), batch_size=None, num_workers=workers)
    offsets, sizes, kept, unreadable = [0], [], [], []
    with path.open("wb") as out:
        for label, item in zip(labels, tqdm(loader, desc=f"packing {path.stem}", unit="image"), strict=True):
            if isinstance(item, str):
                unreadable.append(item)
                if len(unreadable) > tolerated * len(files):
                    raise SystemExit(
                        f"{len(unreadable)} of {len(files)} images cannot be read (more than the share "
                        f"data.corrupt_share={tolerated:g}): " + "; ".join(unreadable[:5])
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
        print(f"{len(unreadable)} of {len(files)} images of {path.stem} cannot be read and are skipped")
        path.with_suffix(".unreadable.txt").write_text("\n".join(unreadable) + "\n")


def check_space(folder: Path, needed: int, limit_gib: float) -> None:
    """Refuse to fill the disk.

    Raises:
        SystemExit: naming the space needed and the space available.
    """
    gib, free_gib = needed / 2**30, shutil.disk_usage(folder).free / 2**30
    if gib > limit_gib:
        raise SystemExit(f"packing needs about {gib:.1f} GiB, but data.cache_gib allows {limit_gib:g}")
    if gib > free_gib:
        raise SystemExit(f"packing needs about {gib:.1f} GiB, but {folder} (data.cache) has {free_gib:.1f} free")

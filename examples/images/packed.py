"""Images decoded once into a memory-mapped file of uint8 pixels.

Images keep their aspect ratios: the shorter side is resized to ``size`` pixels, the longer side is cropped to at most
twice that. A batch is padded to its largest image, and augmentation crops each image within its own bounds. Pixels stay
in the system's page cache, so memory is limited by the machine, not by the data.

The index next to the pixels has a CRC-32 of each image and of itself. An image is checked when it is first read, which
takes 0.1 ms; to check all 33 GiB of ImageNet-100 at every start would take from 13 seconds to minutes.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import center_crop
from tqdm import tqdm

from examples.images.decode import decode, open_image

SAMPLED = 64  # images whose headers are read to estimate the size


class Padded(NamedTuple):
    """uint8 images ``(B, 3, H, W)``, each in the upper left corner, and their heights and widths ``(B, 2)``."""

    images: Tensor
    sizes: Tensor


class PackedImages:
    """The packed images of one split. Indexing with a tensor of positions reads a batch onto the device.

    Raises:
        SystemExit: naming the file, if it is damaged, here or when a damaged image is first read.
    """

    def __init__(self, path: Path, *, crop: int) -> None:
        self.path, self.crop, self.device = path, crop, torch.device("cpu")
        try:
            with np.load(path.with_suffix(".npz")) as index:
                self.sizes, labels, self.checks, own_check = (index[k] for k in ("sizes", "labels", "checks", "check"))
        except Exception as error:  # numpy and zipfile raise errors of many types for a damaged file
            raise self.damaged(f"its index cannot be read: {error}") from error
        if own_check != _crc(self.sizes, labels, self.checks):
            raise self.damaged("its index does not match its checksum")
        lengths = 3 * self.sizes.prod(1)
        self.offsets = lengths.cumsum() - lengths
        found = path.stat().st_size if path.is_file() else 0
        if found != lengths.sum():
            raise self.damaged(f"it has {found} bytes, but should have {lengths.sum()}")
        self.labels = torch.from_numpy(labels)
        self.pixels = np.memmap(path, np.uint8, mode="r")
        self.checked = np.zeros(len(self), bool)

    def damaged(self, how: str) -> SystemExit:
        return SystemExit(f"{self.path} is damaged: {how}; delete {self.path.parent} to pack the images again")

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
        for name in ("offsets", "sizes", "checks", "checked"):
            setattr(part, name, getattr(self, name)[mask])
        part.labels = self.labels[kept.cpu()]
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
        pixels = self.pixels[start : start + 3 * h * w]
        if not self.checked[position]:
            if zlib.crc32(pixels) != self.checks[position]:
                raise self.damaged(f"the pixels at byte {start} do not match their checksum")
            self.checked[position] = True
        return pixels.reshape(3, h, w)

    def verify(self) -> None:
        """Check every image now."""
        for position in range(len(self)):
            self.image(position)

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
        return decode(self.files[position], self.size)


def estimate(files: Sequence[Path], size: int) -> int:
    """Estimated bytes of the packed images, from the headers of a few."""
    sides = []
    for path in files[:: max(1, len(files) // SAMPLED)]:
        try:
            with open_image(path) as image:
                sides.append(min(2.0, max(image.size) / min(image.size)))
        except Exception:  # counted and named when it is decoded
            continue
    return int(3 * size * size * (sum(sides) / max(1, len(sides))) * len(files))


def pack(
    path: Path, files: Sequence[Path], labels: Sequence[int], *, size: int, workers: int, tolerated: float
) -> None:
    """Decode ``files`` into ``path`` and its index; skip unreadable files and list them in a text file next to it.

    Raises:
        SystemExit: naming the files, as soon as more than a share ``tolerated`` of them, or all of one label, cannot be
            read.
    """
    loader = DataLoader(_Decoded(files, size), batch_size=None, num_workers=workers)
    sizes, kept, checks, unreadable = [], [], [], []
    with path.open("wb") as out:
        for label, item in zip(labels, tqdm(loader, desc=f"packing {path.stem}", unit="image"), strict=True):
            if isinstance(item, str):
                unreadable.append(item)
                check_share(len(unreadable), len(files), tolerated, "; ".join(unreadable[:5]))
                continue
            pixels = np.asarray(item)
            out.write(pixels)
            sizes.append(pixels.shape[1:])
            kept.append(label)
            checks.append(zlib.crc32(pixels))
    for label in sorted(set(labels) - set(kept)):
        folder = files[labels.index(label)].parent
        reason = next(x for x in unreadable if x.startswith(f"{folder}{os.sep}"))
        raise SystemExit(f"{folder} has no image that can be read: {reason}")
    index = {k: np.asarray(v, np.int64) for k, v in (("sizes", sizes), ("labels", kept), ("checks", checks))}
    np.savez(path.with_suffix(".npz"), check=_crc(*index.values()), **index)
    if unreadable:
        print(f"{len(unreadable)} of {len(files)} images of {path.stem} cannot be read and are skipped")
        text = "\n".join(unreadable) + "\n"
        unreadable_list(path).write_text(text, encoding="utf-8", errors="surrogateescape")  # names of any bytes
    for written in (path, path.with_suffix(".npz")):
        with written.open("rb") as file:
            os.fsync(file.fileno())


def unreadable_list(path: Path) -> Path:
    """The file that lists the images that are not in the pack ``path``, with reasons."""
    return path.with_suffix(".unreadable.txt")


def check_share(unreadable: int, total: int, tolerated: float, which: str) -> None:
    """Raise SystemExit if more than a share ``tolerated`` cannot be read."""
    if unreadable > tolerated * total:
        raise SystemExit(
            f"{unreadable} of {total} images cannot be read, a share of {unreadable / total:.2g} (data.corrupt_share "
            f"allows {tolerated:g}): {which}"
        )


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


def _crc(*arrays: np.ndarray) -> int:
    return zlib.crc32(b"".join(x.tobytes() for x in arrays))

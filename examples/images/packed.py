"""Images decoded once into memory-mapped files of uint8 pixels (`examples.images.packing` writes them).

Images keep their aspect ratios: the shorter side is resized to ``size`` pixels, the longer side is cropped to at most
twice that, or to ``size`` with ``data.square``. Pixels stay in the system's page cache, so memory is limited by the
machine, not by the data.

The index next to the pixels has a CRC-32 of each image and of itself. An image is checked when it is first read, which
takes 0.1 ms; to check all 33 GiB of ImageNet-100 at every start would take from 13 seconds to minutes.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from examples.images.contract import MEAN, STD


class PackedImages:
    """The packed images of one split: ``split.npz`` (the index) and ``split-000.bin``, ``split-001.bin``, … (pixels).

    Raises:
        SystemExit: naming the file, if it is damaged, here or when a damaged image is first read.
    """

    mean, std = MEAN, STD

    def __init__(self, folder: Path, split: str, class_names: tuple[str, ...]) -> None:
        self.folder, self.split, self.class_names = folder, split, class_names
        path = folder / f"{split}.npz"
        try:
            with np.load(path) as index:
                self.sizes, self._labels, self.checks, counts = (index[key] for key in INDEX)
                own_check = index["check"]
        except Exception as error:  # numpy and zipfile raise errors of many types for a damaged file
            raise self._damaged(path, f"it cannot be read: {error}") from error
        if own_check != crc(self.sizes, self._labels, self.checks, counts):
            raise self._damaged(path, "it does not match its checksum")
        lengths = 3 * self.sizes.prod(1)
        self.files = [shard(folder, split, i) for i in range(len(counts))]
        self.file_of = np.repeat(np.arange(len(counts)), counts)
        ends = lengths.cumsum()
        firsts = (counts.cumsum() - counts)[self.file_of]  # the first image in the same file
        self.offsets = ends - lengths - (ends - lengths)[firsts]
        wanted = np.bincount(self.file_of, weights=lengths, minlength=len(counts)).astype(np.int64)
        for file, size in zip(self.files, wanted, strict=True):
            found = file.stat().st_size if file.is_file() else 0
            if found != size:
                raise self._damaged(file, f"it has {found} bytes, but should have {size}")
        self.pixels = [np.memmap(x, np.uint8, "r") if n else None for x, n in zip(self.files, wanted, strict=True)]
        self.checked = np.zeros(len(self), bool)

    def _damaged(self, path: Path, how: str) -> SystemExit:
        return SystemExit(f"{path} is damaged: {how}; delete {self.folder} to pack the images again")

    def __len__(self) -> int:
        return len(self.sizes)

    def labels(self) -> np.ndarray | None:
        return self._labels if self.class_names else None

    def image(self, index: int) -> np.ndarray:
        """One image ``(3, h, w)``, without a copy."""
        h, w = (int(side) for side in self.sizes[index])
        file, start = self.file_of[index], self.offsets[index]
        pixels = self.pixels[file][start : start + 3 * h * w]
        if not self.checked[index]:
            if zlib.crc32(pixels) != self.checks[index]:
                raise self._damaged(self.files[file], f"the pixels at byte {start} do not match their checksum")
            self.checked[index] = True
        return pixels.reshape(3, h, w)

    def verify(self) -> None:
        """Check every image now."""
        for index in range(len(self)):
            self.image(index)


INDEX = ("sizes", "labels", "checks", "counts")  # (N, 2), (N,), (N,) and, for each file of pixels, its images


def shard(folder: Path, split: str, number: int) -> Path:
    """The file of pixels with this number."""
    return folder / f"{split}-{number:03}.bin"


def crc(*arrays: np.ndarray) -> int:
    """One CRC-32 of several arrays."""
    return zlib.crc32(b"".join(x.tobytes() for x in arrays))

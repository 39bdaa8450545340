"""CIFAR-100, read through torchvision."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import CIFAR100
from torchvision.datasets.utils import check_integrity

from examples.recipe.sections import Data
from examples.system.lock import locked


class Cifar100:
    """The official files in ``config.root``, downloaded there if one is missing or damaged.

    Raises:
        SystemExit: if that is so and they cannot be downloaded.
    """

    resident = True
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

    def __init__(self, config: Data, *, train: bool) -> None:
        try:
            split = CIFAR100(config.root, train=train)
        except RuntimeError:  # torchvision found a file missing, or its MD5 sum wrong
            split = _download(Path(config.root), train)
        self.class_names = tuple(split.classes)
        self._pixels, self._labels = split.data.transpose(0, 3, 1, 2), split.targets

    def __len__(self) -> int:
        return len(self._labels)

    def image(self, index: int) -> Tensor:
        return torch.from_numpy(self._pixels[index])

    def labels(self) -> list[int]:
        return self._labels


def _download(root: Path, train: bool) -> CIFAR100:
    """Download the files, one process at a time; the others read what the first has downloaded."""
    folder = root / CIFAR100.base_folder
    official = [*CIFAR100.train_list, *CIFAR100.test_list, (CIFAR100.meta["filename"], CIFAR100.meta["md5"])]
    bad = [name for name, md5 in official if not check_integrity(folder / name, md5)]
    print(f"CIFAR-100 is not in {root} (missing or damaged: {', '.join(bad)}); downloading it")
    try:
        with locked(root, wait=True):
            return CIFAR100(root, train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise SystemExit(
            f"CIFAR-100 is not in {str(root)!r} (data.root; missing or damaged: {', '.join(bad)}) and could not be "
            f"downloaded ({error}); put the official files in {folder}"
        ) from error

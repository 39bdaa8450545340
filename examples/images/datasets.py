"""Data sets as uint8 images, either on the training device, where they are augmented, or packed in a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import CIFAR100
from torchvision.datasets.utils import check_integrity

from examples.images.imagenet import MEAN, STD, load_imagenet
from examples.images.packed import PackedImages
from examples.images.textures import CLASS_NAMES, make_textures
from examples.recipe.sections import CLASSES, Data
from examples.system.lock import locked


@dataclass(frozen=True)
class ImageData:
    """Images ``(N, 3, H, W)`` uint8 and labels ``(N,)`` int64 of both splits; ``mean`` and ``std`` of [0, 1] pixels."""

    train_images: Tensor | PackedImages
    train_labels: Tensor
    test_images: Tensor | PackedImages
    test_labels: Tensor
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_names: tuple[str, ...]

    def to(self, device: torch.device) -> ImageData:
        names = ("train_images", "train_labels", "test_images", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def load_data(config: Data) -> ImageData:
    """Load ``config.name``, restricted to its first ``config.classes`` classes.

    Raises:
        SystemExit: if the data set cannot be found.
    """
    loaders = {"cifar100": _cifar100, "textures": _textures, "imagenet100": _imagenet100}
    data = loaders[config.name](config)
    if config.classes is not None:
        data = _first_classes(data, config.classes)
    return _hold_out(data, config.validation) if config.validation else data


def fingerprint(config: Data, data: ImageData) -> str:
    """A hash of labels and images, to notice that the images have changed; packed ones by their sizes and CRC-32.

    Textures are drawn on each machine, whose last bits may differ, so only their labels count.
    """
    digest = hashlib.sha256()
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        digest.update(labels.cpu().numpy())
        if isinstance(images, PackedImages):
            digest.update(images.sizes)
            digest.update(images.checks)
        elif config.name != "textures":
            digest.update(images.cpu().numpy())
    return digest.hexdigest()


def refuse_other_data(recorded: str | None, found: str, config: Data, where: object) -> None:
    """Refuse images that differ from those that a result was made with; an old result may not have recorded them.

    Raises:
        SystemExit: naming the result and the data.
    """
    if recorded not in (None, found):
        raise SystemExit(f"{where} was made with other images than those of data.name={config.name} in {config.root}")


def _cifar100(config: Data) -> ImageData:
    try:
        splits = _read_cifar100(config.root, download=False)
    except RuntimeError:  # torchvision found a file missing, or its MD5 sum wrong
        splits = _download_cifar100(Path(config.root))
    (train_x, train_y), (test_x, test_y) = (
        (torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(split.targets)) for split in splits
    )
    return ImageData(
        train_x, train_y, test_x, test_y,
        mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762), class_names=tuple(splits[0].classes),
    )  # fmt: skip


def _read_cifar100(root: str | Path, *, download: bool) -> list[CIFAR100]:
    return [CIFAR100(root, train=train, download=download) for train in (True, False)]


def _download_cifar100(root: Path) -> list[CIFAR100]:
    """Download the files, one process at a time; the others read what the first has downloaded."""
    folder = root / CIFAR100.base_folder
    official = [*CIFAR100.train_list, *CIFAR100.test_list, (CIFAR100.meta["filename"], CIFAR100.meta["md5"])]
    bad = [name for name, md5 in official if not check_integrity(folder / name, md5)]
    print(f"CIFAR-100 is not in {root} (missing or damaged: {', '.join(bad)}); downloading it")
    try:
        with locked(root, wait=True):
            return _read_cifar100(root, download=True)
    except (OSError, RuntimeError) as error:
        raise SystemExit(
            f"CIFAR-100 is not in {str(root)!r} (data.root; missing or damaged: {', '.join(bad)}) and could not be "
            f"downloaded ({error}); put the official files in {folder}"
        ) from error


def _imagenet100(config: Data) -> ImageData:
    train, test, names = load_imagenet(config)
    return ImageData(train, train.labels, test, test.labels, mean=MEAN, std=STD, class_names=names)


def _textures(config: Data) -> ImageData:
    classes = CLASSES["textures"]  # stripes and checks, each in four orientations
    # Different seeds, so that no test image repeats the draws of a training image.
    train_x, train_y = make_textures(config.train_size, classes=classes, seed=0)
    test_x, test_y = make_textures(config.test_size, classes=classes, seed=1)
    return ImageData(
        train_x, train_y, test_x, test_y,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), class_names=CLASS_NAMES[:classes],
    )  # fmt: skip


def _first_classes(data: ImageData, classes: int) -> ImageData:
    train, test = data.train_labels < classes, data.test_labels < classes
    return replace(
        data,
        train_images=_select(data.train_images, train),
        train_labels=data.train_labels[train],
        test_images=_select(data.test_images, test),
        test_labels=data.test_labels[test],
        class_names=data.class_names[:classes],
    )


def _hold_out(data: ImageData, share: float) -> ImageData:
    """Put a random share of the training images, the same in every run, in the place of the test images."""
    n = len(data.train_labels)
    count = round(share * n)
    if not 1 <= count < n:
        raise SystemExit(f"data.validation must hold out between 1 and {n - 1} of {n} images, got {share} ({count})")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    held = torch.zeros(n, dtype=torch.bool).index_fill_(0, order[:count], True)
    return replace(
        data,
        train_images=_select(data.train_images, ~held),
        train_labels=data.train_labels[~held],
        test_images=_select(data.train_images, held),
        test_labels=data.train_labels[held],
    )


def _select(images: Tensor | PackedImages, kept: Tensor) -> Tensor | PackedImages:
    return images[kept] if isinstance(images, Tensor) else images.subset(kept)

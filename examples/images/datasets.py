"""A recipe's data set as uint8 images, on the training device, where they are augmented, or read in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from examples.images.cifar100 import Cifar100
from examples.images.contract import MEAN, STD, Images, checked_image, checked_labels, imported
from examples.images.folders import folder, imagenet100
from examples.images.hugging_face import hugging_face
from examples.images.packed import PackedImages
from examples.images.reading import Selected
from examples.images.streams import Stream, processes
from examples.images.textures import Textures
from examples.images.web_dataset import WebDataset
from examples.recipe.sections import Data

BUILT_IN: dict[str, Callable[..., Images]] = {
    "cifar100": Cifar100, "textures": Textures, "imagenet100": imagenet100, "folder": folder,
    "webdataset": WebDataset, "huggingface": hugging_face,
}  # fmt: skip
SAMPLED = 64  # images of a data set without checksums that its fingerprint reads


@dataclass(frozen=True)
class ImageData:
    """Images ``(N, 3, H, W)`` uint8 and labels ``(N,)`` int64 of both splits; ``mean`` and ``std`` of [0, 1] pixels.

    Without labels, both are None and there are no class names. If training images come from a ``stream``,
    ``train_images`` are a few of them, for evaluation.
    """

    train_images: Tensor | Selected
    train_labels: Tensor | None
    test_images: Tensor | Selected
    test_labels: Tensor | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_names: tuple[str, ...]
    stream: Stream | None = None

    @property
    def epoch_size(self) -> int:
        """Training images per epoch."""
        return len(self.train_images if self.stream is None else self.stream)

    def to(self, device: torch.device) -> ImageData:
        names = ("train_images", "train_labels", "test_images", "test_labels", "stream")
        return replace(self, **{k: x if x is None else x.to(device) for k in names for x in [getattr(self, k)]})


def load_data(config: Data) -> ImageData:
    """Load ``config.name``, restricted to its first ``config.classes`` classes.

    Raises:
        SystemExit: if the data set cannot be found, or breaks the contract of `Images`.
    """
    make = BUILT_IN.get(config.name) or imported(config.name)
    train, test = (make(config, train=part) for part in (True, False))
    labels = [checked_labels(split) for split in (train, test)]
    if len(test) and (labels[0] is None) != (labels[1] is None):
        raise SystemExit(f"both splits of data.name={config.name} must have labels, or none; only one has them")
    given = () if labels[0] is None else tuple(map(str, range(max(int(x.max()) + 1 for x in labels if len(x)))))
    data = ImageData(
        _held(train, config), labels[0], _held(test, config), labels[1],
        mean=getattr(train, "mean", MEAN), std=getattr(train, "std", STD),
        class_names=() if labels[0] is None else tuple(getattr(train, "class_names", given)),
        stream=getattr(train, "stream", None),
    )  # fmt: skip
    if config.classes is not None:
        data = _first_classes(data, config)
    if config.validation:
        return _hold_out(data, config.validation)
    if not len(test):
        raise SystemExit(f"data.name={config.name} has no test images here: set data.validation, for example to 0.1")
    return data


def _held(images: Images, config: Data) -> Tensor | Selected:
    """The images where they stay: a tensor if they are resident."""
    if isinstance(images, PackedImages):
        return Selected(images, crop=config.crop)
    if not getattr(images, "resident", False):
        if len(images) and min((shape := checked_image(images, 0).shape)[1:]) < config.crop:
            raise SystemExit(f"data.crop must be at most the images' shorter side, got {config.crop} for {shape}")
        return Selected(images, crop=config.crop, workers=processes(config))
    if not len(images):
        return torch.empty(0, 3, config.crop, config.crop, dtype=torch.uint8)
    pixels = [np.asarray(images.image(i)) for i in range(len(images))]
    side = pixels[0].shape[-1] if config.name in BUILT_IN else config.crop
    if wrong := [i for i, x in enumerate(pixels) if x.shape != (3, side, side) or x.dtype != np.uint8]:
        raise SystemExit(
            f"resident images of data.name={config.name} must be uint8 (3, {side}, {side}), with data.crop={side}, got "
            f"{pixels[wrong[0]].dtype} {pixels[wrong[0]].shape} for image {wrong[0]}"
        )
    return torch.from_numpy(np.stack(pixels)).contiguous()  # numpy keeps the order of axes in memory


def fingerprint(config: Data, data: ImageData) -> str:
    """A hash of labels and images, to notice that the images have changed; packed ones by their sizes and CRC-32.

    Textures are drawn on each machine, whose last bits may differ, so only their labels count. Of other images that are
    not kept in memory, a few evenly spaced ones are read.
    """
    digest = hashlib.sha256()
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        if labels is not None:
            digest.update(labels.cpu().numpy())
        if isinstance(images, Tensor):
            if config.name != "textures":
                digest.update(images.cpu().numpy())
        elif isinstance(images.source, PackedImages):
            digest.update(images.source.sizes[images.kept])
            digest.update(images.source.checks[images.kept])
        else:
            digest.update(np.int64(len(images)).tobytes())
            for position in range(0, len(images), -(-len(images) // SAMPLED)):
                digest.update(np.ascontiguousarray(images.image(position)))
    return digest.hexdigest()


def refuse_other_data(recorded: str | None, found: str, config: Data, where: object) -> None:
    """Refuse images that differ from those that a result was made with; an old result may not have recorded them.

    Raises:
        SystemExit: naming the result and the data.
    """
    if recorded not in (None, found):
        raise SystemExit(f"{where} was made with other images than those of data.name={config.name} in {config.root}")


def _first_classes(data: ImageData, config: Data) -> ImageData:
    classes, names = config.classes or 0, data.class_names
    if data.train_labels is None or data.test_labels is None:
        raise SystemExit(f"data.classes must be null for images without labels, got {classes}")
    if classes > len(names):
        raise SystemExit(f"data.classes must be at most the {len(names)} of {config.root}, got {classes}")
    train, test = data.train_labels < classes, data.test_labels < classes
    return replace(
        data,
        train_images=_select(data.train_images, train),
        train_labels=data.train_labels[train],
        test_images=_select(data.test_images, test),
        test_labels=data.test_labels[test],
        class_names=names[:classes],
    )


def _hold_out(data: ImageData, share: float) -> ImageData:
    """Put a random share of the training images, the same in every run, in the place of the test images."""
    n = len(data.train_images)
    count = round(share * n)
    if not 1 <= count < n:
        raise SystemExit(f"data.validation must hold out between 1 and {n - 1} of {n} images, got {share} ({count})")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    held = torch.zeros(n, dtype=torch.bool).index_fill_(0, order[:count], True)
    labels = data.train_labels
    return replace(
        data,
        train_images=_select(data.train_images, ~held),
        train_labels=None if labels is None else labels[~held],
        test_images=_select(data.train_images, held),
        test_labels=None if labels is None else labels[held],
    )


def _select(images: Tensor | Selected, kept: Tensor) -> Tensor | Selected:
    return images[kept] if isinstance(images, Tensor) else images.subset(kept)

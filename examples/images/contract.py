"""What a data set is: three methods. The built-in ones have them, and so may yours."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels


class Images(Protocol):
    """One split of a data set.

    ``data.name=my_package.my_module:MyImages`` imports the class and calls ``MyImages(config, train=True)`` and
    ``MyImages(config, train=False)``, with the recipe's ``data`` section (`examples.recipe.sections.Data`). It needs
    three methods; any errors that they raise end the run. The test split may be empty if ``data.validation`` holds out
    training images. If both splits have no labels (None), whatever needs labels is not measured.

    Images are read when they are wanted, by ``data.workers`` processes, so `image` may decode a file. These attributes
    are optional:

    - ``resident = True``: all images are ``data.crop`` pixels square and are kept on the training device.
    - ``mean`` and ``std``: three numbers each, of pixels in [0, 1]; the default is ImageNet's.
    - ``class_names``: one text per label; the default is ``"0"``, ``"1"``, ….
    """

    def __len__(self) -> int:
        """The number of images."""
        ...

    def image(self, index: int) -> Tensor | np.ndarray:
        """uint8 RGB pixels ``(3, H, W)``, with both sides at least ``data.crop``; always the same for an index."""
        ...

    def labels(self) -> Sequence[int] | Tensor | np.ndarray | None:
        """Each image's class from 0 on, or None."""
        ...


def imported(name: str) -> Callable[..., Images]:
    """The class (or function) at an import path ``module:name``.

    Raises:
        SystemExit: naming ``data.name``, if there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"data.name must be an import path, got {name!r}: {error}") from error
    if not callable(found):
        raise SystemExit(f"data.name must name a class or function, got {name!r}, a {type(found).__name__}")
    return found


def checked_image(images: Images, index: int) -> np.ndarray:
    """`Images.image` as an array.

    Raises:
        SystemExit: naming the data set and the index, unless it is uint8 ``(3, H, W)``.
    """
    pixels = np.asarray(images.image(index))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.size == 0:
        raise SystemExit(
            f"image({index}) of {type(images).__name__} must be uint8 (3, H, W), got {pixels.dtype} {pixels.shape}"
        )
    return pixels


def checked_labels(images: Images) -> Tensor | None:
    """`Images.labels` as int64 ``(N,)``.

    Raises:
        SystemExit: naming the data set, unless there is one integer from 0 on for each image.
    """
    given = images.labels()
    if given is None:
        return None
    labels = torch.as_tensor(given)
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != (len(images),) or (len(labels) and not (whole and labels.min() >= 0)):
        raise SystemExit(
            f"labels() of {type(images).__name__} must be None or {len(images)} integers from 0 on, got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )
    return labels.long()

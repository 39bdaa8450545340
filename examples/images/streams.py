"""Images that are read in order, shard by shard: WebDataset's tar files and Hugging Face's iterable data sets.

The library yields undecoded samples, a part of the shards on each rank; worker processes decode them. What is read is a
function of the seed, the epoch and the number of ranks, whatever the number of workers, so a run resumes without any
state of the loader: samples of the epoch that were used are skipped undecoded.
"""

from __future__ import annotations

import io
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from examples.images.decode import FORMATS, shrink, to_rgb
from examples.images.reading import Padded, pad
from examples.recipe.sections import Data


class Sample(NamedTuple):
    """An undecoded image: where it is from, for errors, and the bytes of its file."""

    name: str
    content: bytes
    label: int | None


class Stream:
    """Training images in an order of their own.

    Args:
        samples: ``samples(seed, rank, ranks)``: one pass over the shards of a rank, in an order that the seed fixes.
        config: the recipe's ``data`` section.
    """

    def __init__(self, samples: Callable[[int, int, int], Iterable[Sample]], config: Data) -> None:
        self.samples, self.config, self.workers = samples, config, processes(config)
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        """Images per epoch."""
        return self.config.epoch_size or 0

    def to(self, device: torch.device) -> Stream:
        """The same images, read onto another device."""
        moved = copy(self)
        moved.device = device
        return moved

    def batches(self, *, seed: int, step: int, rank: int, ranks: int) -> Iterator[Padded]:
        """The rank's shares of the epoch's remaining batches, from ``step`` on."""
        steps, size = len(self) // self.config.batch_size, self.config.batch_size
        epoch, done = divmod(step, steps)
        share = size // ranks + (rank < size % ranks)  # as in ``tensor_split``
        samples = itertools.islice(self.endless(seed * 1_000_003 + epoch, rank, ranks), done * share, steps * share)
        own = {"generator": torch.Generator(), "num_workers": self.workers}
        job = Decoded(self.config)
        for batch in DataLoader(job, batch_size=share, sampler=samples, collate_fn=padded, **own):
            pinned = batch.images.pin_memory() if self.device.type == "cuda" else batch.images
            yield Padded(*(x.to(self.device, non_blocking=True) for x in (pinned, batch.sizes)))

    def endless(self, seed: int, rank: int, ranks: int) -> Iterator[Sample]:
        """Pass after pass, because ranks may have shards of different lengths.

        Raises:
            SystemExit: if the rank has no images, as with fewer shards than ranks.
        """
        for number in itertools.count():
            found = False
            for sample in self.samples((seed * 1009 + number) % 2**31, rank, ranks):
                found = True
                yield sample
            if not found:
                raise SystemExit(
                    f"{self.config.root} (data.root) has no images for rank {rank} of {ranks}: more shards"
                )


def processes(config: Data) -> int:
    """Decoding processes; 0 decodes in this one."""
    return (os.cpu_count() or 1) if config.workers is None else config.workers


Item = tuple["np.ndarray | str", "int | None"]


class Decoded(Dataset[Item]):
    """A sample as uint8 ``(3, h, w)``, or the reason why it cannot be read, and its label."""

    def __init__(self, config: Data) -> None:
        self.size, self.square = config.image_size, config.square

    def __getitem__(self, sample: Sample) -> Item:
        try:
            with Image.open(io.BytesIO(sample.content), formats=FORMATS) as image:
                return shrink(to_rgb(image), self.size, square=self.square), sample.label
        except Exception as error:  # Pillow raises errors of many types for damaged files
            return f"{sample.name}: {type(error).__name__}: {error}", None


def padded(items: list[Item]) -> Padded:
    """A batch in which a readable image stands in for each unreadable one, with a warning.

    Raises:
        ValueError: if none is readable.
    """
    images = [x for x, _ in items]
    good = [x for x in images if not isinstance(x, str)]
    bad = [x for x in images if isinstance(x, str)]
    if not good:
        raise ValueError(f"none of {len(bad)} images in a batch can be read: {bad[0]}")
    for reason in bad:
        warnings.warn(f"an image cannot be read, and another takes its place: {reason}", stacklevel=1)
    return pad([x if not isinstance(x, str) else good[i % len(good)] for i, x in enumerate(images)])


class FirstImages:
    """The first readable images of a stream as a resident split, for evaluation: centre crops of ``config.crop``."""

    resident = True

    def __init__(self, samples: Iterable[Sample], count: int, config: Data) -> None:
        job = Decoded(config.model_copy(update={"square": True}))
        loader = DataLoader(job, batch_size=None, sampler=samples, num_workers=processes(config))
        readable = (item for item in loader if not isinstance(item[0], str))
        items = list(itertools.islice(readable, count))
        top = (config.image_size - config.crop) // 2
        self._pixels = [np.asarray(x)[:, top : top + config.crop, top : top + config.crop] for x, _ in items]
        labels = [label for _, label in items]
        self._labels = None if None in labels else labels

    def __len__(self) -> int:
        return len(self._pixels)

    def image(self, index: int) -> np.ndarray:
        return self._pixels[index]

    def labels(self) -> Any:
        return self._labels

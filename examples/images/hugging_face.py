"""Images through Hugging Face `datasets`, by index or in order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from examples.images.streams import Decoded, FirstImages, Sample, Stream
from examples.recipe.sections import Data

SHARDS = 1024  # into which a saved data set is cut: a multiple of most numbers of ranks
TESTS = ("validation", "val", "test")  # names of the split to evaluate on, in order of preference


def hugging_face(config: Data, *, train: bool) -> HuggingFace | Streamed:
    """The data set in the folder ``config.root``, which `save_to_disk` has written or `load_dataset` reads.

    The first column of images is used, and the first of class labels if there is one.

    Raises:
        SystemExit: if datasets is missing, or there is no such folder, split or column.
    """
    try:
        import datasets  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise SystemExit('data.name=huggingface needs datasets: pip install "symplectic-jepa[data]"') from error
    root = Path(config.root)
    if not root.is_dir():
        raise SystemExit(f"data.root must be a folder, got {config.root}, which does not exist")
    saved = (root / "dataset_dict.json").is_file()
    open_root = datasets.load_from_disk if saved else partial(datasets.load_dataset, streaming=config.stream)
    splits = open_root(config.root)
    wanted = ("train",) if train else TESTS
    name = next((name for name in wanted if name in splits), None)
    if name is None:
        raise SystemExit(f"{config.root} must have a split {' or '.join(wanted)}, got {', '.join(splits)}")
    split = splits[name]
    columns = {kind: [k for k, x in (split.features or {}).items() if isinstance(x, kind)]
               for kind in (datasets.Image, datasets.ClassLabel)}  # fmt: skip
    if not columns[datasets.Image]:
        raise SystemExit(f"{config.root} must have a column of images, got {', '.join(split.features or {})}")
    image = columns[datasets.Image][0]
    label = next(iter(columns[datasets.ClassLabel]), None)
    split = split.cast_column(image, datasets.Image(decode=False))
    return (Streamed if config.stream else HuggingFace)(split, image, label, config, train=train)


class HuggingFace:
    """A split by index."""

    def __init__(self, split: Any, image: str, label: str | None, config: Data, *, train: bool) -> None:
        self._split, self._image, self._label, self._decoded = split, image, label, Decoded(config)
        self.class_names = () if label is None else tuple(split.features[label].names)

    def __len__(self) -> int:
        return len(self._split)

    def image(self, index: int) -> np.ndarray:
        pixels, _ = self._decoded[sample_of(self._split[index], self._image, None)]
        if isinstance(pixels, str):
            raise SystemExit(f"image {index} of data.name=huggingface cannot be read: {pixels}")
        return pixels

    def labels(self) -> list[int] | None:
        return None if self._label is None else list(self._split[self._label])


class Streamed(FirstImages):
    """A split in order (`Stream`), its shards dealt to the ranks by the library."""

    def __init__(self, split: Any, image: str, label: str | None, config: Data, *, train: bool) -> None:
        from datasets.distributed import split_dataset_by_node  # noqa: PLC0415

        saved = hasattr(split, "to_iterable_dataset")
        whole = split.to_iterable_dataset(num_shards=min(len(split), SHARDS)) if saved else split

        def samples(seed: int, rank: int, ranks: int) -> Iterator[Sample]:
            shuffled = whole.shuffle(seed=seed, buffer_size=config.shuffle)
            for row in split_dataset_by_node(shuffled, rank=rank, world_size=ranks):
                yield sample_of(row, image, label)

        super().__init__(samples(0, 0, 1), config.train_size if train else config.test_size, config)
        if label is not None:
            self.class_names = tuple(split.features[label].names)
        if train:
            self.stream = Stream(samples, config)


def sample_of(row: dict[str, Any], image: str, label: str | None) -> Sample:
    value = row[image]
    content = Path(value["path"]).read_bytes() if value["bytes"] is None else value["bytes"]
    return Sample(f"{value['path']}", content, None if label is None else row[label])

"""WebDataset's tar files."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from examples.images.decode import SUFFIXES
from examples.images.streams import FirstImages, Sample, Stream
from examples.recipe.sections import Data


class WebDataset(FirstImages):
    """``config.root`` contains ``train*.tar`` and ``val*.tar``: samples of an image and perhaps its class (``.cls``).

    Training images are read in order (`Stream`): shards are permuted, dealt to the ranks and shuffled in memory. The
    images for evaluation are the first ones of every shard.

    Raises:
        SystemExit: if webdataset is missing, or there are no shards.
    """

    def __init__(self, config: Data, *, train: bool) -> None:
        name, count = ("train", config.train_size) if train else ("val", config.test_size)
        shards = sorted(map(str, Path(config.root).glob(f"{name}*.tar")))
        if not shards:
            raise SystemExit(f"{config.root} (data.root) must contain {name}*.tar, but contains none")
        few = shards[:: max(1, len(shards) // count)]
        each = -(-count // len(few))
        firsts = (sample for shard in few for sample in itertools.islice(read([shard]), each))
        super().__init__(firsts, count, config)
        if not train:
            return

        def samples(seed: int, rank: int, ranks: int) -> Iterator[Sample]:
            mine = random.Random(seed).sample(shards, len(shards))[rank::ranks]
            return read(mine, config.shuffle, seed)

        self.stream = Stream(samples, config)


def read(shards: Sequence[str], shuffle: int = 0, seed: int = 0) -> Iterator[Sample]:
    """The samples of the shards, through webdataset."""
    try:
        import webdataset as wds  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise SystemExit('data.name=webdataset needs webdataset: pip install "symplectic-jepa[data]"') from error
    if not shards:
        return iter(())
    stages = [wds.SimpleShardList(list(shards)), wds.tarfile_to_samples()]
    if shuffle:
        stages.append(wds.shuffle(shuffle, initial=shuffle, rng=random.Random(seed)))
    return map(sample_of, with_images(wds.DataPipeline(*stages)))


def with_images(samples: Iterable[dict[str, bytes]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each sample that has an image, and its key."""
    for sample in samples:
        if key := next((k for k in sample if f".{k.rpartition('.')[2].lower()}" in SUFFIXES), None):
            yield key, sample


def sample_of(pair: tuple[str, dict[str, bytes]]) -> Sample:
    key, sample = pair
    label = int(sample["cls"]) if "cls" in sample else None
    return Sample(f"{sample['__url__']}: {sample['__key__']}.{key}", sample[key], label)

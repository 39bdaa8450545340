"""Data sets of three methods, as a user writes them; tests name them by import path."""

import numpy as np
import torch

from tests.helpers.pictures import TINY
from tests.helpers.runs import over

MINE = "tests.helpers.data_sets"


class Stripes:
    """Rows or columns, of any size from 32 pixels on, read one by one."""

    least = 32

    def __init__(self, config, *, train):
        self.count = 48 if train else 24

    def __len__(self):
        return self.count

    def image(self, index):
        generator = np.random.default_rng([index, self.count])
        h, w = generator.integers(self.least, self.least + 9, 2)
        line = generator.integers(0, 256, (3, 1, w) if index % 2 else (3, h, 1), dtype=np.uint8)
        return np.broadcast_to(line, (3, h, w))

    def labels(self):
        return [i % 2 for i in range(self.count)]


class Squares(Stripes):
    """The same in one size, kept on the device."""

    resident = True
    class_names = ("columns", "rows")
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)

    def image(self, index):
        return torch.from_numpy(np.array(super().image(index)[:, :32, :32]))


class Unlabelled(Stripes):
    """Without labels, and without test images."""

    def __len__(self):
        return self.count if self.count == 48 else 0

    def labels(self):
        return None


class HalfLabelled(Stripes):
    def labels(self):
        return [0] * self.count if self.count == 48 else None


class Floats(Stripes):
    def image(self, index):
        return super().image(index) / 255


class Small(Stripes):
    least = 8


class FewLabels(Stripes):
    def labels(self):
        return [0, 1]


class Uneven(Squares):
    def image(self, index):
        return Stripes.image(self, index)


def settings(name, *more):
    """Overrides of the recipe ``imagenet100`` for a tiny run on one of them."""
    skipped = ("data.image_size", "encoder.backbone")
    kept = [pair for pair in TINY if pair.partition("=")[0] not in skipped]
    return over([f"data.name={MINE}:{name}", "encoder.backbone=small_cnn", *kept], *more)

"""Evaluation by several ranks: each encodes its share of the images, and keeps the training features of that share."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from examples.images.datasets import ImageData
from examples.images.reading import Selected
from examples.system.ranks import Ranks
from symplectic_jepa import regularizers

ALONE = Ranks(0, 1, torch.device("cpu"))  # a process by itself
Images = TypeVar("Images", Tensor, "Tensor | Selected")


def world(mine: Ranks) -> dist.ProcessGroup | None:
    """The group of all ranks, for the functions of `symplectic_jepa.evaluation`; None for a single process."""
    return dist.group.WORLD if mine.size > 1 else None


def weights_from_main(model: nn.Module, mine: Ranks) -> None:
    """Copy rank 0's parameters and buffers to every rank: on CPUs each rank has its own statistics of BatchNorm."""
    mine.wait()  # rank 0 may have been busy for longer than a collective waits
    if mine.size > 1:
        for x in (*model.parameters(), *model.buffers()):
            dist.broadcast(x.detach(), 0)


def share(images: Images, mine: Ranks) -> Images:
    """This rank's part of images or labels, in order; the parts differ by at most one."""
    if mine.size == 1:
        return images
    if len(images) < mine.size:
        raise SystemExit(
            f"evaluation needs at least one image of each split per rank, got {len(images)} images for "
            f"{mine.size} ranks: evaluate on fewer"
        )
    kept = torch.zeros(len(images), dtype=torch.bool)
    kept.tensor_split(mine.size)[mine.rank].fill_(True)
    return images[kept] if isinstance(images, Tensor) else images.subset(kept)


def share_training(data: ImageData, mine: Ranks) -> ImageData:
    """The data with this rank's part of the training images and labels."""
    labels = None if data.train_labels is None else share(data.train_labels, mine)
    return replace(data, train_images=share(data.train_images, mine), train_labels=labels)


def gather(x: Tensor, mine: Ranks, most: int | None = None) -> Tensor:
    """The rows ``(N, D)`` of all ranks, on every rank; if they are more than ``most``, evenly spaced ones."""
    ranks = regularizers.Ranks(sync=mine.size > 1)
    counts = ranks.row_counts(len(x), x.device)
    every = 1 if most is None else -(-sum(counts) // most)
    x = x[-sum(counts[: mine.rank]) % every :: every]
    return ranks.gather(x, ranks.row_counts(len(x), x.device))

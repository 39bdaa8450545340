"""This process's rank and device, alone or under ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist

from examples.system.machine import pick_device


class Ranks(NamedTuple):
    """This process among all of them. Only rank 0 writes logs and checkpoints."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.rank == 0


@contextmanager
def ranks(device: str) -> Iterator[Ranks]:
    """Join ``torchrun``'s process group (NCCL on GPUs, gloo on CPUs), or run as the only process."""
    if "LOCAL_RANK" not in os.environ:
        yield Ranks(0, 1, pick_device(device))
        return
    chosen = pick_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    dist.destroy_process_group()  # not after an error: other ranks may wait in a collective, and torchrun ends them

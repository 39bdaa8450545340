"""This process's rank and device, alone or in a job of several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from examples.system.launcher import several
from examples.system.machine import pick_device

PATIENCE = timedelta(days=365)


class Ranks(NamedTuple):
    """This process among all of them. Only rank 0 reads and writes logs and checkpoints."""

    rank: int
    size: int
    device: torch.device
    patient: dist.ProcessGroup | None = None  # all ranks, on gloo, without a timeout

    @property
    def main(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Wait for every rank, however long rank 0 evaluates. If a rank dies, the wait fails."""
        if self.size > 1:
            dist.barrier(self.patient)

    def from_main(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, group=self.patient)
        return box[0]

    def read(self, path: Path) -> bytes:
        """Rank 0's file. The machines of other ranks need not share its disk."""
        content: bytes = self.from_main(path.read_bytes() if self.main else None)
        return content

    def agree(self, values: Mapping[str, Any]) -> None:
        """Wait for every rank, and refuse to go on if one has other values than rank 0.

        Raises:
            SystemExit: on every rank; rank 0 names the first rank and value.
        """
        found = [values] * self.size
        if self.size > 1:
            dist.all_gather_object(found, values, group=self.patient)
        for rank, others in enumerate(found):
            for key, value in found[0].items():
                if others[key] != value:
                    text = (
                        f"every rank must have the same {key}, got {value} on rank 0 and {others[key]} on rank {rank}"
                    )
                    raise SystemExit(text if self.main else 1)


@contextmanager
def ranks(device: str, *, timeout: float = 600.0) -> Iterator[Ranks]:
    """Join the process group of ``torchrun`` or ``srun`` (NCCL on GPUs, gloo on CPUs), or run as the only process.

    Args:
        device: as in `pick_device`; the processes of a machine use its GPUs in turn.
        timeout: seconds that a collective may take before it fails.

    Raises:
        SystemExit: if there is no such device, or as `several`.
    """
    if not several():
        yield Ranks(0, 1, pick_device(device))
        return
    chosen = pick_device(device)
    if chosen.type == "cuda":  # modulo, because Slurm may show each task a GPU of its own only
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(chosen)
    limit = timedelta(seconds=timeout)
    store, rank, size = next(dist.rendezvous("env://", timeout=limit))
    # torchrun keeps its store over a restart, and in it the addresses of the processes that have died.
    store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    yield Ranks(dist.get_rank(), dist.get_world_size(), chosen, dist.new_group(backend="gloo", timeout=PATIENCE))
    dist.destroy_process_group()  # not after an error: other ranks may wait in a collective, and the launcher ends them

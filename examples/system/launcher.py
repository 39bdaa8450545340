"""How this process was started: alone, by ``torchrun``, or as a task of Slurm's ``srun``."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping

TORCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torch.distributed reads
SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # of torch, Open MPI and MPICH
PORTS = 10_000, 20_000  # first, number: below those that Linux hands out itself


def several(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Whether a launcher gave this process a rank. In a task of ``srun``, torch's variables are set from Slurm's.

    ``MASTER_ADDR`` and ``MASTER_PORT`` are kept if they are given. Otherwise they are the step's first machine and a
    function of the job and the step.

    Raises:
        SystemExit: if several processes were started that would not know of each other, or a variable is missing.
    """
    e = environment
    if "RANK" not in e:
        e.update(_of_srun(e))
    if "RANK" not in e:
        for name in SIZES:
            if e.get(name, "1") not in ("", "0", "1"):
                raise SystemExit(
                    f"{name} is {e[name]}, but RANK is not set: start several processes with torchrun or srun"
                )
        return False
    if missing := [name for name in TORCH if name not in e]:
        raise SystemExit(
            f"RANK is {e['RANK']}, but {', '.join(missing)} not set: start several processes with torchrun"
        )
    return True


def refuse_several(command: str) -> None:
    """Refuse more than one process.

    Raises:
        SystemExit: naming the command.
    """
    if several() and os.environ["WORLD_SIZE"] != "1":
        raise SystemExit(f"{command} runs in one process; to use several, run torchrun -m examples.train")


def _of_srun(e: MutableMapping[str, str]) -> dict[str, str]:
    """Torch's variables for one of several tasks; none for a single task, or outside Slurm."""
    size = e.get("SLURM_STEP_NUM_TASKS", e.get("SLURM_NTASKS", "1"))
    if size == "1" or "SLURM_PROCID" not in e:
        return {}
    if not {"SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST"} & e.keys():  # a batch script, whose own SLURM_PROCID is 0
        raise SystemExit(f"SLURM_NTASKS is {size}, but this is not a task of srun: start it with srun or torchrun")
    address, port = e.get("MASTER_ADDR"), e.get("MASTER_PORT")
    if address is None and (nodes := e.get("SLURM_STEP_NODELIST")):
        address = first_host(nodes)
    if port is None and (job := e.get("SLURM_JOB_ID")):
        port = str(PORTS[0] + (31 * int(job) + int(e.get("SLURM_STEP_ID", "0"))) % PORTS[1])
    found = {
        "RANK": e["SLURM_PROCID"],
        "WORLD_SIZE": size,
        "LOCAL_RANK": e.get("SLURM_LOCALID"),
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }
    if missing := [name for name, value in found.items() if value is None]:
        raise SystemExit(
            f"SLURM_NTASKS is {size}, but Slurm's variables do not tell {', '.join(missing)}: set them, or use torchrun"
        )
    return {name: value for name, value in found.items() if value is not None}


def first_host(nodes: str) -> str:
    """The first of Slurm's list of machines: ``gpu03`` of ``gpu[03-05,7],login1``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0] if first else nodes)

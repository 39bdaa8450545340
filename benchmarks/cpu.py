"""Speed on this machine's CPU, compared with the textbook and peers: ``python -m benchmarks.cpu`` (``make bench``).

Writes ``cpu.json`` and ``cpu.md`` into ``--out``. Every figure is a ratio of interleaved runs in one process.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.report import markdown, measure, page
from benchmarks.rollout import long_rollout
from benchmarks.step import training_step
from benchmarks.workloads import WORKS, Work
from examples.system.files import write_atomically
from examples.system.machine import machine

ROWS: dict[str, Callable[..., Work]] = {**WORKS, "rollout": long_rollout, "step": training_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS), help="rows to measure")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, as a smoke test")
    arguments = parser.parse_args()
    if not arguments.smoke:
        torch.set_num_threads(os.cpu_count() or 1)
    device = torch.device("cpu")
    rows = {}
    for name in arguments.only:
        rows[name] = measure(ROWS[name](device, smoke=arguments.smoke), device, smoke=arguments.smoke)
        print(markdown(rows[name]), flush=True)
        gc.collect()
        torch._dynamo.reset()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(device), "rows": rows}
    write_atomically(arguments.out / "cpu.json", json.dumps(report, indent=2) + "\n")
    write_atomically(arguments.out / "cpu.md", page("Speed on a CPU", "make bench", report))


if __name__ == "__main__":
    main()

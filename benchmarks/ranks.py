"""What the objective costs on several ranks, beside the gradient all-reduce: ``python -m benchmarks.ranks``.

Writes ``ranks.json`` and ``ranks.md`` into ``--out``. The ranks are gloo processes of this machine, so that only ratios
mean something. One global batch is split between them: its images per step stay the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from examples.model.build import build_model, build_optimizer
from examples.recipe.schema import load_recipe
from examples.system.files import write_atomically
from examples.system.machine import machine
from examples.training.loop import train_step
from examples.training.step_clock import StepClock

RANKS = (1, 2, 4)
METHODS = ("hamjepa", "sigreg")
COLUMNS = {
    "objective_share": "objective / step",
    "collective_share": "its two collectives / step",
    "gradient_share": "gradient all-reduce / step",
    "bytes": "vectors",
    "gradient_bytes": "gradient",
    "bytes_ratio": "vectors / gradient",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on 1 and 2 ranks, as a smoke test")
    arguments = parser.parse_args()
    batch, steps, worlds = (8, 2, (1, 2)) if arguments.smoke else (128, 12, RANKS)
    recipes = {
        method: ["textures" if arguments.smoke else "cifar100", f"method={method}", "train.precision=fp32"]
        for method in METHODS
    }
    rows = [
        {"method": method, "ranks": world, **measure(recipe, world, batch, steps)}
        for method, recipe in recipes.items()
        for world in worlds
    ]
    report = {"machine": machine(torch.device("cpu")), "batch": batch, "threads_per_rank": 1, "rows": rows}
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out / "ranks.json", json.dumps(report, indent=2) + "\n")
    write_atomically(arguments.out / "ranks.md", table(report))
    print(table(report))


def measure(recipe: list[str], world: int, batch: int, steps: int) -> dict[str, float]:
    """One number of ranks, in processes of their own; rank 0's medians."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (world, folder, recipe, (batch, steps)), nprocs=world)
        found: dict[str, float] = json.loads((Path(folder) / "result.json").read_text())
    return found


def _rank(rank: int, world: int, folder: str, arguments: list[str], sizes: tuple[int, int]) -> None:
    batch, steps = sizes
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", world_size=world, rank=rank)
    recipe = load_recipe(arguments[0], arguments[1:])
    torch.manual_seed(0)
    model = build_model(recipe, torch.Size((3, 32, 32)))
    optimizer = build_optimizer(model, recipe.optim)
    wrapped = DistributedDataParallel(model) if world > 1 else model
    images = torch.randn(2, batch, 3, 32, 32).tensor_split(world, dim=1)[rank]
    clock = StepClock(torch.device("cpu"))
    clock.attach(model)
    sent, counted = [0], dist.all_reduce

    def counting(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        sent[0] += x.numel() * x.element_size()
        return counted(x, *args, **kwargs)

    dist.all_reduce = counting  # the objective's; DistributedDataParallel's own are not called from Python
    times: list[dict[str, float]] = []
    for _ in range(steps + 1):
        sent[0] = 0
        clock.start()
        train_step(wrapped, optimizer, images, clip=1.0, clock=clock)
        times.append(clock.stop())
    dist.all_reduce = counted
    gradient = torch.zeros(sum(p.numel() for p in model.parameters()))
    vector = torch.zeros(sent[0] // 16, dtype=torch.float64)  # the same forward and backward
    collective = 2 * _seconds(lambda: dist.all_reduce(vector), steps) if world > 1 else 0.0
    reduction = _seconds(lambda: dist.all_reduce(gradient), steps) if world > 1 else 0.0
    step = statistics.median(sum(spans.values()) for spans in times[1:])  # without the first, which allocates
    objective = statistics.median(spans["objective"] for spans in times[1:])
    result = {
        "objective_share": objective / step,
        "collective_share": collective / step,
        "gradient_share": reduction / step,
        "bytes": sent[0],
        "gradient_bytes": 4 * gradient.numel() if world > 1 else 0,
        "bytes_ratio": sent[0] / (4 * gradient.numel()),
    }
    if rank == 0:
        (Path(folder) / "result.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def _seconds(action: Callable[[], object], repeats: int) -> float:
    """The median duration of a collective that all ranks start together."""
    spans = []
    for _ in range(repeats + 1):
        dist.barrier()
        began = time.perf_counter()
        action()
        spans.append(time.perf_counter() - began)
    return statistics.median(spans[1:])


def table(report: dict[str, Any]) -> str:
    """The report as markdown."""
    there = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    lines = [
        "# The objective on several ranks",
        "",
        f"Written by `python -m benchmarks.ranks`: gloo processes with one thread each on one machine ({there}).",
        f"Ranks beyond its cores share them, so read ratios only. One global batch of {report['batch']} images is",
        "split between the ranks, and a step is forward, backward and optimizer. The collectives are timed by",
        "themselves; in a step, the gradient all-reduce overlaps with the backward pass. Bytes are what each rank",
        "passes to the collectives of a step.",
        "",
        f"| method | ranks | {' | '.join(COLUMNS.values())} |",
        "| --- | --- |" + " --- |" * len(COLUMNS),
    ]
    for row in report["rows"]:
        cells = [
            f"{row[key] / 2**10:,.0f} KiB" if key in ("bytes", "gradient_bytes") else f"{row[key]:.1%}"
            for key in COLUMNS
        ]
        lines.append(f"| {row['method']} | {row['ranks']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

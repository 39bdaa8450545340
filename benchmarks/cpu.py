"""The speed of the library on this machine's CPU, side by side: ``python -m benchmarks.cpu`` (``make bench``).

Writes ``cpu.json`` and ``cpu.md`` into ``--out``. Every figure is a ratio of runs taken in turn in one process.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import machine, paired_times, peak_bytes, ratio
from benchmarks.rollout import long_rollout
from benchmarks.step import training_step
from benchmarks.works import PRODUCTS, WORKS, Target, Work
from examples.checkpoint import write_atomically

ROWS: dict[str, Callable[..., Work]] = {**WORKS, "rollout": long_rollout, "step": training_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS), help="rows to measure")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    arguments = parser.parse_args()
    if not arguments.smoke:
        torch.set_num_threads(os.cpu_count() or 1)
    device = torch.device("cpu")
    rows = {}
    for name in arguments.only:
        rows[name] = measure(ROWS[name](device, smoke=arguments.smoke), device, repeats=2 if arguments.smoke else 15)
        print(markdown(rows[name]), flush=True)
        gc.collect()
        torch._dynamo.reset()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(device), "rows": rows}
    write_atomically(arguments.out / "cpu.json", json.dumps(report, indent=2) + "\n")
    write_atomically(arguments.out / "cpu.md", page(report))


def measure(work: Work, device: torch.device, *, repeats: int) -> dict[str, Any]:
    """Times, ratios, peak memory and targets of one row."""
    times = paired_times(work.variants, repeats=repeats, device=device)
    memory = {name: peak_bytes(function, device) for name, function in work.variants.items()}
    targets = []
    for target in work.targets:
        if target.of == "seconds":
            value = ratio(times, target.numerator, target.denominator)
        else:
            value = {"median": memory[target.numerator] / memory[target.denominator]}
        targets.append({**vars(target), "value": value, "met": target.met(value["median"])})
    return {
        "name": work.name,
        "milliseconds": {name: 1000 * statistics.median(values) for name, values in times.items()},
        "runs": len(next(iter(times.values()))),
        "mebibytes": {name: size / 2**20 for name, size in memory.items()},
        "against the textbook": {
            name: ratio(times, "textbook", name)
            for name in times
            if "textbook" in times and name not in ("textbook", PRODUCTS)
        },
        "targets": targets,
        "notes": work.notes,
    }


def page(report: dict[str, Any]) -> str:
    """The whole report as markdown."""
    where = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    text = f"""# Speed on a CPU

Written by `make bench`. Medians of runs taken in turn in one process; forward and backward; memory is the peak beyond
inputs and parameters. {where}.
"""
    return "\n".join([text, *(markdown(row) for row in report["rows"].values())])


def markdown(row: dict[str, Any]) -> str:
    """One row's tables."""
    lines = [
        f"## {row['name']}\n",
        f"| {row['runs']} runs each | ms | MiB | times faster than the textbook (least, greatest) |",
        "| --- | --- | --- | --- |",
    ]
    for name, span in row["milliseconds"].items():
        faster = row["against the textbook"].get(name)
        times = f"{faster['median']:.2f} ({faster['min']:.2f}, {faster['max']:.2f})" if faster else "–"
        lines.append(f"| {name} | {span:.1f} | {row['mebibytes'][name]:.1f} | {times} |")
    lines.append("\n| target | measured | met |\n| --- | --- | --- |")
    for target in row["targets"]:
        t = Target(*(target[key] for key in ("numerator", "denominator", "limit", "at_least", "of")))
        sign = "≥" if t.at_least else "≤"
        lines.append(
            f"| {t.numerator} / {t.denominator}, {t.of}: {sign} {t.limit:g} | {target['value']['median']:.2f} | "
            f"{'yes' if target['met'] else 'no'} |"
        )
    lines.append("")
    lines += [f"- {key}: {value if isinstance(value, str) else f'{value:.3g}'}" for key, value in row["notes"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

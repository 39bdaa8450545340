"""Measures a workload as a row of the table, and formats the tables as markdown."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from benchmarks.measure import paired_times, peak_bytes, ratio
from benchmarks.step import CONVOLUTIONS
from benchmarks.workloads import PRODUCTS, Work

FLOORS = (PRODUCTS, CONVOLUTIONS)


def measure(work: Work, device: torch.device, *, smoke: bool = False) -> dict[str, Any]:
    """Times, ratios, peak memory and targets of one row."""
    times = paired_times(work.variants, device=device, **({"budget": 0.0, "sample": 0.0} if smoke else {}))
    memory = {name: peak_bytes(function, device) for name, function in work.variants.items()}
    targets = []
    for target in work.targets:
        if target.of == "seconds":
            value = ratio(times, target.numerator, target.denominator)
        else:
            value = {"median": memory[target.numerator] / memory[target.denominator]}
        best = ratio(times, target.numerator, target.floor) if target.floor else None
        targets.append({**vars(target), "value": value, "met": target.met(value["median"]), "best": best})
    return {
        "name": work.name,
        "milliseconds": {name: 1000 * statistics.median(values) for name, values in times.items()},
        "runs": len(next(iter(times.values()))),
        "mebibytes": {name: size / 2**20 for name, size in memory.items()},
        "against the textbook": {
            name: ratio(times, "textbook", name)
            for name in times
            if "textbook" in times and name not in ("textbook", *FLOORS)
        },
        "targets": targets,
        "teraflops": {name: work.flop / statistics.median(values) / 1e12 for name, values in times.items()},
        "notes": work.notes,
    }


def page(title: str, command: str, report: dict[str, Any]) -> str:
    """The whole report as markdown."""
    where = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    text = f"""# {title}

Written by `{command}`. Medians of interleaved runs in one process; forward and backward; memory is the peak beyond
inputs and parameters. {where}.
"""
    return "\n".join([text, *(markdown(row) for row in report["rows"].values())])


def markdown(row: dict[str, Any]) -> str:
    """One row's tables."""
    lines = [
        f"## {row['name']}\n",
        f"| {row['runs']} runs each | ms | MiB | times faster than the textbook (min, max) |",
        "| --- | --- | --- | --- |",
    ]
    for name, span in row["milliseconds"].items():
        faster = row["against the textbook"].get(name)
        times = f"{faster['median']:.2f} ({faster['min']:.2f}, {faster['max']:.2f})" if faster else "–"
        lines.append(f"| {name} | {span:.1f} | {row['mebibytes'][name]:.1f} | {times} |")
    lines.append("\n| target | measured | met | best possible, at the floor |\n| --- | --- | --- | --- |")
    for target in row["targets"]:
        best = f"{target['best']['median']:.2f} ({target['floor']})" if target["best"] else "–"
        lines.append(
            f"| {target['numerator']} / {target['denominator']}, {target['of']}: {'≥' if target['at_least'] else '≤'} "
            f"{target['limit']:g} | {target['value']['median']:.2f} | {'yes' if target['met'] else 'no'} | {best} |"
        )
    lines.append("")
    lines += [f"- {key}: {value if isinstance(value, str) else f'{value:.3g}'}" for key, value in row["notes"].items()]
    return "\n".join(lines) + "\n"

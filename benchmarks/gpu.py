"""One GPU, one script, at most nine minutes: ``python -m benchmarks.gpu --out benchmarks/results``.

Measures every workload eager, compiled and as a CUDA graph, compared with the textbook and other libraries; the rate of
the matrix products relative to a measured ceiling; and a training epoch of CIFAR-100's size for HamJEPA and SIGReg,
with the time of each part of a step. ``--smoke`` runs the same code on a CPU at tiny sizes, without the graphs.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import symplectic_jepa as sj
from benchmarks.measure import Function, paired_times, ratio, seconds
from benchmarks.report import measure, page
from benchmarks.step import CONVOLUTIONS, OurStep, convolutions, random_images, recipe_of
from benchmarks.workloads import WORKS
from examples.system.files import write_atomically
from examples.system.machine import machine
from examples.training.cuda_graph import CapturedStep, record_graph

EPOCH = 50_000  # pairs
BUDGET = 540.0  # seconds; what does not fit is skipped and reported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--smoke", action="store_true", help="on the CPU with tiny sizes, as a smoke test")
    arguments = parser.parse_args()
    if not arguments.smoke and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: run with --smoke to see that the script works, or on a machine with a GPU")
    device = torch.device("cpu" if arguments.smoke else "cuda")
    arguments.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    report: dict[str, Any] = {"machine": machine(device), "ceilings": ceilings(device), "rows": {}, "training": {}}
    jobs: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
        ("training", method, lambda method=method: training(method, device, smoke=arguments.smoke))
        for method in ("hamjepa", "sigreg")
    ]
    jobs += [("rows", name, lambda name=name: row(name, device, smoke=arguments.smoke)) for name in WORKS]
    for part, name, job in jobs:
        if time.perf_counter() - began > 0.8 * BUDGET:
            report[part][name] = {"left out": f"after {time.perf_counter() - began:.0f} s of {BUDGET:.0f}"}
        else:
            report[part][name] = job()
        print(json.dumps({name: report[part][name]}), flush=True)
        write_atomically(arguments.out / "gpu.json", json.dumps(report, indent=2) + "\n")  # keep what is finished
        write_atomically(arguments.out / "gpu.md", text(report))
        gc.collect()
        torch._dynamo.reset()


def ceilings(device: torch.device) -> dict[str, float]:
    """Measured peak rates of this device: TFLOP/s of a large product, GB/s of a copy."""
    size = 256 if device.type == "cpu" else 8192
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a = torch.randn(size, size, device=device, dtype=dtype)
        best = min(seconds(lambda a=a: a @ a, device) for _ in range(5))
        found[f"{name} TFLOP/s"] = 2 * size**3 / best / 1e12
    x = torch.empty(size * size, device=device)
    y = torch.empty_like(x)
    found["copy GB/s"] = 8 * x.numel() / min(seconds(lambda: y.copy_(x), device) for _ in range(5)) / 1e9
    return found


def row(name: str, device: torch.device, *, smoke: bool) -> dict[str, Any]:
    """A workload, with its eager form also as a CUDA graph."""
    work = WORKS[name](device, smoke=smoke)
    if device.type == "cuda":
        held = WORKS[name](device, smoke=smoke)  # a second instance, because the first one still draws
        work.variants["CUDA graph"] = graphed(held.variants["eager"], held.module)
    return measure(work, device, smoke=smoke)


def graphed(function: Function, module: torch.nn.Module | None) -> Function:
    """Record ``function`` as a CUDA graph and return its replay."""
    if module is not None:
        sj.hold_draws(module)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    replay, _ = record_graph(function)

    def run() -> None:
        if module is not None:
            sj.advance_draws(module)
        replay()

    return run


def training(method: str, device: torch.device, *, smoke: bool) -> dict[str, Any]:
    """Seconds per epoch of 50,000 pairs, batch 512, bf16, including augmentation, for each form of the step."""
    pairs, resident = (4, 8) if smoke else (512, EPOCH)
    images = random_images(resident).to(device)
    recipe = recipe_of(pairs, f"method={method}")
    eager, floor = OurStep(recipe, images[:pairs]), OurStep(recipe, images[:pairs])
    forms: dict[str, Callable[[], object]] = {"eager": eager, CONVOLUTIONS: convolutions(floor)}
    forms["compiled"] = OurStep(recipe, images[:pairs], compiled=True)
    if device.type == "cuda":
        recorded = OurStep(recipe, images[:pairs])
        step = CapturedStep(recorded.train, recorded.views(), recorded.model, recorded.optimizer)
        forms["CUDA graph"] = lambda: step(recorded.views())
    times = paired_times(forms, device=device, budget=0.0 if smoke else 20.0, most=31, sample=0.0)
    split = eager.split(1 if smoke else 10)
    best = min((name for name in forms if name != CONVOLUTIONS), key=lambda name: sum(times[name]))
    steps = resident // pairs
    epoch = seconds(lambda: _epoch(forms[best], steps), device)
    return {
        "pairs": pairs,
        "milliseconds": {name: 1000 * sorted(values)[len(values) // 2] for name, values in times.items()},
        "eager step, milliseconds": {name: 1000 * span for name, span in split.items()},
        "objective, share of the eager step": split["objective"] / sum(split.values()),
        f"epoch of {steps} steps, {best}, seconds": epoch,
        "pairs per second": steps * pairs / epoch,
        "rate over that of the convolutions alone": ratio(times, CONVOLUTIONS, best)["median"],
    }


def _epoch(step: Callable[[], object], steps: int) -> None:
    for _ in range(steps):
        step()


def text(report: dict[str, Any]) -> str:
    """The report as markdown."""
    rows = {name: found for name, found in report["rows"].items() if "left out" not in found}
    lines = [page("Speed on a GPU", "python -m benchmarks.gpu", {**report, "rows": rows})]
    for title in ("ceilings", "training"):
        lines.append(f"## {title}\n\n```json\n{json.dumps(report[title], indent=2)}\n```\n")
    ceiling = report["ceilings"]["float32 TFLOP/s"]
    for found in rows.values():
        shares = ", ".join(f"{name} {value / ceiling:.0%}" for name, value in found["teraflops"].items())
        lines.append(f"- {found['name']}: products per second over the float32 ceiling: {shares}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

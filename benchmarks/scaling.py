"""How the objective's cost grows with B, d, M and S: ``python -m benchmarks.scaling``.

Writes ``scaling.json`` into ``--out`` and the figure of the docs. Time and peak memory of forward and backward, ours
(eager) and the textbook's interleaved; one axis varies, everything else stays at its middle value.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

import symplectic_jepa as sj
from benchmarks import textbook
from benchmarks.measure import Function, paired_times, peak_bytes
from benchmarks.workloads import gradient_of
from examples.system.files import write_atomically
from examples.system.machine import machine

AXES: dict[str, tuple[str, list[int]]] = {
    "B": ("batch size B", [128, 256, 512, 1024, 2048]),
    "d": ("dimension d of q and p", [128, 256, 512, 1024, 2048]),
    "M": ("SIGReg slices M", [64, 128, 256, 512, 1024]),
    "S": ("leapfrog steps S", [1, 2, 4, 8, 16]),
}
MIDDLE = {"B": 256, "d": 512, "M": 256, "S": 2}
SMOKE = {"B": 16, "d": 8, "M": 4, "S": 2}
COLORS = {"textbook": "#777777", "ours": "#0072b2", "ours, reversible": "#d55e00"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/scaling.png"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, as a smoke test")
    arguments = parser.parse_args()
    device = torch.device("cpu")
    if not arguments.smoke:
        torch.set_num_threads(os.cpu_count() or 1)
    middle = SMOKE if arguments.smoke else MIDDLE
    curves = {}
    for axis, (_, full) in AXES.items():
        values = [middle[axis], 2 * middle[axis]] if arguments.smoke else full
        points = [measure(axis, {**middle, axis: value}, device) for value in values]
        curves[axis] = {"values": values, "points": points}
        print(axis, json.dumps(curves[axis]), flush=True)
    report = {"machine": machine(device), "middle": middle, "curves": curves}
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out / "scaling.json", json.dumps(report, indent=2) + "\n")
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    draw(report, arguments.figure)


def measure(axis: str, at: dict[str, int], device: torch.device) -> dict[str, dict[str, float]]:
    """Seconds and bytes of each implementation."""
    functions = sigreg(at) if axis == "M" else hamjepa(at, reversible=axis == "S")
    times = paired_times(functions, device=device, budget=3.0, most=9, sample=0.0 if at["B"] < 100 else 0.02)
    return {
        name: {"seconds": statistics.median(times[name]), "bytes": peak_bytes(function, device)}
        for name, function in functions.items()
    }


def hamjepa(at: dict[str, int], *, reversible: bool) -> dict[str, Function]:
    """The whole CIFAR-100 objective on given states, optionally with the reversible gradient as well."""
    torch.manual_seed(0)
    hamiltonian = sj.SeparableHamiltonian(at["d"])
    theirs = textbook.Hamiltonian(hamiltonian)
    z = torch.randn(2, at["B"], 2 * at["d"], requires_grad=True)
    k = min(128, at["d"], 2 * at["B"] - 1)
    projections = {half: torch.linalg.qr(torch.randn(at["d"], k)).Q.contiguous() for half in ("q", "p")}

    def ours(gradient: str) -> Callable[[], Tensor]:
        objective = sj.hamjepa_cifar100(sj.HamiltonianPredictor(hamiltonian, steps=at["S"], gradient=gradient))
        return lambda: objective(z).loss

    parameters = [z, *hamiltonian.parameters()]
    functions = {
        "textbook": gradient_of(
            lambda: textbook.objective(theirs, z, projections, steps=at["S"]), z, *list(theirs.parameters())[:-1]
        ),
        "ours": gradient_of(ours("stored"), *parameters),
    }
    if reversible:
        functions["ours, reversible"] = gradient_of(ours("reversible"), *parameters)
    return functions


def sigreg(at: dict[str, int]) -> dict[str, Function]:
    """SIGReg with T = 17 on two views; both implementations draw their directions."""
    torch.manual_seed(0)
    z = torch.randn(2, at["B"], 2 * at["d"], requires_grad=True)
    module = sj.SIGReg(slices=at["M"])

    def by_the_book() -> Tensor:
        directions = torch.nn.functional.normalize(torch.randn(2 * at["d"], at["M"]), dim=0)
        return textbook.sigreg(z, directions)

    return {"textbook": gradient_of(by_the_book, z), "ours": gradient_of(lambda: module(z), z)}


def draw(report: dict[str, Any], path: Path) -> None:
    """Time above, memory below, one column per axis."""
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(2, 4, figsize=(10, 4.9), sharex="col", constrained_layout=True)
        for column, (axis, curve) in enumerate(report["curves"].items()):
            for row, (key, scale) in enumerate((("seconds", 1e3), ("bytes", 2**-20))):
                panel = axes[row, column]
                for name in curve["points"][0]:
                    values = [scale * point[name][key] for point in curve["points"]]
                    panel.plot(curve["values"], values, "o-", color=COLORS[name], label=name, markersize=4)
                panel.set_xscale("log", base=2)
                panel.set_yscale("log")
                panel.set_xticks(curve["values"], [str(value) for value in curve["values"]])
                panel.xaxis.set_minor_locator(NullLocator())
                panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                panel.yaxis.set_major_formatter("{x:g}")
                panel.yaxis.set_minor_locator(NullLocator())
                panel.grid(alpha=0.3)
            axes[1, column].set_xlabel(AXES[axis][0])
            axes[0, column].set_title("SIGReg" if axis == "M" else "HamJEPA objective", fontsize=9)
        axes[0, 0].set_ylabel("forward + backward, ms")
        axes[1, 0].set_ylabel("peak memory, MiB")
        handles, labels = axes[0, 3].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main()

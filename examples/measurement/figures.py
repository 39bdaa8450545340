"""The paper's four-panel summary (its figures 1–3), methods side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from examples.system.files import load_checkpoint

# One colour per method, one line style per readout; both are readable in greyscale.
COLOURS = {"SIGReg": "#4477AA", "MLP-HJEPA": "#CCBB44", "HamJEPA": "#AA3377"}
STYLES = {"q": "-", "p": "--", "qp": ":", "z": "-"}


Diagnostics = dict[str, dict[str, torch.Tensor]]  # by name of the features


def diagnostics(run: Path) -> Diagnostics:
    """Diagnostics of an evaluated run."""
    path = run / "diagnostics.pt"
    values: Diagnostics = load_checkpoint(path, torch.device("cpu"))
    wanted = {"eigenvalues", "cosines", "norms"}  # and "knn", if the images have labels
    if not isinstance(values, dict) or not all(wanted <= set(arrays) for arrays in values.values()):
        raise SystemExit(f"{path} is damaged: evaluate the run again with examples.evaluate {run}")
    return values


def summary_figure(groups: Sequence[Diagnostics], path: Path) -> None:
    """Draw kNN sweep, eigenspectrum, cosines and norms as a PNG: one row per group, one line per set of features."""
    figure = Figure(figsize=(13, 2.9 * len(groups) + 0.3), layout="constrained", dpi=150)
    rows = figure.subplots(len(groups), 4, squeeze=False)
    for axes, group in zip(rows, groups, strict=True):
        for name, values in group.items():
            _draw(axes, name, values)
            ticks = values["knn"][:, 0].int().tolist() if "knn" in values else []
    panels = (
        ("kNN sweep", "neighbours k", "top-1 (%)"),
        ("Covariance eigenspectrum (top 256)", "index", "eigenvalue"),
        ("Cosine of random pairs", "cosine", "density"),
        ("Feature norms", "norm", "density"),
    )
    for row, axes in enumerate(rows):
        for axis, (heading, x, y) in zip(axes, panels, strict=True):
            axis.set_ylabel(y)
            axis.grid(alpha=0.25, linewidth=0.5)
            if row == 0:
                axis.set_title(heading, fontsize=10)
            if row == len(groups) - 1:
                axis.set_xlabel(x)
        if ticks:
            axes[0].set_xscale("log")
            axes[0].set_xticks(ticks, labels=map(str, ticks))
            axes[0].minorticks_off()
        axes[1].set_yscale("log")
        axes[0].legend(fontsize=8, framealpha=0.8)
    for column in range(4):  # the same scale in every row
        _share(rows[:, column], x=True, y=column < 2)
    figure.savefig(path)


def _draw(axes: Any, name: str, values: dict[str, torch.Tensor]) -> None:
    method, _, readout = name.rpartition("-")
    style = {"color": COLOURS.get(method, "k"), "linestyle": STYLES.get(readout, "-"), "linewidth": 1.5}
    k, top1 = values.get("knn", torch.empty(0, 2)).T  # without labels, the line is only in the legend
    axes[0].plot(k, top1, marker="o", markersize=3, label=name, **style)
    axes[1].plot(range(1, len(values["eigenvalues"]) + 1), values["eigenvalues"].clamp_min(1e-12), **style)
    for axis, key in ((axes[2], "cosines"), (axes[3], "norms")):
        axis.hist(values[key].numpy(), bins=80, density=True, histtype="step", **style)


def _share(axes: Any, *, x: bool, y: bool) -> None:
    for axis in axes[1:]:
        if x:
            axis.sharex(axes[0])
        if y:
            axis.sharey(axes[0])
    axes[0].autoscale()

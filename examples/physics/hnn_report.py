"""Table and figure of `examples.physics.hnn`, beside the numbers of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from examples.physics.report import Numbers, markdown, over_seeds
from examples.physics.systems import System

# Table 1 of arXiv:1906.01563, in its units: times 10³ and, for two bodies, times 10⁶. Train loss, test loss, energy.
UNITS = {"mass-spring": ("10³", 1e3), "pendulum": ("10³", 1e3), "two bodies": ("10⁶", 1e6)}
PUBLISHED = {
    "mass-spring": {"MLP": ("37 ± 2", "37 ± 2", "170 ± 20"), "HNN": ("37 ± 2", "36 ± 2", "0.38 ± 0.1")},
    "pendulum": {"MLP": ("33 ± 2", "35 ± 2", "42 ± 10"), "HNN": ("33 ± 2", "36 ± 2", "25 ± 5")},
    "two bodies": {"MLP": ("33 ± 1", "30 ± 0.1", "6.3e4 ± 3e4"), "HNN": ("3.0 ± 0.1", "2.8 ± 0.1", "39 ± 5")},
}
STYLES = {"truth": ("black", "-"), "MLP": ("#CCBB44", "--"), "HNN": ("#AA3377", "-"), "separable": ("#4477AA", ":")}


def report(runs: Sequence[Mapping[str, Numbers]]) -> str:
    """One table in Markdown: a row per system and model, every number beside the published one."""
    table = [["system", "model", "train loss", "paper", "test loss", "paper", "energy MSE", "paper"]]
    for system, (times, unit) in UNITS.items():
        _, *rows = over_seeds([_scaled(run[system], unit) for run in runs])
        for model, *ours in rows:
            theirs = PUBLISHED[system].get(model, ("–",) * 3)
            pairs = zip(ours, theirs, strict=True)
            table.append([f"{system}, × {times}", model, *(x for pair in pairs for x in pair)])
    return markdown(table)


def _scaled(numbers: Numbers, unit: float) -> Numbers:
    return {model: {column: unit * x for column, x in row.items()} for model, row in numbers.items()}


def draw(
    figures: Mapping[System, tuple[Mapping[str, Tensor], Mapping[str, Tensor]]], path: Path, *, frame: float
) -> None:
    """Of every system the first test trajectory as each model predicts it, and the rms energy error of all of them.

    Args:
        figures: for each system the states ``(T, N, 2d)`` and the energy errors ``(T, N)``, by model.
        path: the PNG file.
        frame: time between two states.
    """
    figure = Figure(figsize=(9, 3.2 * len(figures)), layout="constrained", dpi=120)
    for (left, right), (system, (states, errors)) in zip(
        figure.subplots(len(figures), 2), figures.items(), strict=True
    ):
        for name, (colour, line) in STYLES.items():
            x, y = states[name][:, 0, :2].unbind(-1)  # (q, p), or the plane in which the first body moves
            left.plot(x, y, line, color=colour, label=name, linewidth=1.2)
            if name != "truth":
                rms = errors[name].square().mean(1).sqrt()[1:]
                right.semilogy([frame * (t + 1) for t in range(len(rms))], rms, line, color=colour)
        plane = ("x", "y") if system.dim > 1 else ("q", "p")
        left.set(title=f"{system.name}: a test trajectory", xlabel=plane[0], ylabel=plane[1], aspect="equal")
        right.set(title="error of the true energy, rms", xlabel="time")
        left.legend(fontsize=8, loc="center")
    figure.savefig(path)

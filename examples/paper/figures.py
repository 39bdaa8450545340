"""The study's figures: readouts side by side, training curves, the structure of the trained predictors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure
from torch import Tensor

from examples.measurement.features import READOUTS
from examples.measurement.figures import COLOURS, STYLES, diagnostics, summary_figure
from examples.measurement.structure import FILE, FRAMES, ROLLOUT
from examples.paper.grid import Cell
from examples.system.files import load_checkpoint, read_text
from examples.training.run_folder import CURVES, METRICS

MAP_COLOURS = {"explicit euler": "#EE7733", "residual MLP": COLOURS["MLP-HJEPA"]}
Runs = dict[str, Path]  # by method, for one seed
Maps = dict[str, dict[str, Tensor]]  # arrays of `examples.measurement.structure`, by map


def draw_figures(out: Path, to: Path, table: str, records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Draw a table's finished runs of the first seed; return titles and paths relative to ``to``."""
    trained = [r for r in records if r.get("readouts") and "steps" in r]
    if not trained:
        return []
    seed = min(r["seed"] for r in trained)
    runs: Runs = {
        r["method"]: out / Cell(table, r["name"], seed, "").id
        for method in COLOURS for r in trained if r["seed"] == seed and r["method"] == method
    }  # fmt: skip
    logs = (CURVES, METRICS)
    curves = {m: run for m, run in runs.items() if all((run / name).is_file() for name in logs)}
    maps = _maps(runs)
    figures: list[tuple[str, str, Callable[[Any, Path], None], Any]] = [
        ("kNN sweep, spectrum, cosines and norms of q, p and qp", "readouts.png", readouts_figure, runs),
        ("During training: accuracy, rank, loss terms", "curves.png", curves_figure, curves),
        ("Structure of the trained predictors over long rollouts", "structure.png", structure_figure, maps),
        ("One-dimensional projections of rollouts", "slices.png", slices_figure, maps),
        ("Phase portrait", "portrait.gif", portrait_animation, maps),
    ]
    (to / table).mkdir(parents=True, exist_ok=True)
    drawn = []
    for title, name, draw, content in figures:
        if content:
            draw(content, to / table / name)
            drawn.append((f"{title} ({table}, seed {seed})", f"{table}/{name}"))
    return drawn


def readouts_figure(runs: Runs, path: Path) -> None:
    """The paper's figures 1-3: one row per readout, one line per method."""
    found = {method: diagnostics(run) for method, run in runs.items()}
    groups = [{f"{m}-{r}": d[f"{m}-{r}"] for m, d in found.items() if f"{m}-{r}" in d} for r in (*READOUTS, "z")]
    summary_figure([group for group in groups if group], path)


def curves_figure(runs: Runs, path: Path) -> None:
    """The paper's figures 4 and 5, and the terms of each loss."""
    curves = {method: _lines(run / CURVES, "epoch", "readouts") for method, run in runs.items()}
    figure = Figure(figsize=(13, 6.2), layout="constrained", dpi=150)
    above, below = figure.subfigures(2, 1)
    upper, lower = above.subplots(1, 4), below.subplots(1, max(2, len(curves)))
    measures = {
        "knn": "kNN@20, top-1 (%)", "effective_rank": "effective rank", "participation_ratio": "participation ratio"
    }  # fmt: skip
    for method, lines in curves.items():
        for readout in lines[0]["readouts"]:
            style = {"color": COLOURS[method], "linestyle": STYLES[readout], "label": f"{method}-{readout}"}
            values = {m: [line["readouts"][readout][m] for line in lines] for m in measures}
            for axis, measure in zip(upper, measures, strict=False):
                axis.plot([line["epoch"] for line in lines], values[measure], **style)
            upper[3].plot(values["effective_rank"], values["knn"], marker="o", markersize=3, **style)
    for axis, title in zip(upper, measures.values(), strict=False):
        axis.set(xlabel="epoch", title=title)
    upper[3].set(xlabel="effective rank", title="kNN@20 against effective rank")
    upper[0].legend(fontsize=6)
    for axis, (method, run) in zip(lower, runs.items(), strict=False):
        lines = _lines(run / METRICS, "epoch", "loss")
        for term in [k for k in lines[0] if _is_term(k)]:
            axis.plot([line["epoch"] for line in lines], [line[term] for line in lines], label=term, linewidth=1)
        axis.set(xlabel="epoch", title=f"{method}: unweighted terms")
        axis.set_yscale("symlog", linthresh=1e-4)
        axis.legend(fontsize=6, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    _finish(figure, path)


def structure_figure(maps: Maps, path: Path) -> None:
    """The paper's figures 6 and 7: what each map preserves."""
    figure = Figure(figsize=(13, 3.3), layout="constrained", dpi=150)
    drift, back, area, variance = figure.subplots(1, 4)
    frames = torch.linspace(0, ROLLOUT, FRAMES)
    for name, values in maps.items():
        style = {"color": _colour(name), "label": name}
        drift.plot(frames[1:], values["drift"][1:].clamp_min(1e-17), **style)
        back.plot((1, 10, 100), values["way_back"].clamp_min(1e-17), marker="o", **style)
        area.plot(frames, values["areas"], **style)
        variance.plot(frames, values["variance"], **style)
    drift.set(title="relative energy error (MLP: of ½‖z‖²)", xlabel="applications of the map", yscale="log")
    back.set(title="round-trip error", xlabel="applications of the map", xscale="log", yscale="log")
    area.set(title="area of a loop, relative", xlabel="applications of the map", yscale="log")
    variance.set(title="total variance, relative", xlabel="applications of the map", yscale="log")
    drift.legend(fontsize=7)
    _finish(figure, path)


def slices_figure(maps: Maps, path: Path) -> None:
    """The paper's figure 8: one row per map, random one-dimensional projections of the states at three times."""
    count = next(iter(maps.values()))["slices"].shape[-1]
    figure = Figure(figsize=(3.3 * count, 2.1 * len(maps) + 0.2), layout="constrained", dpi=150)
    for row, (name, values) in zip(figure.subplots(len(maps), count, squeeze=False), maps.items(), strict=True):
        for i, axis in enumerate(row):
            for projected, moment, alpha in zip(
                values["slices"], (0, ROLLOUT // 2, ROLLOUT), (0.3, 0.6, 1.0), strict=True
            ):
                style = {"color": _colour(name), "alpha": alpha, "label": f"after {moment}"}
                axis.hist(projected[:, i].numpy(), bins=25, density=True, histtype="step", **style)
            axis.set_title(f"{name}, direction {i + 1}")
        row[0].legend(fontsize=7)
    _finish(figure, path)


def portrait_animation(maps: Maps, path: Path) -> None:
    """States moving in the plane (q_i, p_i) of the largest spread, one panel per map, with their traces."""
    figure = Figure(figsize=(3.3 * len(maps), 3.5), layout="constrained", dpi=80)
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    artists = []
    for axis, (name, values) in zip(panels, maps.items(), strict=True):
        states: Tensor = values["portrait"]  # (FRAMES, N, 2)
        low, high = states.flatten(0, 1).amin(0), states.flatten(0, 1).amax(0)
        margin = 0.05 * (high - low)
        axis.set(xlim=(low - margin)[0:1].tolist() + (high + margin)[0:1].tolist(), xlabel="q", ylabel="p", title=name)
        axis.set_ylim((low - margin)[1].item(), (high + margin)[1].item())
        traces = axis.plot(*states[:1].unbind(-1), color=_colour(name), linewidth=0.5, alpha=0.5)
        (points,) = axis.plot(*states[0].unbind(-1), "o", color=_colour(name), markersize=3)
        artists.append((states, traces, points))

    def update(frame: int) -> list[Any]:
        for states, traces, points in artists:
            points.set_data(*states[frame].unbind(-1))
            for i, trace in enumerate(traces):
                trace.set_data(*states[: frame + 1, i].unbind(-1))
        return []

    partial = path.with_name("partial-" + path.name)
    FuncAnimation(figure, update, frames=range(0, FRAMES, 2)).save(partial, writer=PillowWriter(fps=12))
    partial.replace(path)


def _maps(runs: Runs) -> Maps:
    """Maps of HamJEPA's energy, then the residual MLP."""
    found: Maps = {}
    for method in ("HamJEPA", "MLP-HJEPA"):
        if method in runs and (runs[method] / FILE).is_file():
            found |= load_checkpoint(runs[method] / FILE, torch.device("cpu"))
    return found


def _colour(name: str) -> str:
    return MAP_COLOURS.get(name, COLOURS["HamJEPA"])


def _is_term(key: str) -> bool:
    return "/" not in key and not key.endswith("seconds") and key not in ("step", "epoch", "loss", "lr", "grad_norm")


def _lines(path: Path, *keys: str) -> list[dict[str, Any]]:
    """A log's lines, each with ``keys``."""
    try:
        lines = [json.loads(line) for line in read_text(path).splitlines()]
        if lines and all(line[key] is not None for line in lines for key in keys):
            return lines
    except (ValueError, LookupError, TypeError):
        pass
    raise SystemExit(f"{path} is damaged: delete it, and the figures are drawn without it")


def _finish(figure: Figure, path: Path) -> None:
    for axis in figure.axes:
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.title.set_fontsize(10)
    figure.savefig(path)

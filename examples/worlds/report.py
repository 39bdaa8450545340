"""Tables of finished cells: mean and standard deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from examples.worlds.cells import Cell
from examples.worlds.environments import ENVIRONMENTS
from examples.worlds.prediction import FREE, HORIZONS

Records = Sequence[dict[str, Any]]


def report(cells: Sequence[Cell], out: Path) -> str:
    """Every finished cell in Markdown: for each task, regularizer and number of episodes, one row per predictor."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for cell in cells:
        if record := cell.result(out):
            groups.setdefault(cell.group, {}).setdefault(cell.predictor, []).append(record)
    head = "# World models: tables\n\nMean ± standard deviation over seeds; ∞: a rollout that overflows.\n"
    return "\n".join([head, *(_group(predictors) for predictors in groups.values())])


def _group(predictors: dict[str, list[dict[str, Any]]]) -> str:
    records = [record for some in predictors.values() for record in some]
    cell = records[0]["cell"]
    environment = ENVIRONMENTS[cell["environment"]]
    title = f"{environment.gym_id}, {cell['regularizer']}, {cell['episodes']:,} training episodes, d = {cell['dim']}"
    first = records[0]
    tables: list[tuple[str, Columns, dict[str, list[float]]]] = [
        ("Physical state, R² of a probe on test frames", _probe_columns(environment.quantities), {}),
        (
            "Open loop: error of the decoded positions after k frames",
            _horizon_columns("position"),
            {"standing still": first["open loop"]["still_position"]},
        ),
        (
            "The same of the velocities",
            _horizon_columns("velocity"),
            {"standing still": first["open loop"]["still_velocity"]},
        ),
        (
            "Without actions: distance to the encoded data (unseen states: 1), and change of energy",
            _free_columns(),
            {"simulator": [1.0, 1.0, 1.0, *first["free"]["true_energy"]]},
        ),
        ("Surprise: AUC against normal frames", _surprise_columns(records), {}),
        (
            "Planning to a goal image, episodes solved",
            _planning_columns(),
            {
                "the planner on the simulator": [first["planning"]["simulator"]],
                "random actions": [first["planning"]["random"]],
            },
        ),
    ]
    lines = [f"## {title}", ""]
    for heading, columns, references in tables:
        lines += [f"{heading}:", "", "| predictor | seeds | " + " | ".join(columns) + " |"]
        lines.append("|---|---|" + "---|" * len(columns))
        for predictor, some in predictors.items():
            values = " | ".join(_spread([read(record) for record in some]) for read in columns.values())
            lines.append(f"| {predictor} | {len(some)} | {values} |")
        for label, known in references.items():
            cells = [*map(_number, known), *[""] * (len(columns) - len(known))]
            lines.append(f"| *{label}* | | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


Columns = dict[str, Callable[[dict[str, Any]], float]]


def _probe_columns(quantities: Sequence[str]) -> Columns:
    return {
        f"{kind} {quantity}": lambda r, kind=kind, i=i: r[f"{kind} R²"][i]  # type: ignore[misc]
        for kind in ("linear", "MLP")
        for i, quantity in enumerate(quantities)
    }


def _horizon_columns(half: str) -> Columns:
    return {f"{k}": lambda r, i=i: r["open loop"][half][i] for i, k in enumerate(HORIZONS)}  # type: ignore[misc]


def _free_columns() -> Columns:
    return {
        f"{what} {k}": lambda r, what=what, i=i: r["free"][what][i]  # type: ignore[misc]
        for what in ("distance", "energy")
        for i, k in enumerate(FREE)
    }


def _surprise_columns(records: Records) -> Columns:
    return {name: lambda r, name=name: r["surprise"][name] for name in records[0]["surprise"]}  # type: ignore[misc]


def _planning_columns() -> Columns:
    return {
        "cross-entropy method": lambda r: r["planning"]["success"],
        "gradients": lambda r: r["planning"]["gradient"],
        "ms per plan": lambda r: 1e3 * r["planning"]["seconds"],
        "training error": lambda r: r["loss"],
    }


def _spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; infinite or huge values as what they are."""
    if not all(map(math.isfinite, values)):
        return "∞"
    text = _number(mean(values))
    if len(values) < 2:
        return text
    spread = stdev(values)
    return f"{text} ± {spread:.0f}" if 10 <= spread < 1e4 else f"{text} ± {spread:.1g}"


def _number(x: float) -> str:
    return f"{x:.1e}" if abs(x) >= 1e4 else f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"

"""Run each cell of a study once and record its result."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.images.datasets import ImageData, load_data
from examples.measurement.features import baselines, evaluate
from examples.measurement.structure import measure_structure
from examples.paper.grid import SCALES, UNTRAINED, Cell
from examples.paper.report import CELL
from examples.recipe.schema import METHODS, Recipe, check_runs, compose, portable, refuse_taken, to_yaml
from examples.recipe.sections import Data
from examples.recipe.text import assignments
from examples.system.files import write_atomically
from examples.system.lock import locked
from examples.system.machine import machine, pick_device
from examples.training.loop import train
from examples.training.nan_guard import NotFiniteError
from examples.training.ranks import ranks
from examples.training.run_folder import differing_keys
from symplectic_jepa import __version__


def roots(pairs: list[str]) -> dict[str, str]:
    """``data.root`` by recipe, from ``NAME=PATH``."""
    known = {cell.recipe for scale in SCALES.values() for cell in scale()}
    for pair in pairs:
        if pair.partition("=")[0] not in known or not pair.partition("=")[2]:
            raise SystemExit(f"--root must be NAME=PATH with NAME one of {', '.join(sorted(known))}, got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)


def reproduce(
    cells: list[Cell], out: Path, overrides: Sequence[str] = (), roots: Mapping[str, str] | None = None
) -> None:
    """Run every cell that is not finished yet; ``roots`` maps a recipe's name to its ``data.root``.

    Raises:
        SystemExit: before any training, if a recipe is invalid, its data are missing, or a finished cell was made with
            other settings.
    """
    shared = assignments(overrides)
    refuse_taken(shared, ("method", "train.seed", "train.out", "train.resume"), "the study")
    recipes = []
    for cell in cells:
        root = {"data.root": roots[cell.recipe]} if roots and cell.recipe in roots else {}
        fixed = assignments(cell.fixed(str(out / cell.id)))
        recipes.append(compose(cell.recipe, assignments(cell.overrides), fixed, root, shared))
    check_runs(recipes, shared)
    todo = [(c, r) for c, r in zip(cells, recipes, strict=True) if not finished(out / c.id, r)]
    data: dict[Data, ImageData] = {}
    for _, recipe in todo:
        if recipe.data not in data:
            data[recipe.data] = load_data(recipe.data)
    for i, (cell, recipe) in enumerate(todo, start=1):
        print(f"{i} of {len(todo)}: {cell.id}", flush=True)
        with locked(folder := out / cell.id):
            if not finished(folder, recipe):  # by another process, meanwhile
                run_cell(cell, recipe, folder, data[recipe.data])


def finished(folder: Path, recipe: Recipe) -> bool:
    """Whether ``folder`` already contains this recipe's result."""
    path = folder / CELL
    if not path.is_file():
        return False
    if changed := differing_keys(json.loads(path.read_text())["recipe"], recipe, str(path)):
        changes = ", ".join(changed)
        raise SystemExit(f"{path} was made with other settings; these differ: {changes}; choose another --out")
    return True


def run_cell(cell: Cell, recipe: Recipe, folder: Path, data: ImageData) -> None:
    """Train (or resume), evaluate, and write the cell's file. Training that hits NaN is recorded as a failure."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    result: dict[str, Any] = {}
    if cell.name == UNTRAINED:
        result["readouts"] = baselines(recipe, data)
    else:
        try:
            with ranks(recipe.train.device) as mine:
                train(recipe, data, mine)
        except NotFiniteError as error:
            result["failed"] = str(error)
        else:
            began = time.perf_counter()
            result |= evaluate(folder, data)
            result["structure"] = measure_structure(folder, data)
    record = {
        "table": cell.table,
        "name": cell.name,
        "seed": cell.seed,
        "method": METHODS[recipe.method],
        "version": __version__,
        "commit": commit(),
        "machine": machine(pick_device(recipe.train.device)),
        "evaluation_seconds": time.perf_counter() - began,
        **result,
        "recipe": to_yaml(portable(recipe, cell.id)),
    }
    write_atomically(folder / CELL, json.dumps(record, indent=2) + "\n")


def commit() -> str | None:
    """Git commit of the running code; None outside a repository."""
    command = ["git", "rev-parse", "HEAD"]
    git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return git.stdout.strip() or None

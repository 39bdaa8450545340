"""Run each cell of a study once and record its result."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.images.datasets import ImageData, fingerprint, load_data, refuse_other_data
from examples.measurement.features import baselines, check_data, evaluate
from examples.measurement.structure import measure_structure
from examples.paper.cells import CELL, EVALUATED, Record, read_cell, refuse_planned, shared_settings
from examples.paper.grid import SCALES, UNTRAINED, Cell
from examples.recipe.schema import METHODS, Recipe, check_runs, compose, portable, read_recipe, refuse_taken, to_yaml
from examples.recipe.sections import Data
from examples.recipe.text import Settings, assignments, flat
from examples.system.files import write_atomically
from examples.system.lock import locked
from examples.system.machine import machine, pick_device
from examples.system.ranks import ranks
from examples.training.loop import train
from examples.training.nan_guard import NotFiniteError
from examples.training.run_folder import affects_training, differing_keys
from symplectic_jepa import __version__


def roots(pairs: list[str]) -> dict[str, str]:
    """``data.root`` by recipe, from ``NAME=PATH``."""
    known = {cell.recipe for scale in SCALES.values() for cell in scale()}
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if name not in known or not path:
            raise SystemExit(f"--root must be NAME=PATH with NAME one of {', '.join(sorted(known))}, got {pair!r}")
        if name in found:
            raise SystemExit(f"--root {name} is given twice, the second time by {pair!r}")
        found[name] = path
    return found


def reproduce(
    cells: list[Cell], out: Path, overrides: Sequence[str] = (), roots: Mapping[str, str] | None = None
) -> None:
    """Run every cell that is not finished yet; ``roots`` maps a recipe's name to its ``data.root``.

    Raises:
        SystemExit: before any training, if a recipe is invalid, its data are missing, a finished cell of the same
            tables was made with other settings or images, or a setting for every cell would undo what a cell's name
            says.
    """
    shared, roots = assignments(overrides), roots or {}
    refuse_taken(shared, taken(cells, roots))
    if unused := roots.keys() - {cell.recipe for cell in cells}:
        raise SystemExit(f"--root {', '.join(sorted(unused))} would be ignored: no selected cell uses it")
    recipes = []
    for cell in cells:
        root = {"data.root": roots[cell.recipe]} if cell.recipe in roots else {}
        recipes.append(compose(cell.recipe, cell.settings(str(out / cell.id)), root, shared))
    check_runs(recipes, shared)
    pairs = list(zip(cells, recipes, strict=True))
    todo = [(c, r) for c, r in pairs if not finished(out / c.id, r)]
    data: dict[Data, ImageData] = {}
    for _, recipe in todo:
        if recipe.data not in data:
            data[recipe.data] = load_data(recipe.data)
        check_data(recipe, data[recipe.data])
    hashes = {config: fingerprint(config, images) for config, images in data.items()}
    for cell, recipe in pairs:
        path = out / cell.id / CELL
        if recipe.data in data and path.is_file():
            refuse_other_data(read_cell(path).get("data"), hashes[recipe.data], recipe.data, path)
    overridden = shared_settings(shared)
    refuse_planned(out, [identity(c, r, hashes[r.data], overridden) for c, r in todo])
    for i, (cell, recipe) in enumerate(todo, start=1):
        print(f"{i} of {len(todo)}: {cell.id}", flush=True)
        with locked(folder := out / cell.id):
            if not finished(folder, recipe):  # by another process, meanwhile
                run_cell(cell, recipe, folder, data[recipe.data], overridden)


def taken(cells: Sequence[Cell], roots: Mapping[str, str]) -> dict[str, str]:
    """Keys that no setting for every cell may change, each with who sets it: they are what cells and tables are."""
    keys = ("method", "regularizer", "data.name", "data.classes", "train.seed", "train.out", "train.resume")
    owners = {
        key: f"the cell {cell.id}" for cell in cells for key in assignments(cell.overrides) if affects_training(key)
    }
    return owners | dict.fromkeys(keys, "the study") | ({"data.root": "--root"} if roots else {})


def finished(folder: Path, recipe: Recipe) -> bool:
    """Whether ``folder`` already contains this recipe's result."""
    path = folder / CELL
    if not path.is_file():
        return False
    record = read_cell(path)
    if changed := differing_keys(record["recipe"], recipe, str(path)):
        changes = ", ".join(changed)
        raise SystemExit(f"{path} was made with other settings; these differ: {changes}; choose another --out")
    old, new = (flat(r.model_dump()) for r in (read_recipe(record["recipe"], str(path)), recipe))
    if "failed" not in record and (changed := [key for key in EVALUATED if old[key] != new[key]]):
        raise SystemExit(
            f"{path} was evaluated with other settings; these differ: {', '.join(changed)}; delete it, and the trained "
            "run is evaluated again, or choose another --out"
        )
    return True


def run_cell(cell: Cell, recipe: Recipe, folder: Path, data: ImageData, overrides: Settings) -> None:
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
        **identity(cell, recipe, fingerprint(recipe.data, data), overrides),
        "method": METHODS[recipe.method],
        "version": __version__,
        "commit": commit(),
        "machine": machine(pick_device(recipe.train.device)),
        "evaluation_seconds": time.perf_counter() - began,
        **result,
    }
    write_atomically(folder / CELL, json.dumps(record, indent=2) + "\n")


def identity(cell: Cell, recipe: Recipe, data: str, overrides: Settings) -> Record:
    """What a cell's record says of how it is made; known before it is."""
    return {
        "table": cell.table,
        "name": cell.name,
        "seed": cell.seed,
        "data": data,
        "overrides": overrides,
        "recipe": to_yaml(portable(recipe, cell.id)),
    }


def commit() -> str | None:
    """Git commit of the running code; None outside a repository."""
    command = ["git", "rev-parse", "HEAD"]
    git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return git.stdout.strip() or None

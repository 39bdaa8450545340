"""The paper's tables: ``python -m examples.reproduce cpu-10`` (``make reproduce SCALE=cpu-10``).

A study is a set of cells, one per table, method (or ablation) and seed; each is trained, evaluated and written as one
``cell.json`` in a folder of its own. A finished cell is never run again and a killed one goes on from its last
checkpoint, so the same command finishes what was begun. At the end, and with --report alone, ``report.md`` and its
figures are written from the cells that are there.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from examples.cells import SCALES, UNTRAINED, Cell
from examples.check import METHODS
from examples.checkpoint import write_atomically
from examples.config import Data, Recipe, load_recipe, to_yaml
from examples.data import ImageData, load_data
from examples.evaluate import baselines, evaluate
from examples.finite import NotFiniteError
from examples.launch import pick_device, ranks
from examples.machine import machine
from examples.report import CELL, write_report
from examples.runs import differing_keys
from examples.structure import measure_structure
from examples.train import train
from symplectic_jepa import __version__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scale", choices=list(SCALES), help="which cells")
    parser.add_argument("overrides", nargs="*", help="settings of every cell as key=value, e.g. data.root=/data")
    parser.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="where a data set is, imagenet100=/data/in100; may repeat",
    )
    parser.add_argument("--only", action="append", metavar="PATTERN", help="cells by id, '*/hamjepa-s42'; may repeat")
    parser.add_argument("--out", type=Path, help="folder of the study (default: runs/reproduce/SCALE)")
    parser.add_argument("--to", type=Path, help="folder of the report (default: the study's)")
    parser.add_argument("--list", action="store_true", help="print the cells and whether they are finished")
    parser.add_argument("--report", action="store_true", help="write the report alone")
    arguments = parser.parse_intermixed_args()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SystemExit("examples.reproduce runs in one process; for several use torchrun -m examples.train")
    out = arguments.out or Path("runs/reproduce") / arguments.scale
    patterns = arguments.only or ["*"]
    cells = [c for c in SCALES[arguments.scale]() if any(fnmatch.fnmatch(c.id, pattern) for pattern in patterns)]
    if not cells:
        raise SystemExit(f"no cell of {arguments.scale} matches {' '.join(patterns)}; --list shows them")
    if arguments.list:
        print("\n".join(f"{'done' if (out / c.id / CELL).is_file() else '-   '} {c.id}" for c in cells))
        return
    if not arguments.report:
        reproduce(cells, out, arguments.overrides, roots(arguments.root))
    print(write_report(out, arguments.to or out))


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
    """Run every cell that is not finished yet; ``roots``: ``data.root`` by recipe.

    Raises:
        SystemExit: if a recipe or its data are not there (before anything is trained), or a finished cell was made with
            other settings.
    """
    recipes = []
    for cell in cells:
        root = [f"data.root={roots[cell.recipe]}"] if roots and cell.recipe in roots else []
        recipes.append(load_recipe(cell.recipe, [*cell.settings(str(out / cell.id)), *root, *overrides]))
    todo = [(c, r) for c, r in zip(cells, recipes, strict=True) if not finished(out / c.id, r)]
    data: dict[str, ImageData] = {}
    for _, recipe in todo:
        if str(recipe.data) not in data:
            data[str(recipe.data)] = load_data(recipe.data)
    for i, (cell, recipe) in enumerate(todo, start=1):
        print(f"{i} of {len(todo)}: {cell.id}", flush=True)
        run_cell(cell, recipe, out / cell.id, data[str(recipe.data)])


def finished(folder: Path, recipe: Recipe) -> bool:
    """Whether ``folder`` holds this recipe's result."""
    path = folder / CELL
    if not path.is_file():
        return False
    if changed := differing_keys(json.loads(path.read_text())["recipe"], to_yaml(recipe)):
        raise SystemExit(
            f"{path} was made with other settings; these differ: {', '.join(changed)}; choose another --out"
        )
    return True


def run_cell(cell: Cell, recipe: Recipe, folder: Path, data: ImageData) -> None:
    """Train (or go on), evaluate, and write the cell's file; a training that met NaN is a result too."""
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
        "recipe": to_yaml(portable(recipe, cell)),
    }
    write_atomically(folder / CELL, json.dumps(record, indent=2) + "\n")


def portable(recipe: Recipe, cell: Cell) -> Recipe:
    """The recipe without the paths of one machine."""
    data = replace(recipe.data, root=Data.root, cache=Data.cache)
    return replace(recipe, data=data, train=replace(recipe.train, out=cell.id))


def commit() -> str | None:
    """Of the code that runs; None outside of a repository."""
    command = ["git", "rev-parse", "HEAD"]
    git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return git.stdout.strip() or None


if __name__ == "__main__":
    main()

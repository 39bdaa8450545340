"""Compare all three methods under one recipe."""

from __future__ import annotations

import json
import time
from pathlib import Path

from examples.images.datasets import ImageData, load_data
from examples.measurement.features import baselines, check_data, evaluate, table
from examples.measurement.figures import diagnostics, summary_figure
from examples.recipe.schema import METHODS, Recipe, check_runs, compose, refuse_taken
from examples.recipe.text import assignments
from examples.system.files import write_atomically
from examples.system.launcher import refuse_several
from examples.system.lock import locked
from examples.system.ranks import ranks
from examples.training.loop import train


def compare(recipe_name: str, overrides: list[str], out: Path) -> str:
    """Run the comparison and return its table."""
    refuse_several("a comparison")
    shared = assignments(overrides)
    refuse_taken(shared, dict.fromkeys(("method", "train.out", "train.resume"), "the comparison"))
    recipes = []
    for method in ("sigreg", "mlp_hjepa", "hamjepa"):
        own = {"method": method, "train.out": str(out / method), "train.resume": "true"}
        recipes.append(compose(recipe_name, shared, own))
    check_runs(recipes, shared)
    if (out / "recipe.yaml").exists():
        raise SystemExit(f"--out must not be a run's own folder, whose results would be overwritten, got {out}")
    if recipes[0].regularizer not in ("default", "sigreg"):
        raise SystemExit(f"regularizer must be default in a comparison with SIGReg, got {recipes[0].regularizer}")
    data = load_data(recipes[-1].data)
    for recipe in recipes:
        check_data(recipe, data)
    with locked(out):
        return _compare(recipes, data, out)


def _compare(recipes: list[Recipe], data: ImageData, out: Path) -> str:
    rows = baselines(recipes[-1], data)
    for recipe in recipes:
        began = time.perf_counter()
        with locked(recipe.out):
            with ranks(recipe.train.device) as mine:
                train(recipe, data, mine)
            print(f"{METHODS[recipe.method]}: trained in {time.perf_counter() - began:.0f} s; evaluating")
            rows |= evaluate(recipe.out, data)["readouts"]
    text = table(rows)
    write_atomically(out / "table.md", text + "\n")
    write_atomically(out / "metrics.json", json.dumps(rows, indent=2) + "\n")
    summary_figure([diagnostics(recipe.out) for recipe in recipes], out / "summary.png")
    return text

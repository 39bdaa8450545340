"""All three methods under one recipe, side by side."""

from __future__ import annotations

import json
import time
from pathlib import Path

from examples.images.datasets import load_data
from examples.measurement.features import baselines, evaluate, table
from examples.measurement.figures import diagnostics, summary_figure
from examples.recipe.checks import METHODS
from examples.recipe.schema import load_recipe
from examples.system.files import write_atomically
from examples.training.loop import train
from examples.training.ranks import ranks


def compare(recipe_name: str, overrides: list[str], out: Path) -> str:
    """Run the comparison; return the table."""
    recipe = load_recipe(recipe_name, overrides)
    data = load_data(recipe.data)
    rows = baselines(recipe, data)
    runs = []
    for method in ("sigreg", "mlp_hjepa", "hamjepa"):
        run = out / method
        settings = [*overrides, f"method={method}", f"train.out={run}", "train.resume=true"]
        began = time.perf_counter()
        with ranks(recipe.train.device) as mine:
            train(load_recipe(recipe_name, settings), data, mine)
        print(f"{METHODS[method]}: trained in {time.perf_counter() - began:.0f} s; evaluating")
        rows |= evaluate(run, data)["readouts"]
        runs.append(run)
    text = table(rows)
    write_atomically(out / "table.md", text + "\n")
    write_atomically(out / "metrics.json", json.dumps(rows, indent=2) + "\n")
    summary_figure([diagnostics(run) for run in runs], out / "summary.png")
    return text

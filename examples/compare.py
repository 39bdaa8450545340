"""Train, evaluate and compare all three methods under one recipe.

``python -m examples.compare cifar100 --out DIR data.classes=10 train.epochs=15`` trains SIGReg, MLP-HJEPA and HamJEPA
with the same encoder, data, budget and seed, then writes ``table.md``, ``summary.png`` and ``metrics.json`` there.
A method whose run is already finished there is not trained again, one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from examples.check import METHODS
from examples.checkpoint import write_atomically
from examples.config import load_recipe
from examples.data import load_data
from examples.evaluate import baselines, evaluate, table
from examples.figures import diagnostics, summary_figure
from examples.launch import ranks
from examples.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="name in examples/recipes, or path of a YAML file")
    parser.add_argument("overrides", nargs="*", help="settings as key=value")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, the table and the figure")
    arguments = parser.parse_intermixed_args()
    compare(arguments.recipe, arguments.overrides, arguments.out)


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


if __name__ == "__main__":
    main()

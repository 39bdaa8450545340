"""Evaluate a run's last checkpoint again: ``python -m examples.evaluate runs/NAME``."""

from __future__ import annotations

import argparse

from examples.measurement.features import evaluate, run_recipe, table
from examples.recipe.text import path
from examples.system.interrupt import ending_on_ctrl_c
from examples.system.lock import locked


@ending_on_ctrl_c("the run is kept; repeat the command to evaluate it")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=path, help="a run's folder")
    run = parser.parse_args().run
    run_recipe(run)  # fails unless it is a run
    with locked(run):
        print(table(evaluate(run)["readouts"]))


if __name__ == "__main__":
    main()

"""Evaluate a run's last checkpoint again: ``python -m examples.evaluate runs/NAME``.

Several processes share the work: ``torchrun --nproc-per-node 2 -m examples.evaluate runs/NAME``.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from examples.measurement.features import CHUNK, evaluate, run_recipe, table
from examples.recipe.text import path
from examples.system.interrupt import ending_on_ctrl_c
from examples.system.lock import locked
from examples.system.ranks import ranks


@ending_on_ctrl_c("the run is kept; repeat the command to evaluate it")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=path, help="a run's folder")
    parser.add_argument("--chunk-size", type=rows, default=CHUNK, help="test images that kNN compares at a time")
    arguments = parser.parse_args()
    run = arguments.run
    recipe = run_recipe(run)  # fails unless it is a run
    with ranks(recipe.train.device) as mine, locked(run) if mine.main else nullcontext():
        metrics = evaluate(run, mine=mine, chunk_size=arguments.chunk_size)
        if mine.main:
            print(table(metrics["readouts"]))


def rows(text: str) -> int:
    """A number of rows, at least 1."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {2**31 - 1}, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()

"""Pretrain an encoder from a recipe, then evaluate it: ``python -m examples.train cifar100 method=sigreg``.

Several processes share the recipe's batch: ``torchrun --nproc-per-node 2 -m examples.train cifar100``, or Slurm's
``srun --ntasks 2 python -m examples.train cifar100``.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from examples.images.datasets import load_data
from examples.measurement.features import evaluate
from examples.measurement.figures import diagnostics, summary_figure
from examples.recipe.schema import load_recipe
from examples.system.interrupt import ending_on_ctrl_c
from examples.system.lock import locked
from examples.system.ranks import ranks
from examples.training.loop import train


@ending_on_ctrl_c("any checkpoint is kept; repeat the command with train.resume=true to go on")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="name in examples/recipe, or path to a YAML file")
    parser.add_argument("overrides", nargs="*", help="settings as key=value, e.g. method=sigreg train.epochs=80")
    arguments = parser.parse_intermixed_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    with ExitStack() as stack:
        with ranks(recipe.train.device, timeout=recipe.train.timeout) as mine:
            if mine.main:
                stack.enter_context(locked(recipe.out))  # before the data are read, and until the figure is written
            data = load_data(recipe.data)
            out = train(recipe, data, mine)
            evaluate(out, data, mine)
        if mine.main:
            summary_figure([diagnostics(out)], out / "summary.png")


if __name__ == "__main__":
    main()

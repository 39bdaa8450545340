"""Train, evaluate and compare all three methods under one recipe.

``python -m examples.compare cifar100 --out DIR data.classes=10 train.epochs=15`` trains SIGReg, MLP-HJEPA and HamJEPA
with the same encoder, data, budget and seed, then writes ``table.md``, ``summary.png`` and ``metrics.json`` there.
Finished runs in that folder are not trained again; interrupted ones resume.
"""

from __future__ import annotations

import argparse

from examples.paper.compare import compare
from examples.recipe.text import path
from examples.system.interrupt import ending_on_ctrl_c


@ending_on_ctrl_c("finished runs and checkpoints are kept; repeat the command to go on")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="name in examples/recipe, or path to a YAML file")
    parser.add_argument("overrides", nargs="*", help="settings as key=value")
    parser.add_argument("--out", type=path, required=True, help="folder for the runs, the table and the figure")
    arguments = parser.parse_intermixed_args()
    compare(arguments.recipe, arguments.overrides, arguments.out)


if __name__ == "__main__":
    main()

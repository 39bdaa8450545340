"""World models of gymnasium's control tasks: ``python -m examples.world_model``.

An encoder of rendered frames and a predictor of its states under actions are trained together; no decoder takes part.
Then everything is measured on test episodes: probes, predictions, long rollouts, surprise, planning. Each predictor,
regularizer, number of episodes and seed is a cell with a folder of its own; finished cells are not run again, so repeat
the command to finish a large comparison:

    python -m examples.world_model --predictors all --regularizers all --episodes 256 4096 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import torch

from examples.system.files import write_atomically
from examples.system.interrupt import ending_on_ctrl_c
from examples.worlds.cells import Cell, run_cell
from examples.worlds.environments import ENVIRONMENTS
from examples.worlds.episodes import load_data
from examples.worlds.figures import draw
from examples.worlds.models import PREDICTORS, REGULARIZERS
from examples.worlds.report import report

PREDICTORS_BY_DEFAULT = ["potential", "symplectic net", "residual MLP"]


@ending_on_ctrl_c("finished cells are kept; repeat the command to go on")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", nargs="+", choices=list(ENVIRONMENTS), default=["pendulum"])
    several = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--predictors", default=PREDICTORS_BY_DEFAULT, help=f"all, or of {PREDICTORS}", **several)
    parser.add_argument("--regularizers", default=["floors"], help=f"all, or of {REGULARIZERS}", **several)
    parser.add_argument("--episodes", nargs="+", type=int, default=[4096], help="training episodes of 10 frames")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=Cell.steps, help=f"training steps of {Cell.batch} episodes")
    parser.add_argument("--dim", type=int, default=Cell.dim, help="dimension d of q; a state has 2d numbers")
    parser.add_argument("--out", type=Path, default=Path("runs/worlds"), help="folder of the data and all results")
    parser.add_argument("--report", action="store_true", help="only write the report of the finished cells")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are small; start several commands with different seeds to use more cores
    for name in ("steps", "dim"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    if min(arguments.episodes) < 64:
        parser.error(f"--episodes must be at least 64, got {min(arguments.episodes)}")
    out, folder = arguments.out, arguments.out / "data"
    cells = [
        Cell(environment, predictor, regularizer, episodes, seed, dim=arguments.dim, steps=arguments.steps)
        for environment, episodes, regularizer, seed, predictor in product(
            arguments.environments,
            arguments.episodes,
            _named(parser, "--regularizers", arguments.regularizers, REGULARIZERS),
            arguments.seeds,
            _named(parser, "--predictors", arguments.predictors, PREDICTORS),
        )
    ]
    for cell in cells if not arguments.report else ():
        finished = cell.result(out) is not None
        print(f"{cell.folder(out)}{': finished before' if finished else ''}", flush=True)
        if not finished:
            run_cell(cell, load_data(cell.environment, folder=folder, episodes=cell.episodes), out)
    text = report(cells, out)
    write_atomically(out / "report.md", text)
    print(text)
    first = cells[0]
    shown = [cell for cell in cells if (cell.group, cell.seed) == (first.group, first.seed) and cell.result(out)]
    if shown:
        figure = out / f"{first.group}.png"
        draw(shown, load_data(first.environment, folder=folder, episodes=first.episodes), out, figure)
        print(f"Figure: {figure}")


def _named(parser: argparse.ArgumentParser, option: str, chosen: list[str], known: tuple[str, ...]) -> list[str]:
    names = list(known) if chosen == ["all"] else chosen
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"{option} must be all or of {', '.join(known)}, got {', '.join(unknown)}")
    return names


if __name__ == "__main__":
    main()

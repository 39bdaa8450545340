"""The paper's tables: ``python -m examples.reproduce cpu-10`` (``make reproduce SCALE=cpu-10``).

A study is a set of cells, one per table, method (or ablation) and seed. Each cell is trained and evaluated in its own
folder, and its result is written to ``cell.json`` there. Finished cells are not run again and interrupted ones resume
from their last checkpoint, so repeat the command to finish a study. At the end, or with --report, ``report.md`` and
its figures are written from the finished cells.
"""

from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path

from examples.paper.cells import CELL
from examples.paper.grid import SCALES
from examples.paper.report import write_report
from examples.paper.reproduce import reproduce, roots
from examples.recipe.schema import refuse_file
from examples.recipe.text import path
from examples.system.interrupt import ending_on_ctrl_c
from examples.system.launcher import refuse_several


@ending_on_ctrl_c("finished cells and checkpoints are kept; repeat the command to go on")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scale", choices=list(SCALES), help="which cells to run")
    parser.add_argument("overrides", nargs="*", help="settings for every cell as key=value, e.g. data.root=/data")
    several = {"action": "append", "default": []}
    parser.add_argument("--root", metavar="NAME=PATH", help="data folder, imagenet100=/data; repeatable", **several)
    parser.add_argument("--only", metavar="PATTERN", help="cells by id, '*/hamjepa-s42'; repeatable", **several)
    parser.add_argument("--out", type=path, help="the study's folder (default: runs/reproduce/SCALE)")
    parser.add_argument("--to", type=path, help="the report's folder (default: the study's)")
    parser.add_argument("--list", action="store_true", help="print the cells and whether they are finished")
    parser.add_argument("--report", action="store_true", help="only write the report")
    arguments = parser.parse_intermixed_args()
    refuse_several("examples.reproduce")
    out = arguments.out or Path("runs/reproduce") / arguments.scale
    to = arguments.to or out
    patterns, every = arguments.only or ["*"], SCALES[arguments.scale]()
    for pattern in patterns:
        if not any(fnmatch.fnmatch(c.id, pattern) for c in every):
            raise SystemExit(f"no cell of {arguments.scale} matches --only {pattern}; --list shows them")
    cells = [c for c in every if any(fnmatch.fnmatch(c.id, pattern) for pattern in patterns)]
    if (arguments.list or arguments.report) and (ignored := [*arguments.overrides, *arguments.root]):
        raise SystemExit(f"{' '.join(ignored)} would be ignored: --list and --report train nothing")
    refuse_file(out, "--out")
    refuse_file(to, "--to")
    if arguments.list:
        print("\n".join(f"{'done' if (out / c.id / CELL).is_file() else '-   '} {c.id}" for c in cells))
        return
    if not arguments.report:
        reproduce(cells, out, arguments.overrides, roots(arguments.root))
    print(write_report(out, to))


if __name__ == "__main__":
    main()

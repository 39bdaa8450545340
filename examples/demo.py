"""``make demo``: the three methods on the embedded textures, in a few minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from examples.paper.compare import compare
from examples.system.interrupt import ending_on_ctrl_c

OUT = Path("runs/demo")


@ending_on_ctrl_c("finished runs and checkpoints are kept; repeat the command to go on")
def main() -> None:
    print(compare("textures", [], OUT))
    print(f"\nFigure: {OUT / 'summary.png'}")


if __name__ == "__main__":
    main()

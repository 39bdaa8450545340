"""``make demo``: the three methods on the embedded textures, in a few minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from examples.paper.compare import compare

OUT = Path("runs/demo")


def main() -> None:
    print(compare("textures", [], OUT))
    print(f"\nFigure: {OUT / 'summary.png'}")


if __name__ == "__main__":
    main()

"""Evaluate a run's last checkpoint again: ``python -m examples.evaluate runs/NAME``."""

from __future__ import annotations

import argparse

from examples.measurement.features import evaluate, table
from examples.recipe.text import path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=path, help="a run's folder")
    print(table(evaluate(parser.parse_args().run)["readouts"]))


if __name__ == "__main__":
    main()

"""Write a run's encoder and a model card to a folder: ``python -m examples.export runs/NAME --to weights/NAME``."""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.measurement.model_card import export
from examples.system.interrupt import ending_on_ctrl_c


@ending_on_ctrl_c("the run is kept; repeat the command to export it")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run with a ResNet-18 encoder, evaluated")
    parser.add_argument("--to", type=Path, required=True, help="the folder to write")
    arguments = parser.parse_args()
    export(arguments.run, arguments.to)
    print(f"wrote {arguments.to}")


if __name__ == "__main__":
    main()

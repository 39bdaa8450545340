"""Pack a recipe's folder of images before training: ``python -m examples.pack imagenet100 data.root=PATH``.

Run it once on every node that has a ``data.cache`` of its own, so that no process group waits for it. It goes on where
a killed one stopped.
"""

from __future__ import annotations

import argparse
import time

from examples.images.datasets import load_data
from examples.recipe.schema import load_recipe
from examples.system.interrupt import ending_on_ctrl_c


@ending_on_ctrl_c("finished files are kept; repeat the command to go on")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="name in examples/recipe, or path to a YAML file")
    parser.add_argument("overrides", nargs="*", help="settings as key=value, e.g. data.root=PATH")
    arguments = parser.parse_intermixed_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if recipe.data.name not in ("imagenet100", "folder"):
        raise SystemExit(f"data.name must be imagenet100 or folder, which are packed, got {recipe.data.name}")
    began = time.perf_counter()
    data = load_data(recipe.data)
    count = len(data.train_images) + len(data.test_images)
    print(f"{count} images are ready in {recipe.data.cache} after {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()

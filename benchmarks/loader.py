"""How fast images reach the training step: ``python -m benchmarks.loader --root ../shared/imagenet_small``.

Measures decoding (images per second on one core, once per data set), reading packed batches, and the share of a
training step spent waiting for its batch, with and without reading ahead in a thread.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.images.datasets import load_data
from examples.images.decode import SUFFIXES
from examples.images.packing import pack_split
from examples.images.reading import Selected, batches
from examples.model.build import build_model, build_optimizer
from examples.recipe.schema import load_recipe
from examples.system.machine import machine
from examples.system.ranks import ranks
from examples.training.loop import clipping, make_crops, make_step, make_views
from examples.training.step_clock import StepClock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with train/ and val/, perhaps full_size/")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of each kind")
    parser.add_argument("overrides", nargs="*", help="settings of the recipe imagenet100 as key=value")
    arguments = parser.parse_intermixed_args()
    cache = Path(tempfile.mkdtemp())
    try:
        report = measure(arguments.root, cache, arguments.batch, arguments.steps, arguments.overrides)
    finally:
        shutil.rmtree(cache)
    (arguments.out / "loader.json").write_text(json.dumps(report, indent=2) + "\n")
    for key, value in report.items():
        print(f"{key}: {value}")


def measure(root: Path, cache: Path, batch: int, steps: int, overrides: Sequence[str]) -> dict[str, Any]:
    """All measurements; seconds are wall-clock time."""
    settings = [f"data.root={root}", f"data.cache={cache}", f"data.batch_size={batch}", "data.workers=0", *overrides]
    recipe = load_recipe("imagenet100", settings)
    report: dict[str, Any] = {}
    folders = {"224 px": root / "train", "full size": root / "full_size"}
    for name, folder in folders.items():
        files = sorted(x for x in folder.rglob("*") if x.suffix.lower() in SUFFIXES)
        if files:
            began = time.perf_counter()
            pack_split(cache, folder.name, files, [0] * len(files), recipe.data)
            report[f"decoded per second and core, {name}"] = len(files) / (time.perf_counter() - began)
    with ranks(recipe.train.device) as mine:
        data = load_data(recipe.data).to(mine.device)
        images = data.train_images
        assert isinstance(images, Selected)
        order = torch.randperm(len(images)).split(batch)[: len(images) // batch]
        began = time.perf_counter()
        for positions in order:
            images[positions]
        report["read packed per second"] = batch * len(order) / (time.perf_counter() - began)
        model = build_model(recipe, images.shape[1:]).to(mine.device)
        clock = StepClock(mine.device)
        optimizer = build_optimizer(model, recipe.optim, recipe.predictor.lr)
        step = make_step(model, optimizer, mine, clock=clock, settings=recipe.train, **clipping(recipe))
        crops = make_crops(recipe.augment, recipe.data, recipe.local_scale, data)
        views = make_views(crops, recipe.train.seed, mine)
        wanted = [order[i % len(order)] for i in range(steps + 1)]
        for name, reader in (("in a thread", batches(images, wanted)), ("when wanted", at_once(images, wanted))):
            waits, totals = [], []
            for _ in wanted:
                began = time.perf_counter()
                x, sizes = next(reader)
                waits.append(time.perf_counter() - began)
                step(views(x, sizes, 0))
                totals.append(time.perf_counter() - began)
            share = sum(waits[1:]) / sum(totals[1:])
            report[f"waiting share of a step, read {name}"] = share
            report[f"milliseconds of a step, read {name}"] = 1000 * sum(totals[1:]) / steps
        report["recipe"] = f"{recipe.method}, {batch} pairs at {recipe.augment.size} px, {recipe.train.precision}"
        report["machine"] = machine(mine.device)
    return report


def at_once(images: Selected, wanted: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The same batches as `batches`, without reading ahead."""
    yield from (images[positions] for positions in wanted)


if __name__ == "__main__":
    main()

"""A run's encoder as a folder that ``from_pretrained`` loads, with a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import symplectic_jepa as sj
from examples.measurement.features import run_recipe, table
from examples.model.build import build_encoder
from examples.recipe.schema import METHODS, Recipe, portable, to_yaml
from examples.system.checkpoint import load_run, restore
from examples.system.files import write_atomically
from examples.system.sharded import last_checkpoint

DATA = {
    "cifar100": "CIFAR-100 (Krizhevsky, 2009; its authors state no licence)",
    "imagenet100": "100 classes of ImageNet (research and educational use only, see image-net.org)",
    "textures": "synthetic patterns drawn by `examples/images/textures.py`",
}


def export(run: Path, to: Path) -> None:
    """Write the encoder of an evaluated run, ``recipe.yaml`` and a model card ``README.md`` to the folder ``to``.

    Raises:
        SystemExit: if ``run`` has no evaluation, or its encoder is not a ResNet-18 with tokens.
    """
    if not (run / "metrics.json").is_file():
        raise SystemExit(f"{run} has no metrics.json; first run: python -m examples.evaluate {run}")
    recipe = run_recipe(run)
    for key, wanted in {"backbone": "resnet18", "mode": "tokens"}.items():
        if (value := getattr(recipe.encoder, key)) != wanted:
            raise SystemExit(f"encoder.{key} must be {wanted} to export a run, got {value} in {run}")
    path = last_checkpoint(run)
    state = load_run(path, torch.device("cpu"))
    weights = {k.removeprefix("encoder."): w for k, w in state["model"].items() if str(k).startswith("encoder.")}
    encoder = build_encoder(recipe.encoder, recipe.augment.size)
    restore(path, {"model": weights}, encoder)
    assert isinstance(encoder, sj.PhaseSpaceTokenEncoder)
    encoder.save_pretrained(to)
    metrics = json.loads((run / "metrics.json").read_text())
    write_atomically(to / "recipe.yaml", to_yaml(portable(recipe, to.name)))
    write_atomically(to / "README.md", card(recipe, metrics, to.name))


def card(recipe: Recipe, metrics: dict[str, Any], name: str) -> str:
    """The model card in markdown, with the front matter of the Hugging Face Hub."""
    d, method = recipe.data, METHODS[recipe.method]
    size = recipe.augment.size
    return f"""---
license: apache-2.0
library_name: symplectic-jepa
tags: [self-supervised-learning, jepa, image-feature-extraction]
---
# {name}

An image encoder trained without labels by {method}. It is a `PhaseSpaceTokenEncoder` that maps images of
{size} × {size} pixels to states `[q | p]`.

```python
import symplectic_jepa as sj

encoder = sj.PhaseSpaceTokenEncoder.from_pretrained("{name}")  # eval mode
q, p = sj.split_state(encoder(images))  # (B, 3, {size}, {size}), standardised with the data set's mean and deviation
```

- Data: {DATA.get(d.name, f"`data.name={d.name}`")}, {metrics["classes"]} classes.
- Training: {recipe.train.epochs} epochs, {metrics["steps"]} steps of {d.batch_size} pairs, seed {recipe.train.seed};
  all settings are in [recipe.yaml](recipe.yaml).
- Evaluation on the {metrics["evaluated_on"]} images: {metrics["protocol"]}.
- Licence of the weights: Apache-2.0, as the library. The data have terms of their own.

{table(metrics["readouts"])}

The numbers compare training methods at one small budget. They are far below those of larger encoders and longer
schedules, so use these weights to check and compare, not as general-purpose features.
"""

"""Small runs of the study's training loop, and what is compared of two of them."""

import json

import pytest
import torch

from examples.images.datasets import load_data
from examples.recipe.schema import load_recipe
from examples.system.ranks import ranks
from examples.training.loop import train as train_on
from examples.training.schedules import Schedules

TINY = [
    "data.train_size=96", "data.test_size=40", "data.batch_size=32", "train.epochs=2", "train.log_every=1",
    "optim.warmup_epochs=1", "evaluation.ks=[1,5,20]", "evaluation.probe_epochs=2",
]  # fmt: skip


def tiny(out, *overrides):
    return load_recipe("textures", over(TINY, f"train.out={out}", *overrides))


def over(below, *overrides):
    """Both, without what the overrides replace."""
    return [*{pair.partition("=")[0]: pair for pair in (*below, *overrides)}.values()]


def train(recipe):
    with ranks("cpu") as mine:
        return train_on(recipe, load_data(recipe.data), mine)


def logged(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("seconds")} for line in lines]


def assert_same_run(a, b):
    """Weights, optimizer moments, counters and every logged number, bit for bit."""
    x, y = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (a, b))
    assert x["step"] == y["step"]
    assert x["model"].keys() == y["model"].keys()
    assert all(torch.equal(x["model"][k], y["model"][k]) for k in x["model"])
    for i, moments in x["optimizer"]["state"].items():
        assert all(torch.equal(v, y["optimizer"]["state"][i][k]) for k, v in moments.items())
    assert logged(a) == logged(b)


class StoppedError(Exception):
    pass


def train_until(recipe, step, monkeypatch):
    """Train until just before ``step``, and break off there."""
    apply = Schedules.apply

    def stop(self, at, *args):
        if at == step:
            raise StoppedError
        apply(self, at, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Schedules, "apply", stop)
        with pytest.raises(StoppedError):
            train(recipe)

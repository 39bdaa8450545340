"""A data set of one's own needs three methods, and nothing else changes."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from examples.images.contract import Images
from examples.images.datasets import BUILT_IN, fingerprint, load_data
from examples.images.reading import batches, pad
from examples.images.textures import make_textures
from examples.measurement.features import encode, evaluate, table
from examples.measurement.figures import diagnostics, summary_figure
from examples.model.build import build_model
from examples.recipe.schema import load_recipe
from examples.system.ranks import ranks
from examples.training.loop import train
from tests.helpers.data_sets import MINE, Squares, Stripes, settings
from tests.helpers.paths import ROOT
from tests.helpers.runs import assert_same_run, train_until


def recipe_of(name, *more):
    return load_recipe("imagenet100", settings(name, *more))


def run(recipe):
    with ranks("cpu") as mine:
        return train(recipe, load_data(recipe.data), mine)


def test_the_built_in_sets_have_the_three_methods_too():
    wanted = {name for name in vars(Images) if not name.startswith("_")} | {"__len__"}
    assert wanted == {"__len__", "image", "labels"}
    config = load_recipe("textures", ["data.train_size=40", "data.test_size=20"]).data
    train_split, test_split = (BUILT_IN["textures"](config, train=part) for part in (True, False))
    for split, count, seed in ((train_split, 40, 0), (test_split, 20, 1)):
        pixels, labels = make_textures(count, seed=seed)
        assert len(split) == count
        assert torch.equal(split.labels(), labels)
        assert torch.equal(torch.stack([split.image(i) for i in range(count)]), pixels)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_read_one_by_one_are_batched_in_order_by_any_number_of_workers(workers):
    data = load_data(recipe_of("Stripes", f"data.workers={workers}").data)
    source = Stripes(None, train=True)
    positions = list(torch.randperm(48).split(11))
    for (x, sizes), wanted in zip(batches(data.train_images, positions), positions, strict=True):
        expected = pad([source.image(int(i)) for i in wanted])
        assert torch.equal(x, expected.images)
        assert torch.equal(sizes, expected.sizes)
    assert data.class_names == ("0", "1")
    assert data.train_labels.tolist() == source.labels()


def test_reading_draws_nothing_from_the_global_generator():
    images = load_data(recipe_of("Stripes").data).train_images
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(images.centres(20))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["Stripes", "Squares"])
def test_a_run_on_it_trains_resumes_and_is_evaluated(name, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more = ["data.workers=0"]
    run(recipe_of(name, f"train.out={whole}", *more))
    with monkeypatch.context() as patch:
        train_until(recipe_of(name, f"train.out={parts}", *more), 7, patch)
    run(recipe_of(name, f"train.out={parts}", "train.resume=true", *more))
    assert_same_run(whole, parts)
    metrics = evaluate(whole)
    assert metrics["classes"] == 2
    assert "knn" in metrics["readouts"]["HamJEPA-q"]


def test_resident_images_stay_as_they_are():
    data = load_data(recipe_of("Squares").data)
    source = Squares(None, train=True)
    assert torch.equal(data.train_images, torch.stack([source.image(i) for i in range(48)]))
    assert (data.mean, data.std, data.class_names) == (Squares.mean, Squares.std, Squares.class_names)


def test_without_labels_everything_else_is_measured(tmp_path):
    recipe = recipe_of(
        "Unlabelled", "data.workers=0", "data.validation=0.25", "evaluation.every=1", f"train.out={tmp_path}"
    )
    run(recipe)
    metrics = evaluate(tmp_path)
    for row in metrics["readouts"].values():
        assert {"effective_rank", "participation_ratio", "cosine", "norm", "alignment", "uniformity"} <= row.keys()
        assert not {"knn", "linear", "isotropy"} & row.keys()
    assert metrics["classes"] == 0
    curve = json.loads((tmp_path / "curves.jsonl").read_text().splitlines()[-1])
    assert curve["readouts"]["q"].keys() == {"effective_rank", "participation_ratio"}
    assert "| – | – |" in table(metrics["readouts"])
    summary_figure([diagnostics(tmp_path)], tmp_path / "summary.png")
    assert (tmp_path / "summary.png").stat().st_size > 10_000


def test_labels_do_not_change_what_is_learned_or_the_other_measures():
    recipe = recipe_of("Squares")
    data = load_data(recipe.data)
    model = build_model(recipe, data.train_images.shape[1:])
    bare = dataclasses.replace(data, train_labels=None, test_labels=None, class_names=())
    for name, (a, b) in encode(model, data).items():
        assert torch.equal(a, encode(model, bare)[name][0])
        assert torch.equal(b, encode(model, bare)[name][1])


def test_a_fingerprint_tells_images_apart():
    configs = [recipe_of(name).data for name in ("Stripes", "Small")]
    found = [fingerprint(c, load_data(c.model_copy(update={"crop": 8}))) for c in configs]
    assert found[0] == fingerprint(configs[0], load_data(configs[0])) != found[1]


BAD = {
    f"{MINE}:Nothing": r"data.name must be an import path, got .*has no attribute 'Nothing'",
    "no.such.module:X": r"data.name must be an import path, got 'no.such.module:X': No module named",
    f"{MINE}:MINE": r"data.name must name a class or function, got .*, a str",
    f"{MINE}:Unlabelled": "has no test images here: set data.validation",
    f"{MINE}:HalfLabelled": "both splits of data.name=.* must have labels, or none",
    f"{MINE}:Floats": r"image\(0\) of Floats must be uint8 \(3, H, W\), got float64",
    f"{MINE}:Small": r"data.crop must be at most the images' shorter side, got 32 for \(3, \d+, \d+\)",
    f"{MINE}:FewLabels": r"labels\(\) of FewLabels must be None or 48 integers from 0 on, got torch.int64 \(2,\)",
    f"{MINE}:Uneven": r"resident images of .*Uneven must be uint8 \(3, 32, 32\), with data.crop=32, got uint8",
}


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_the_contract_is_refused_by_name(name):
    with pytest.raises(SystemExit, match=BAD[name]):
        load_data(recipe_of("Stripes").data.model_copy(update={"name": name}))
    if name.endswith("Unlabelled"):
        with pytest.raises(SystemExit, match=r"data.classes must be null for images without labels, got 2"):
            load_data(recipe_of("Unlabelled", "data.classes=2").data)


def test_the_class_on_the_page_about_data_is_one(tmp_path, monkeypatch):
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    (tmp_path / "the_page.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    slices = np.random.default_rng(0).integers(0, 256, (30, 40, 36), dtype=np.uint8)
    for split in ("train", "val"):
        np.save(tmp_path / f"{split}.npy", slices)
    config = recipe_of("Stripes", f"data.root={tmp_path}", "data.workers=0").data
    data = load_data(config.model_copy(update={"name": "the_page:Volumes"}))
    assert torch.equal(data.train_images[torch.arange(30)].images[:, 1], torch.from_numpy(slices))
    assert data.train_labels is None


def test_a_run_is_named_by_the_class():
    assert recipe_of("Stripes").out.name == "Stripes-hamjepa-s42"

"""WebDataset shards and Hugging Face data sets: made here, read through the libraries, resumed bit for bit."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from examples.images.datasets import load_data
from examples.images.streams import padded
from examples.measurement.features import evaluate
from examples.recipe.schema import load_recipe
from examples.system.ranks import ranks
from examples.training.loop import train
from tests.helpers.pictures import TINY
from tests.helpers.runs import assert_same_run, over, train_until


def png(shade):
    """An image whose colour tells which one it is."""
    out = io.BytesIO()
    Image.new("RGB", (40 + shade % 9, 36), (shade, 255 - shade, 7)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def shards(tmp_path):
    """Four shards of 6, 6, 6 and 4 images for training, and one of 10 for testing."""
    wds = pytest.importorskip("webdataset")
    root = tmp_path / "shards"
    root.mkdir()
    first = 0
    for name, count in (("train-0", 6), ("train-1", 6), ("train-2", 6), ("train-3", 4), ("val-0", 10)):
        with wds.TarWriter(str(root / f"{name}.tar")) as out:
            for shade in range(first, first + count):
                sample = {"__key__": f"{shade:03}", "png": png(shade), "json": {"note": 1}}
                out.write({**sample, "cls": shade % 2})
        first += count
    return root


def hub_folder(root, kind):
    """A folder of 22 training and 10 test images for `datasets`: saved by it, or as it reads them."""
    datasets = pytest.importorskip("datasets")
    if kind == "imagefolder":
        for i in range(32):
            folder = root / ("train" if i < 22 else "test") / ("odd" if i % 2 else "even")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:02}.png").write_bytes(png(i))
        return root
    features = datasets.Features({"label": datasets.ClassLabel(names=["even", "odd"]), "image": datasets.Image()})
    rows = {}
    for name, part in (("train", range(22)), ("test", range(22, 32))):
        columns = {"label": [i % 2 for i in part], "image": [{"bytes": png(i), "path": None} for i in part]}
        rows[name] = datasets.Dataset.from_dict(columns, features=features)
    if kind == "saved":
        datasets.DatasetDict(rows).save_to_disk(str(root))
    else:
        for name, split in rows.items():
            split.to_parquet(root / f"{name}.parquet")
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What `datasets` converts stays in the test's folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def recipe_for(name, root, out="unused", *more):
    own = [f"data.name={name}", f"data.root={root}", "data.train_size=22", "data.test_size=8", f"train.out={out}"]
    own += ["data.epoch_size=20", "data.shuffle=5"] if name == "webdataset" or "data.stream=true" in more else []
    dropped = [x for x in own if name == "huggingface" and "data.stream=true" not in more and "_size=" in x]
    return load_recipe("imagenet100", over([*TINY, *(x for x in own if x not in dropped)], *more))


def shades(data, **at):
    return [x.images[:, 0, 0, 0].tolist() for x in data.stream.batches(seed=1, **at)]


@pytest.fixture(params=["webdataset", "saved", "imagefolder", "parquet"])
def source(request, tmp_path):
    """A name, a folder, and the overrides that make it a stream."""
    if request.param == "webdataset":
        return "webdataset", request.getfixturevalue("shards"), []
    return "huggingface", hub_folder(tmp_path / "hub", request.param), ["data.stream=true"]


def test_an_epoch_is_an_order_of_its_own_on_each_rank_and_resumes_anywhere(source):
    name, root, more = source
    data = load_data(recipe_for(name, root, "unused", *more).data)
    assert data.epoch_size == 20
    whole = [shades(data, step=0, rank=rank, ranks=2) for rank in (0, 1)]
    for of_rank in whole:
        assert [len(batch) for batch in of_rank] == [4, 4]  # 20 images are two batches of 8
        assert len({*of_rank[0], *of_rank[1]}) > 4
    assert not set(whole[0][0]) & set(whole[1][0])  # different shards
    assert shades(data, step=1, rank=0, ranks=2) == whole[0][1:]
    assert shades(data, step=2, rank=0, ranks=2) != whole[0]  # the next epoch
    assert shades(data, step=3, rank=0, ranks=2) == shades(data, step=2, rank=0, ranks=2)[1:]
    three = [shades(data, step=0, rank=rank, ranks=3) for rank in range(3)]
    assert [len(of_rank[0]) for of_rank in three] == [3, 3, 2]


def test_the_order_does_not_depend_on_the_workers(source):
    name, root, more = source
    found = [
        shades(load_data(recipe_for(name, root, "unused", f"data.workers={n}", *more).data), step=0, rank=0, ranks=1)
        for n in (0, 2)
    ]
    assert found[0] == found[1]


def test_a_run_on_a_stream_trains_resumes_and_is_evaluated(source, tmp_path, monkeypatch):
    name, root, more = source

    def run(recipe):
        with ranks("cpu") as mine:
            return train(recipe, load_data(recipe.data), mine)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(recipe_for(name, root, whole, *more))
    train_until(recipe_for(name, root, parts, *more), 3, monkeypatch)
    run(recipe_for(name, root, parts, "train.resume=true", *more))
    assert_same_run(whole, parts)
    metrics = evaluate(whole)
    assert metrics["steps"] == 4
    assert "knn" in metrics["readouts"]["HamJEPA-q"]


def test_images_for_evaluation_are_centre_crops_from_every_shard(shards):
    data = load_data(recipe_for("webdataset", shards).data)
    assert data.train_images.shape == (22, 3, 32, 32)
    assert data.test_images[:, 0, 0, 0].tolist() == list(range(22, 30))
    assert data.train_labels.tolist() == [int(x) % 2 for x in data.train_images[:, 0, 0, 0]]
    few = load_data(recipe_for("webdataset", shards, "unused", "data.train_size=20").data)
    assert {0, 6, 12, 18} <= set(few.train_images[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("kind", ["saved", "imagefolder", "parquet"])
def test_a_hugging_face_data_set_is_read_by_index(kind, tmp_path):
    hub = hub_folder(tmp_path / "hub", kind)
    data = load_data(recipe_for("huggingface", hub).data)
    assert data.stream is None
    assert data.class_names == ("even", "odd")
    assert sorted(int(data.train_images.image(i)[0, 0, 0]) for i in range(22)) == list(range(22))
    labels = [int(data.test_images.image(i)[0, 0, 0]) % 2 for i in range(10)]
    assert data.test_labels.tolist() == labels


def test_an_unreadable_image_of_a_stream_is_replaced_with_a_warning():
    good = [np.full((3, 4, 5), i, np.uint8) for i in range(3)]
    with pytest.warns(UserWarning, match="another takes its place: 7.jpg: broken"):
        batch = padded([(good[0], None), ("7.jpg: broken", None), (good[2], None)])
    assert batch.images[:, 0, 0, 0].tolist() == [0, 2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(padded([(x, None) for x in good]).images[:, 0, 0, 0], torch.arange(3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="none of 1 images in a batch can be read: x: broken"):
        padded([("x: broken", None)])


def test_what_a_stream_lacks_is_refused_by_name(shards, tmp_path):
    data = load_data(recipe_for("webdataset", shards).data)
    with pytest.raises(SystemExit, match=r"\(data.root\) has no images for rank 4 of 5"):
        shades(data, step=0, rank=4, ranks=5)
    (shards / "val-0.tar").unlink()
    with pytest.raises(SystemExit, match=r"must contain val\*\.tar, but contains none"):
        load_data(recipe_for("webdataset", shards).data)
    with pytest.raises(SystemExit, match="data.root must be a folder, got .*nowhere"):
        load_data(recipe_for("huggingface", tmp_path / "nowhere").data)
    for bad, message in {
        "data.epoch_size=null": "data.epoch_size must be the number of images per epoch",
        "data.classes=2": "data.classes must not be set for images that are read in order, got 2",
        "data.validation=0.1": "data.validation must not be set for images that are read in order, got 0.1",
    }.items():
        with pytest.raises(SystemExit, match=message):
            recipe_for("webdataset", shards, "unused", bad)

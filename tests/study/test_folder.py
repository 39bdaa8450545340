"""Any tree of images: labels from one level of folders, otherwise none, and then all that needs none is measured."""

import numpy as np
import pytest
import torch
from PIL import Image

from examples.images.datasets import load_data
from examples.measurement.features import evaluate
from examples.recipe.schema import load_recipe
from examples.system.ranks import ranks
from examples.training.loop import train
from tests.helpers.pictures import TINY, picture
from tests.helpers.runs import over


def recipe_for(root, out="unused", *more):
    own = [f"data.root={root}", f"data.cache={root.parent / 'cache'}", f"train.out={out}", "data.name=folder"]
    return load_recipe("imagenet100", over([*TINY, *own], *more))


def load(root, *more):
    return load_data(recipe_for(root, "unused", *more).data)


@pytest.fixture
def root(tmp_path):
    """Pictures at three depths, of several formats and sizes."""
    root = tmp_path / "photos"
    for i in range(20):
        picture(root / f"{i:02}.jpg", i)
        picture(root / "2023" / f"{i:02}.jpg", 100 + i)
        picture(root / "2023" / "may" / f"{i:02}.jpg", 200 + i)
    Image.new("L", (50, 90)).save(root / "2023" / "may" / "scan.tiff")
    Image.new("P", (300, 33)).save(root / "wide.GIF")
    (root / "2023" / "notes.txt").write_text("no picture")
    return root


def test_a_tree_is_read_whole_in_order_and_without_labels(root, capsys):
    data = load(root, "data.validation=0.2")
    assert len(data.train_images) + len(data.test_images) == 62
    assert (data.train_labels, data.test_labels, data.class_names) == (None, None, ())
    printed = capsys.readouterr().out
    assert "'photos': 1 files are not images and are skipped (suffixes: '.txt')" in printed
    assert "'photos': no labels, because the images do not lie in folders of classes, one level deep" in printed


def test_an_unlabelled_folder_trains_and_is_evaluated(root, tmp_path):
    recipe = recipe_for(root, tmp_path / "run", "data.validation=0.2", "data.square=true")
    with ranks("cpu") as mine:
        train(recipe, load_data(recipe.data), mine)
    metrics = evaluate(tmp_path / "run")
    assert metrics["evaluated_on"] == "validation"
    row = metrics["readouts"]["HamJEPA-qp"]
    assert {"effective_rank", "alignment", "uniformity"} <= row.keys()
    assert "knn" not in row


def test_one_level_of_folders_gives_labels(tmp_path):
    root = tmp_path / "data"
    for split, count in (("train", 4), ("test", 2)):
        for c, name in enumerate(("cat", "dog")):
            for i in range(count):
                picture(root / split / name / f"{i}.png", 10 * c + i)
    data = load(root)
    assert data.class_names == ("cat", "dog")
    assert data.train_labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert data.test_labels.tolist() == [0, 0, 1, 1]
    whole = load(root / "train", "data.validation=0.25")
    assert sorted(torch.cat([whole.train_labels, whole.test_labels]).tolist()) == [0] * 4 + [1] * 4
    (root / "train" / "cat" / "more").mkdir()
    picture(root / "train" / "cat" / "more" / "5.png", 7)
    deeper = load(root)  # the new folder is noticed
    assert (len(deeper.train_images), deeper.train_labels, deeper.test_labels) == (9, None, None)


def test_links_are_followed_but_not_in_circles_and_the_cache_is_left_out(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    picture(elsewhere / "x.png", 5)
    (root / "linked").symlink_to(elsewhere)
    (root / "2023" / "up").symlink_to(root)
    inside = [f"data.cache={root / 'cache'}", "data.validation=0.2"]
    data = load(root, *inside)
    assert len(data.train_images) + len(data.test_images) == 63
    again = load(root, *inside)  # its own cache does not count as a change
    assert len([x for x in (root / "cache").iterdir() if x.is_dir()]) == 1
    assert np.array_equal(again.train_images.image(0), data.train_images.image(0))


def test_folders_without_images_or_tests_are_refused_by_name(root, tmp_path):
    with pytest.raises(SystemExit, match=r"data.name=folder has no test images here: set data.validation"):
        load(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"empty contains no images"):
        load(tmp_path / "empty")
    with pytest.raises(SystemExit, match=r"data.root must be a folder of images, got .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="data.classes must be null for images without labels"):
        load(root, "data.classes=2")

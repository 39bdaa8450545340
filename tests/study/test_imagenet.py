"""Folders of pictures: found, packed, read ahead, augmented each within its own bounds, trained on."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from examples.images.augment import DRAWS, Augment, AugmentConfig
from examples.images.datasets import load_data
from examples.images.reading import batches
from examples.measurement.features import baselines, encode, evaluate
from examples.model.build import build_model
from examples.system.ranks import ranks
from examples.training.loop import train
from tests.helpers.pictures import CLASSES, data_config, picture_folders, recipe_for
from tests.helpers.runs import assert_same_run, train_until


@pytest.fixture
def root(tmp_path):
    return picture_folders(tmp_path / "data")


def same_pixels(a, b):
    return len(a) == len(b) and all(np.array_equal(a.image(i), b.image(i)) for i in range(len(a)))


def test_pixels_and_labels_are_the_files(root):
    data = load_data(data_config(root))
    assert data.class_names == CLASSES
    assert data.train_labels.tolist() == [c for c in range(3) for _ in range(8)]
    files = [root / "train" / name / f"{i}.JPEG" for name in CLASSES for i in range(8)]
    for position, path in enumerate(files):
        with Image.open(path) as image:
            expected = pil_to_tensor(resize(image.convert("RGB"), 32))
        h, w = (min(side, 64) for side in expected.shape[1:])
        assert torch.equal(torch.from_numpy(np.array(data.train_images.image(position))), center_crop(expected, [h, w]))


def test_a_batch_is_padded_and_its_sizes_are_told(root):
    images = load_data(data_config(root)).train_images
    positions = torch.tensor([5, 0, 17])
    batch = images[positions]
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (3, 3, *batch.sizes.max(0).values.tolist())
    for x, (h, w), position in zip(batch.images, batch.sizes.tolist(), positions, strict=True):
        assert np.array_equal(x[:, :h, :w].numpy(), images.image(position))
        assert x[:, h:].sum() == x[:, :, w:].sum() == 0


def test_the_evaluations_crop_is_torchvisions(root):
    images = load_data(data_config(root)).test_images
    crops = torch.cat(list(images.centres(5)))
    assert crops.shape == images.shape == (12, 3, 24, 24)
    for i, crop in enumerate(crops):
        with Image.open(root / "val" / CLASSES[i // 4] / f"{i % 4}.JPEG") as image:
            shorter = resize(image.convert("RGB"), 32)
        if max(shorter.size) <= 64:  # a longer side is cut first, which may round otherwise
            assert torch.equal(crop, pil_to_tensor(center_crop(shorter, [24, 24])))


def test_padded_images_are_augmented_as_if_alone():
    torch.manual_seed(0)
    # No jitter: its order is dealt out by rank within the batch.
    config = AugmentConfig(size=16, scale=(0.05, 1.0), blur_kernel=5, jitter_prob=0.0)
    augment = Augment(config, (0.5,) * 3, (0.25,) * 3)
    sizes = torch.tensor([[20, 40], [40, 20], [33, 31], [20, 20], [40, 40], [20, 39], [25, 40], [40, 23]])
    images = torch.zeros(8, 3, 40, 40, dtype=torch.uint8)
    noise = torch.rand(DRAWS, 8)
    for i, (h, w) in enumerate(sizes.tolist()):
        images[i, :, :h, :w] = torch.randint(1, 256, (3, h, w))
    together = augment.apply(images, noise, sizes)
    for i, (h, w) in enumerate(sizes.tolist()):
        alone = augment.apply(images[i : i + 1, :, :h, :w], noise[:, i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)
    images[:, :, 20:, 20:] = torch.where(images[:, :, 20:, 20:] == 0, 200, images[:, :, 20:, 20:])  # the padding
    torch.testing.assert_close(augment.apply(images, noise, sizes), together, rtol=0, atol=0)


def test_kaggles_parts_hold_the_same(root, tmp_path):
    plain = load_data(data_config(root))
    parts = tmp_path / "kaggle"
    for i, name in enumerate(CLASSES):
        (parts / f"train.X{i + 1}").mkdir(parents=True)
        (root / "train" / name).rename(parts / f"train.X{i + 1}" / name)
    (root / "val").rename(parts / "val.X")
    data = load_data(data_config(parts))
    assert data.class_names == plain.class_names
    assert torch.equal(data.train_labels, plain.train_labels)
    assert same_pixels(data.train_images, plain.train_images)


def test_the_first_classes_can_be_chosen(root):
    whole, part = load_data(data_config(root)), load_data(data_config(root, classes=2))
    assert (len(part.train_images), len(part.test_images), part.class_names) == (16, 8, CLASSES[:2])
    assert part.train_labels.max() == 1
    assert np.array_equal(part.train_images.image(15), whole.train_images.image(15))


def test_data_that_are_not_whole_are_refused_by_name(root):
    def refused(message, **changes):
        with pytest.raises(SystemExit, match=message):
            load_data(data_config(root, **changes))

    with pytest.raises(SystemExit, match=r"data\.root must be a folder .* got '.*/nowhere'"):
        load_data(data_config(root).model_copy(update={"root": str(root / "nowhere")}))
    refused("packing needs about 0.0 GiB, but data.cache_gib allows 0", cache_gib=0.0)
    (root / "train" / "n02").rename(root / "moved")
    refused(r"must have the same classes; 1 are in only one: n02")
    (root / "moved").rename(root / "train" / "n02")
    (root / "val" / "empty").mkdir()
    refused("empty contains no images")
    (root / "val" / "empty").rmdir()
    (root / "val").rename(root / "val.X")
    (root / "train").rename(root / "train.X1")
    (root / "train.X3").mkdir()
    refused(r"train\.X2 is missing, but train\.X3 exists")
    (root / "train.X3").rename(root / "train.X2")
    refused(r"train\.X2 must contain one folder per class")
    (root / "train.X1").rename(root / "elsewhere")
    (root / "train.X2").rmdir()
    refused(r"contains neither train/ nor train\.X")


def test_workers_decode_the_same(root):
    one = load_data(data_config(root)).train_images
    two = load_data(data_config(root, workers=2, cache=str(root.parent / "other"))).train_images
    assert same_pixels(one, two)


def test_batches_come_in_order_one_ahead_and_with_their_errors(root):
    images = load_data(data_config(root)).train_images
    positions = list(torch.arange(24).split(7))
    read = list(batches(images, positions))
    assert len(read) == 4
    for (x, sizes), wanted in zip(read, positions, strict=True):
        assert torch.equal(x, images[wanted].images)
        assert torch.equal(sizes, images[wanted].sizes)
    in_memory = torch.arange(24)
    assert [x.tolist() for x, _ in batches(in_memory, positions)] == [p.tolist() for p in positions]
    reader = batches(images, [torch.tensor([0]), torch.tensor([99])])
    next(reader)
    with pytest.raises(IndexError):
        next(reader)


def test_a_run_on_folders_trains_resumes_and_is_evaluated(root, tmp_path, monkeypatch):
    def run(recipe):
        with ranks("cpu") as mine:
            return train(recipe, load_data(recipe.data), mine)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(recipe_for(root, whole))
    train_until(recipe_for(root, parts), 4, monkeypatch)
    run(recipe_for(root, parts, "train.resume=true"))
    assert_same_run(whole, parts)
    metrics = evaluate(whole)
    assert metrics["classes"] == 3
    assert len(metrics["class_list_sha256"]) == 64
    assert metrics["readouts"]["HamJEPA-q"]["dim"] == 16
    recipe = recipe_for(root, whole)
    rows = baselines(recipe, load_data(recipe.data))
    assert rows["raw pixels (32 × 32)"]["dim"] == 3 * 32 * 32


def test_features_are_those_of_the_centre_crops(root, tmp_path):
    recipe = recipe_for(root, tmp_path / "run")
    data = load_data(recipe.data)
    model = build_model(recipe, data.train_images.shape[1:])
    got = encode(model, data, chunk=5)["qp"]
    memory = [torch.cat(list(x.centres(99))) for x in (data.train_images, data.test_images)]
    expected = encode(model, dataclasses.replace(data, train_images=memory[0], test_images=memory[1]))["qp"]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

"""The embedded textures: reproducible, balanced, labelled by what they show, and hard for raw pixels."""

import pytest
import torch
import torch.nn.functional as F

from examples.images.textures import CLASS_NAMES, LUMA, ORIENTATIONS, PATTERNS, make_textures


def luma(images):
    return (images.float() / 255 * torch.tensor(LUMA)[:, None, None]).sum(1)


def line_angles(images):
    """Orientation of the lines in degrees (anticlockwise, 0 to 180), from each image's structure tensor."""
    smooth = F.avg_pool2d(luma(images)[:, None], 3, 1)[:, 0]
    right = (smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]) / 2
    up = (smooth[:, :-2, 1:-1] - smooth[:, 2:, 1:-1]) / 2
    xx, yy, xy = ((a * b).sum((1, 2)) for a, b in ((right, right), (up, up), (right, up)))
    gradient = torch.rad2deg(torch.atan2(2 * xy, xx - yy)) / 2
    return (gradient + 90) % 180


def angle_errors(images, labels):
    wanted = torch.tensor(ORIENTATIONS)[labels % len(ORIENTATIONS)]
    return ((line_angles(images) - wanted + 90) % 180 - 90).abs()


def test_a_seed_fixes_the_images_and_labels_and_the_global_generator_rests():
    before = torch.get_rng_state()
    first, other = make_textures(50, seed=3), make_textures(50, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert all(map(torch.equal, first, make_textures(50, seed=3)))
    assert not any(map(torch.equal, first, other))


@pytest.mark.parametrize(("count", "classes", "size"), [(1, 2, 16), (83, 8, 32), (50, 12, 40), (30, 5, 33)])
def test_shapes_dtypes_and_balance(count, classes, size):
    images, labels = make_textures(count, classes=classes, size=size)
    assert images.dtype == torch.uint8
    assert images.shape == (count, 3, size, size)
    assert labels.dtype == torch.int64
    assert labels.shape == (count,)
    counts = torch.bincount(labels, minlength=classes)
    assert len(counts) == classes
    assert counts.max() - counts.min() <= 1


def test_labels_are_shuffled():
    labels = make_textures(800)[1]
    assert not torch.equal(labels, labels.sort().values)
    assert set(labels[:80].tolist()) == set(range(8))
    assert (labels[1:] == (labels[:-1] + 1) % 8).float().mean() < 0.25


def test_every_image_has_contrast_and_the_range_is_used():
    images, _ = make_textures(600)
    assert luma(images).flatten(1).std(1).min() > 0.05
    assert images.min() < 20
    assert images.max() > 235
    assert 100 < images.float().mean() < 155


def test_class_names_cover_patterns_and_orientations():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == len(PATTERNS) * len(ORIENTATIONS)
    assert CLASS_NAMES[:2] == ("stripes 0°", "stripes 45°")
    assert CLASS_NAMES[5] == "checks 45°"


def test_orientation_measure_knows_which_way_is_up():
    rising = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    row, column = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    rising[:] = ((row + column) % 8 < 4) * 255  # lines from the lower left to the upper right
    assert line_angles(rising).item() == pytest.approx(45, abs=1)


def test_lines_run_at_the_angle_that_the_label_says():
    images, labels = make_textures(1500, classes=len(CLASS_NAMES), seed=5)
    errors = angle_errors(images, labels)
    for label, name in enumerate(CLASS_NAMES):
        assert errors[labels == label].mean() < 15, name
        assert errors[labels == label].median() < 8, name


def test_checks_alternate_along_the_lines_and_stripes_do_not():
    images, labels = make_textures(1200, seed=6)
    grey = F.avg_pool2d(luma(images)[:, None], 3, 1)[:, 0]
    along, across = (grey.diff(dim=d).square().mean((1, 2)) for d in (2, 1))
    stripes, checks = ((along / across)[labels == n].mean() for n in (0, 4))  # both 0°: lines are rows
    assert stripes < 0.75 * checks


def test_nearest_neighbours_on_raw_pixels_are_weak_but_above_chance():
    images, labels = make_textures(3000, seed=0)
    queries, truth = make_textures(500, seed=1)
    mean = images.float().mean((0, 2, 3), keepdim=True)
    bank, probe = (F.normalize((x.float() - mean).flatten(1), dim=1) for x in (images, queries))
    votes = F.one_hot(labels[(probe @ bank.T).topk(20, dim=1).indices], 8).sum(1)
    accuracy = (votes.argmax(1) == truth).float().mean().item()
    assert 0.2 < accuracy < 0.75  # chance is 0.125


@pytest.mark.parametrize(
    ("argument", "values", "wanted", "error"),
    [
        ("count", [0], ">= 1", ValueError),
        ("classes", [1, 13], "from 2 to 12", ValueError),
        ("size", [15], ">= 16", ValueError),
        ("seed", [-1, 2**63], "from 0 to", ValueError),
        *((name, [8.0, True, "8", None], "", TypeError) for name in ("count", "classes", "size", "seed")),
    ],
)
def test_bad_values_are_named(argument, values, wanted, error):
    for value in values:
        with pytest.raises(error, match=rf"^{argument} must be an int {wanted}.*, got {value!r}$"):
            make_textures(**{"count": 8, argument: value})

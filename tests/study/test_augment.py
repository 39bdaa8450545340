"""Every op against torchvision on one image at a time, and the draws against their distributions."""

import math
from itertools import combinations, permutations

import pytest
import torch
import torchvision.transforms.v2.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from examples.images import augment as A
from examples.images.augment import Augment, AugmentConfig

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PROBABILITIES = ("flip", "jitter_prob", "grayscale_prob", "blur_prob", "solarize_prob")
OFF = AugmentConfig(scale=(1, 1), flip=0, jitter_prob=0, grayscale_prob=0, blur_prob=0, solarize_prob=0)
TOLERANCE = {"atol": 1e-5, "rtol": 0}

seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=20, deadline=None)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def pictures(seed, count=6, height=32, width=32):
    """Noise, smooth ramps, and what trips colour code: greys, blacks, whites, pure and tied channels."""
    x = torch.rand(count, 3, height, width, generator=rng(seed))
    x[1::3] = x[1::3, :, :1, :1] * torch.linspace(0, 1, width)
    x[2::3] = x[2::3].round()
    x[0, :, 0] = x[0, :1, 0]
    return x


def uniform(seed, low, high, *shape):
    return low + (high - low) * torch.rand(*shape, generator=rng(seed + 1))


def bytes_like(seed, count, size=32):
    return torch.randint(0, 256, (count, 3, size, size), generator=rng(seed), dtype=torch.uint8)


def each(images, op, *parameters):
    return torch.stack([op(x, *(p[i].item() for p in parameters)) for i, x in enumerate(images)])


# --- The pixels of torchvision ------------------------------------------------------------------------------


@few
@given(seed=seeds, height=st.integers(5, 40), width=st.integers(5, 40), size=st.integers(1, 48))
def test_resized_crop_equals_torchvision_up_and_down(seed, height, width, size):
    images = pictures(seed, 6, height, width)
    h, w = uniform(seed, 1, height + 1, 6).floor(), uniform(seed + 1, 1, width + 1, 6).floor()
    top = (uniform(seed + 2, 0, 1, 6) * (height - h + 1)).floor()
    left = (uniform(seed + 3, 0, 1, 6) * (width - w + 1)).floor()
    flip = uniform(seed + 4, 0, 1, 6) < 0.5

    def single(x, flip, *box):
        x = F.resized_crop(x, *map(int, box), [size, size], antialias=True)
        return F.horizontal_flip(x) if flip else x

    ours = A.resized_crop(images, (top, left, h, w), flip, size)
    torch.testing.assert_close(ours, each(images, single, flip, top, left, h, w), **TOLERANCE)


@few
@given(seed=seeds)
@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (A.adjust_brightness, F.adjust_brightness, 0, 2),
        (A.adjust_contrast, F.adjust_contrast, 0, 2),
        (A.adjust_saturation, F.adjust_saturation, 0, 2),
        (A.adjust_hue, F.adjust_hue, -0.5, 0.5),
        (A.solarize, F.solarize, 0, 1),
    ],
)
def test_colour_op_equals_torchvision(ours, theirs, low, high, seed):
    images, parameter = pictures(seed), uniform(seed, low, high, 6)
    if ours is A.solarize:  # quarters meet the pixels exactly, where >= and > differ
        images, parameter = (images * 4).round() / 4, (parameter * 4).round() / 4
    torch.testing.assert_close(ours(images, parameter), each(images, theirs, parameter), **TOLERANCE)


@few
@given(seed=seeds)
def test_grayscale_equals_torchvision_and_leaves_the_others_alone(seed):
    images, apply = pictures(seed), torch.tensor([True, False] * 3)
    grey = F.rgb_to_grayscale(images, num_output_channels=3)
    result = A.to_grayscale(images, apply)
    torch.testing.assert_close(result[apply], grey[apply], **TOLERANCE)
    assert torch.equal(result[~apply], images[~apply])


@few
@given(seed=seeds, height=st.integers(12, 40), width=st.integers(12, 40), kernel=st.sampled_from([1, 3, 23]))
def test_gaussian_blur_equals_torchvision(seed, height, width, kernel):
    images, sigma = pictures(seed, 6, height, width), uniform(seed, 0.1, 2, 6)
    expected = each(images, lambda x, s: F.gaussian_blur(x, [kernel, kernel], [s, s]), sigma)
    torch.testing.assert_close(A.gaussian_blur(images, sigma, kernel), expected, **TOLERANCE)


def test_jitter_equals_torchvision_in_all_24_orders():
    images, factors = pictures(0, 24), torch.stack([*uniform(0, 0.5, 1.5, 3, 24), uniform(9, -0.1, 0.1, 24)])
    orders = [(*o[:place], 3, *o[place:]) for place in range(4) for o in permutations(range(3))]
    keys, place = torch.empty(3, 24), torch.arange(24) // 6  # the first six have hue first, the next six second, ...
    for i, order in enumerate(orders):
        for rank, op in enumerate(o for o in order if o < 3):
            keys[op, i] = rank
    shuffle = torch.randperm(24, generator=rng(1))
    result = A.color_jitter(images[shuffle], factors[:, shuffle], keys[:, shuffle], place[shuffle])[shuffle.argsort()]

    ops = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for i, order in enumerate(orders):
        x = images[i]
        for op in order:
            x = ops[op](x, factors[op, i].item())
        torch.testing.assert_close(result[i], x, **TOLERANCE)


# --- The draws ----------------------------------------------------------------------------------------------


@few
@given(seed=seeds, height=st.integers(1, 64), width=st.integers(1, 64), low=st.floats(0.01, 1))
def test_boxes_are_whole_pixels_inside_the_image(seed, height, width, low):
    noise = torch.rand(A.BOX_DRAWS, 500, generator=rng(seed))
    noise[:, :10], noise[:, 10:20] = 0, 1 - 2**-24  # what torch.rand can return at the most and the least
    box = torch.stack(A.sample_boxes(noise, height, width, (low, 1.0)))
    top, left, h, w = box
    assert torch.equal(box, box.round())
    assert min(top.min(), left.min()) >= 0
    assert min(h.min(), w.min()) >= 1
    assert (top + h).max() <= height
    assert (left + w).max() <= width


def test_boxes_have_the_distribution_of_torchvision():
    image = torch.empty(3, 64, 96)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [RandomResizedCrop.get_params(image, [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    theirs = torch.tensor(theirs, dtype=torch.float)
    noise = torch.rand(A.BOX_DRAWS, 100_000, generator=rng(0))
    ours = torch.stack(A.sample_boxes(noise, 64, 96, (0.3, 1.0)), 1)
    error = theirs.std(0) / math.sqrt(len(theirs))
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * error).all()
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.05, atol=0)
    area = [(x[:, 2] * x[:, 3]).sort().values for x in (ours, theirs)]
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        a, b = (x[int(quantile * len(x))] / (64 * 96) for x in area)
        assert abs(a - b) < 0.02


def test_elongated_image_falls_back_to_the_central_crop_of_torchvision():
    noise = torch.rand(A.BOX_DRAWS, 50, generator=rng(0))
    for height, width, box in ((20, 100, (0, 36, 20, 27)), (100, 20, (36, 0, 27, 20)), (32, 32, (0, 0, 32, 32))):
        boxes = torch.stack(A.sample_boxes(noise, height, width, (1.0, 1.0)), 1)
        assert torch.equal(boxes, torch.tensor(box).float().expand(50, 4))


def rate(images, plain):
    """The share of a batch that an augmentation has changed."""
    return ((images - plain).abs().amax((1, 2, 3)) > 1e-4).float().mean().item()


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_probability_is_the_share_of_the_batch(name, probability):
    images = bytes_like(0, 4000, 8)
    config = AugmentConfig(**{**vars(OFF), "size": 8, "blur_sigma": (1.0, 2.0), name: probability})
    share = rate(Augment(config, MEAN, STD)(images, rng(1)), A.normalize(images, MEAN, STD))
    # Four standard errors; a jitter too small to see would be one in thousands.
    assert share == pytest.approx(probability, abs=4 * math.sqrt(probability * (1 - probability) / 4000) + 1e-3)


@pytest.mark.parametrize(("one", "other"), list(combinations(PROBABILITIES, 2)))
def test_choices_are_independent_of_each_other(one, other):
    images = bytes_like(0, 4000, 8)
    config = AugmentConfig(**{**vars(OFF), "size": 8, "blur_sigma": (1.0, 2.0), one: 0.5, other: 0.5})
    share = rate(Augment(config, MEAN, STD)(images, rng(2)), A.normalize(images, MEAN, STD))
    assert share == pytest.approx(0.75, abs=0.03)


def test_jitter_factors_fill_their_ranges():
    images = torch.full((2000, 3, 4, 4), 128, dtype=torch.uint8)  # grey: brightness alone acts
    config = AugmentConfig(**{**vars(OFF), "size": 4, "blur_kernel": 3, "jitter_prob": 1.0})
    factor = Augment(config, (0,) * 3, (1,) * 3)(images, rng(0)).mean((1, 2, 3)) / (128 / 255)
    assert factor.min() == pytest.approx(0.6, abs=5e-3)
    assert factor.max() == pytest.approx(1.4, abs=5e-3)
    assert factor.mean() == pytest.approx(1, abs=0.02)


def test_equal_images_are_cropped_differently():
    augment = Augment(AugmentConfig(**{**vars(OFF), "scale": (0.3, 1.0)}), MEAN, STD)
    x = augment(bytes_like(0, 1).expand(64, -1, -1, -1), rng(0))
    assert rate(x, x[:1].expand_as(x)) > 0.2


# --- The pipeline -------------------------------------------------------------------------------------------


def test_same_seed_same_batch_and_the_global_generator_rests():
    augment, images = Augment(AugmentConfig(), MEAN, STD), bytes_like(0, 16)
    before = torch.get_rng_state()
    assert torch.equal(augment(images, rng(5)), augment(images, rng(5)))
    assert not torch.equal(augment(images, rng(5)), augment(images, rng(6)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("count", [5, 32])
def test_a_share_of_a_batch_has_the_views_of_the_whole_batch(count):
    augment, images = Augment(AugmentConfig(), MEAN, STD), bytes_like(0, count)
    whole = augment(images, rng(5))
    for ranks in (2, 4):
        shares = images.tensor_split(ranks)
        parts = [augment(x, rng(5), count=count, rank=i, ranks=ranks) for i, x in enumerate(shares)]
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=rf"images must be the {count - count // 2} of rank 0 of 2, got {count}"):
        augment(images, rng(5), count=count, ranks=2)


def test_identity_config_only_normalises():
    images = bytes_like(0, 16)
    plain = (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(A.normalize(images, MEAN, STD), plain, atol=1e-6, rtol=1e-6)
    result = Augment(OFF, MEAN, STD)(images, rng(0))
    assert torch.equal(result, A.normalize(images, MEAN, STD))
    assert result.dtype == torch.float32
    whole_turn = A.adjust_hue(images / 255, torch.ones(16))
    torch.testing.assert_close(whole_turn, images / 255, **TOLERANCE)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_any_batch_and_image_size(count):
    images = torch.randint(0, 256, (count, 3, 40, 56), dtype=torch.uint8)
    result = Augment(AugmentConfig(size=24, blur_kernel=23), MEAN, STD)(images, rng(0))
    assert result.shape == (count, 3, 24, 24)
    assert result.isfinite().all()


def test_autocast_does_not_round_the_pixels():
    augment, images = Augment(AugmentConfig(), MEAN, STD), bytes_like(0, 8)
    with torch.autocast("cpu", torch.bfloat16):
        result = augment(images, rng(0))
    assert torch.equal(result, augment(images, rng(0)))


def test_nothing_is_read_back_to_the_host():
    augment = Augment(AugmentConfig(), MEAN, STD)
    images, noise = bytes_like(0, 8), torch.rand(A.DRAWS, 8)
    # A meta tensor has no values: any .item(), boolean index or copy from another device raises.
    assert augment.apply(images.to("meta"), noise.to("meta")).shape == (8, 3, 32, 32)
    compiled = torch.compile(augment.apply, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images, noise), augment.apply(images, noise))


def test_invalid_input_is_refused():
    for mean, std in ((MEAN[:2], STD), (MEAN, (1.0, 0.0, 1.0))):
        with pytest.raises(ValueError, match="mean and std must be three numbers"):
            Augment(AugmentConfig(), mean, std)
    augment = Augment(AugmentConfig(), MEAN, STD)
    for images in (torch.rand(2, 3, 32, 32), bytes_like(0, 2)[0], bytes_like(0, 2)[:, :1]):
        with pytest.raises(ValueError, match="images must be uint8"):
            augment(images, rng(0))

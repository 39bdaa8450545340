"""Could kornia replace ``examples/images/augment.py``? Pixels of both compared with torchvision's, and run times.

    python -m pip install --no-deps --target .kornia kornia kornia_rs
    PYTHONPATH=.kornia python -m benchmarks.augmentation

Prints the tables of docs/augmentation.md. Needs kornia 0.9 or newer, which is not a dependency.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torchvision.transforms.v2 as tv
import torchvision.transforms.v2.functional as F
from torch import Tensor

from examples.images import augment as A

MEAN, STD = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
COUNT, SIZE = 256, 32
# torchvision's op on one image, its parameters per image, our result, kornia's result
Entry = tuple[Callable[..., Tensor], tuple[Tensor, ...], Tensor, Tensor]


def worst_pixels(images: Tensor) -> dict[str, tuple[float, float]]:
    """The largest difference from torchvision for each operation, ours and kornia's, one parameter per image."""
    import kornia as K  # noqa: PLC0415

    count, generator = len(images), torch.Generator().manual_seed(1)
    u = torch.rand(count, generator=generator)
    brightness, saturation, hue, sigma = 0.6 + 0.8 * u, 0.8 + 0.4 * u, 0.2 * u - 0.1, 0.1 + 1.9 * u
    pair = sigma[:, None].expand(-1, 2)

    def crop(out: int, align_corners: bool, antialias: bool = False) -> Entry:
        def single(x: Tensor, *box: float) -> Tensor:
            return F.resized_crop(x, *map(int, box), [out, out], antialias=True)

        noise = torch.rand(A.BOX_DRAWS, count, generator=generator)
        top, left, h, w = box = A.sample_boxes(noise, SIZE, SIZE, (0.3, 1.0))
        corners = [(left, top), (left + w - 1, top), (left + w - 1, top + h - 1), (left, top + h - 1)]
        corners = torch.stack([torch.stack(corner, -1) for corner in corners], 1)
        options = {"align_corners": align_corners, "antialias": antialias}
        theirs = K.geometry.transform.crop_by_indices(images, corners, (out, out), **options)
        return single, box, A.resized_crop(images, box, torch.zeros(count), out), theirs

    def blur(kernel: int) -> Entry:
        ours = A.gaussian_blur(images, sigma, kernel)
        theirs = K.filters.gaussian_blur2d(images, (kernel, kernel), pair, "reflect")
        return lambda x, s: F.gaussian_blur(x, [kernel] * 2, [s] * 2), (sigma,), ours, theirs

    def grey(x: Tensor) -> Tensor:
        return F.rgb_to_grayscale(x, num_output_channels=3)

    E, everywhere, half = K.enhance, torch.ones(count), torch.full((count,), 128 / 255)
    table: dict[str, Entry] = {
        "crop resized to 32, as `RandomResizedCrop` does by default": crop(32, True),
        "crop resized to 32, `align_corners=False`": crop(32, False),
        "crop resized to 16, `align_corners=False`": crop(16, False),
        "crop resized to 16, `crop_by_indices(…, antialias=True)`": crop(16, False, True),
        "brightness": (
            F.adjust_brightness,
            (brightness,),
            A.adjust_brightness(images, brightness),
            E.adjust_brightness_accumulative(images, brightness),
        ),
        "contrast": (
            F.adjust_contrast,
            (brightness,),
            A.adjust_contrast(images, brightness),
            E.adjust_contrast_with_mean_subtraction(images, brightness),
        ),
        "saturation": (
            F.adjust_saturation,
            (saturation,),
            A.adjust_saturation(images, saturation),
            E.adjust_saturation_with_gray_subtraction(images, saturation),
        ),
        "hue": (F.adjust_hue, (hue,), A.adjust_hue(images, hue), E.adjust_hue(images, 2 * torch.pi * hue)),
        "grayscale": (grey, (), A.to_grayscale(images, everywhere), K.color.rgb_to_grayscale(images)),
        "Gaussian blur, kernel 3": blur(3),
        "Gaussian blur, kernel 23": blur(23),
        "solarize": (F.solarize, (half,), A.solarize(images, half), E.solarize(images, half)),
    }
    result = {}
    for name, (single, parameters, ours, theirs) in table.items():
        expected = torch.stack([single(x, *(p[i].item() for p in parameters)) for i, x in enumerate(images)])
        result[name] = tuple((x - expected).abs().max().item() for x in (ours, theirs))
    return result


def pipelines(images: Tensor) -> dict[str, Callable[[], object]]:
    """The paper's CIFAR recipe, from uint8 to normalised float."""
    import kornia.augmentation as K  # noqa: PLC0415

    def kornia(cropping: str) -> Callable[[], object]:
        crop = {"scale": (0.3, 1.0), "align_corners": False, "cropping_mode": cropping}
        chain = torch.nn.Sequential(
            K.RandomResizedCrop((SIZE, SIZE), **crop),
            K.RandomHorizontalFlip(),
            K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
            K.RandomGaussianBlur((3, 3), (0.1, 2.0), p=0.5),
            K.RandomSolarize((128 / 255, 128 / 255), (0.0, 0.0), p=0.2),
            K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        )
        return lambda: chain(images.float() / 255)

    single = tv.Compose(
        [
            tv.ToDtype(torch.float32, scale=True),
            tv.RandomResizedCrop(SIZE, (0.3, 1.0), antialias=True),
            tv.RandomHorizontalFlip(),
            tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
            tv.RandomGrayscale(0.2),
            tv.RandomApply([tv.GaussianBlur(3, (0.1, 2.0))], 0.5),
            tv.RandomSolarize(128 / 255, 0.2),
            tv.Normalize(MEAN, STD),
        ]
    )
    augment, generator = A.Augment(A.AugmentConfig(), MEAN, STD), torch.Generator().manual_seed(0)
    return {
        "ours": lambda: augment(images, generator),
        'kornia, `cropping_mode="slice"` (default)': kornia("slice"),
        'kornia, `cropping_mode="resample"`': kornia("resample"),
        "torchvision v2, image by image": lambda: torch.stack([single(x) for x in images]),
    }


def milliseconds(run: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU time; CPU time is more reliable on a shared machine."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description="kornia and torchvision against examples/images/augment.py")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if importlib.util.find_spec("kornia") is None:
        sys.exit(f"kornia is not installed; this comparison needs it:\n{__doc__}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), dtype=torch.uint8)

    print("| op | ours | kornia |\n| --- | --- | --- |")
    for name, (ours, theirs) in worst_pixels(images[:64] / 255).items():
        print(f"| {name} | {ours:.0e} | {theirs:.0e} |")

    runs = pipelines(images)
    for run in runs.values():
        run()
    # Paired: each repetition times all of them in turn, so that a busy machine slows all equally.
    times = [{name: milliseconds(run) for name, run in runs.items()} for _ in range(options.repeats)]
    print(f"\n{COUNT} images, {options.threads} thread(s), medians of {options.repeats} pairs; least in brackets\n")
    print("| pipeline | wall ms | wall / ours | CPU ms | CPU / ours |\n| --- | --- | --- | --- | --- |")
    for name in runs:
        cells = []
        for clock in (0, 1):
            own = [t[name][clock] for t in times]
            ratio = statistics.median(t[name][clock] / t["ours"][clock] for t in times)
            cells.append(f"{statistics.median(own):.0f} ({min(own):.0f}) | {ratio:.2f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

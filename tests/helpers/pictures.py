"""Small folders of pictures in ImageFolder's layout."""

import numpy as np
from PIL import Image

from examples.recipe.schema import load_recipe
from examples.recipe.sections import Data

MODES = ("RGB", "L", "CMYK", "RGB", "RGBA")  # as the real one: grey, CMYK and PNG under the name JPEG
CLASSES = ("n01", "n02", "n03")


def picture(path, seed):
    generator = np.random.default_rng(seed)
    mode = MODES[seed % len(MODES)]
    coarse = generator.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(tuple(int(n) for n in generator.integers(40, 120, 2)))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path, "PNG" if mode == "RGBA" else "JPEG")


def picture_folders(root, classes=CLASSES):
    for split, count in (("train", 8), ("val", 4)):
        for c, name in enumerate(classes):
            for i in range(count):
                picture(root / split / name / f"{i}.JPEG", 100 * c + 10 * count + i)
    return root


def data_config(root, **changes):
    settings = {"image_size": 32, "crop": 24, "workers": 0, "cache": str(root.parent / "cache"), **changes}
    return Data(name="imagenet100", root=str(root), **settings)


TINY = [
    "data.image_size=32", "data.crop=32", "data.workers=0", "data.batch_size=8", "augment.size=32",
    "augment.blur_kernel=3",
    "encoder.backbone=small_cnn", "encoder.grid=2", "encoder.token_channels=8", "predictor.hidden_dim=16",
    "train.epochs=2", "train.precision=fp32", "train.log_every=1", "optim.warmup_epochs=1", "evaluation.probe_epochs=1",
    "evaluation.ks=[1,20]",
]  # fmt: skip


def recipe_for(root, out, *more):
    cache = f"data.cache={root.parent / 'cache'}"
    return load_recipe("imagenet100", [*TINY, f"data.root={root}", cache, f"train.out={out}", *more])

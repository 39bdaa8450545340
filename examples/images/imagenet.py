"""Find, check and pack ImageNet-100 or any folder of classes (see `examples.images.packed`)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from examples.images.packed import PackedImages, check_space, estimate, pack
from examples.recipe.sections import Data

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FORMAT = 1  # version of the packed files
Split = dict[str, list[Path]]  # files by class


def load_imagenet(config: Data) -> tuple[PackedImages, PackedImages, tuple[str, ...]]:
    """Training images, test images and sorted class names. The first call packs the images.

    Raises:
        SystemExit: naming the path, if a split, part or class is missing or empty, if the splits' classes differ, if
            too many images cannot be read, or if there is not enough space for the packed files.
    """
    root = Path(config.root)
    splits = {"train": find_split(root, "train"), "val": find_split(root, "val")}
    classes = tuple(sorted(splits["train"]))
    if set(classes) != set(splits["val"]):
        apart = sorted(set(classes) ^ set(splits["val"]))
        some = ", ".join(apart[:5])
        raise SystemExit(f"{root}: train and val must have the same classes; {len(apart)} are in only one: {some}")
    if config.classes is not None and config.classes > len(classes):
        raise SystemExit(f"data.classes must be at most the {len(classes)} of {root}, got {config.classes}")
    folder = Path(config.cache) / fingerprint(root, splits, config.image_size)
    if (not dist.is_initialized() or dist.get_rank() == 0) and not folder.is_dir():
        pack_splits(folder, splits, classes, config)
    if dist.is_initialized():
        dist.barrier()
    train, val = (PackedImages(folder / f"{name}.bin", crop=config.crop) for name in splits)
    return train, val, classes


def find_split(root: Path, name: str) -> Split:
    """Files by class under ``root/name``, or under ``root/name.X`` or ``root/name.X1``, ``.X2``, … (Kaggle's parts)."""
    if not root.is_dir():
        raise SystemExit(f"data.root must be a folder with train and val, got {str(root)!r}, which does not exist")
    parts = [root / name] if (root / name).is_dir() else numbered_parts(root, name)
    split: Split = {}
    for part in parts:
        folders = sorted(x for x in part.iterdir() if x.is_dir())
        if not folders:
            raise SystemExit(f"{part} must contain one folder per class, but contains none")
        for folder in folders:
            files = sorted(x for x in folder.iterdir() if x.suffix.lower() in SUFFIXES)
            if not files:
                raise SystemExit(f"{folder} contains no images ({', '.join(SUFFIXES)})")
            split.setdefault(folder.name, []).extend(files)
    return split


def numbered_parts(root: Path, name: str) -> list[Path]:
    """Kaggle's folders for one split. A gap in their numbers means an unfinished copy."""
    if (root / f"{name}.X").is_dir():
        return [root / f"{name}.X"]
    found = {int(m[1]): x for x in root.iterdir() if (m := re.fullmatch(rf"{re.escape(name)}\.X(\d+)", x.name))}
    if not found:
        raise SystemExit(f"{root} contains neither {name}/ nor {name}.X…/ (ImageFolder or Kaggle layout)")
    for number in range(1, max(found)):
        if number not in found:
            raise SystemExit(f"{root / f'{name}.X{number}'} is missing, but {found[max(found)].name} exists")
    return [found[number] for number in sorted(found)]


def fingerprint(root: Path, splits: dict[str, Split], size: int) -> str:
    """A folder name that changes with file names, file sizes and settings."""
    files = [(str(x.relative_to(root)), x.stat().st_size) for s in splits.values() for v in s.values() for x in v]
    text = json.dumps([FORMAT, size, sorted(files)])
    return f"{root.name}-{size}px-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def pack_splits(folder: Path, splits: dict[str, Split], classes: Sequence[str], config: Data) -> None:
    """Pack both splits into ``folder``, which appears only when it is complete."""
    listed = {
        name: [(file, label) for label, c in enumerate(classes) for file in split[c]] for name, split in splits.items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    everything = [file for pairs in listed.values() for file, _ in pairs]
    check_space(folder.parent, estimate(everything, config.image_size), config.cache_gib)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed run
    partial.mkdir()
    workers = (os.cpu_count() or 1) if config.workers is None else config.workers
    for name, pairs in listed.items():
        files, labels = zip(*pairs, strict=True)
        pack(
            partial / f"{name}.bin", files, labels,
            size=config.image_size, workers=workers, tolerated=config.corrupt_share,
        )  # fmt: skip
    partial.rename(folder)

"""ImageNet-100, or any folder of classes: found, checked, packed once (see `examples.images.packed`)."""

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
FORMAT = 1  # of the packed files
Split = dict[str, list[Path]]  # files by class


def load_imagenet(config: Data) -> tuple[PackedImages, PackedImages, tuple[str, ...]]:
    """Training and test images and the names of the classes, sorted; packed at the first call.

    Raises:
        SystemExit: naming the path, if a split, a part or a class is missing or empty, the splits' classes differ, too
            many images cannot be read, or there is no room for the packed ones.
    """
    root = Path(config.root)
    splits = {"train": find_split(root, "train"), "val": find_split(root, "val")}
    classes = tuple(sorted(splits["train"]))
    if set(classes) != set(splits["val"]):
        apart = sorted(set(classes) ^ set(splits["val"]))
        raise SystemExit(
            f"{root}: train and val must have the same classes, {len(apart)} are in one only: {', '.join(apart[:5])}"
        )
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
        raise SystemExit(f"data.root must be a folder with train and val, got {str(root)!r}, which is not there")
    parts = [root / name] if (root / name).is_dir() else numbered_parts(root, name)
    split: Split = {}
    for part in parts:
        folders = sorted(x for x in part.iterdir() if x.is_dir())
        if not folders:
            raise SystemExit(f"{part} must hold a folder per class, it holds none")
        for folder in folders:
            files = sorted(x for x in folder.iterdir() if x.suffix.lower() in SUFFIXES)
            if not files:
                raise SystemExit(f"{folder} holds no image ({', '.join(SUFFIXES)})")
            split.setdefault(folder.name, []).extend(files)
    return split


def numbered_parts(root: Path, name: str) -> list[Path]:
    """Kaggle's folders of one split; a gap in their numbers is a copy that was not finished."""
    if (root / f"{name}.X").is_dir():
        return [root / f"{name}.X"]
    found = {int(m[1]): x for x in root.iterdir() if (m := re.fullmatch(rf"{re.escape(name)}\.X(\d+)", x.name))}
    if not found:
        raise SystemExit(f"{root} holds neither {name}/ nor {name}.X…/ (ImageFolder or Kaggle layout)")
    for number in range(1, max(found) + 1):
        if number not in found:
            raise SystemExit(f"{root / f'{name}.X{number}'} is missing beside {found[max(found)].name}: copy it too")
    return [found[number] for number in sorted(found)]


def fingerprint(root: Path, splits: dict[str, Split], size: int) -> str:
    """Changes with the files' names and sizes and with the settings."""
    files = [(str(x.relative_to(root)), x.stat().st_size) for s in splits.values() for v in s.values() for x in v]
    text = json.dumps([FORMAT, size, sorted(files)])
    return f"{root.name}-{size}px-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def pack_splits(folder: Path, splits: dict[str, Split], classes: Sequence[str], config: Data) -> None:
    """Pack both splits into ``folder``, which appears when it is whole."""
    listed = {
        name: [(file, label) for label, c in enumerate(classes) for file in split[c]] for name, split in splits.items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    everything = [file for pairs in listed.values() for file, _ in pairs]
    check_space(folder.parent, estimate(everything, config.image_size), config.cache_gib)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir()
    workers = (os.cpu_count() or 1) if config.workers is None else config.workers
    for name, pairs in listed.items():
        files, labels = zip(*pairs, strict=True)
        pack(
            partial / f"{name}.bin", files, labels,
            size=config.image_size, workers=workers, tolerated=config.corrupt_share,
        )  # fmt: skip
    partial.rename(folder)

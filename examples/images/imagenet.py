"""Find, check and pack ImageNet-100 or any folder of classes (see `examples.images.packed`)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from examples.images.decode import SUFFIXES
from examples.images.packed import PackedImages, check_share, check_space, estimate, pack, unreadable_list
from examples.recipe.sections import Data
from examples.system.files import sync_folder
from examples.system.lock import locked

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FORMAT = 2  # version of the packed files; count it up when pixels or index change
FEW = 0.1  # of the median class size: below this share, a class may be half copied
Split = dict[str, list[Path]]  # files by class


def load_imagenet(config: Data) -> tuple[PackedImages, PackedImages, tuple[str, ...]]:
    """Training images, test images and sorted class names. The first call packs the images.

    Raises:
        SystemExit: naming the path, if a split, part or class is missing or empty, if the splits' classes differ, if
            too many images cannot be read, if there is not enough space for the packed files, or if they are damaged.
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
    if not folder.is_dir():
        pack_splits(folder, splits, classes, config)
    train, val = (PackedImages(folder / f"{name}.bin", crop=config.crop) for name in splits)
    for images, split in ((train, splits["train"]), (val, splits["val"])):  # packed with a higher share, perhaps
        total = sum(map(len, split.values()))
        check_share(total - len(images), total, config.corrupt_share, f"see {unreadable_list(images.path)}")
    val.verify()  # otherwise first read when training has ended
    return train, val, classes


def find_split(root: Path, name: str) -> Split:
    """Files by class under ``root/name``, or under ``root/name.X`` or ``root/name.X1``, ``.X2``, … (Kaggle's parts).

    An image is whatever has a suffix that Pillow reads, so a broken link counts as an unreadable image. Other files are
    counted in one printed line, and so are classes that are much smaller than the median. Names with a leading dot and
    ``__MACOSX`` are skipped.
    """
    if not root.is_dir():
        raise SystemExit(f"data.root must be a folder with train and val, got {str(root)!r}, which does not exist")
    parts = [root / name] if (root / name).is_dir() else numbered_parts(root, name)
    split: Split = {}
    others: Counter[str] = Counter()
    for part in parts:
        entries = visible(part)
        folders = [x for x in entries if x.is_dir()]
        others.update(x.suffix for x in entries if not x.is_dir())
        if not folders:
            raise SystemExit(f"{part} must contain one folder per class, but contains none")
        for folder in folders:
            entries = visible(folder)
            files = [x for x in entries if x.suffix.lower() in SUFFIXES]
            others.update(x.suffix for x in entries if x.suffix.lower() not in SUFFIXES)
            if not files:
                raise SystemExit(f"{folder} contains no images (files with a suffix that Pillow reads, such as .jpg)")
            split.setdefault(folder.name, []).extend(files)
    if others:
        some = ", ".join(ascii(suffix) for suffix, _ in others.most_common(5))
        print(f"{name}: {others.total()} files or folders are not images and are skipped (suffixes: {some})")
    median = statistics.median(map(len, split.values()))
    if few := [f"{c!a} ({len(files)})" for c, files in split.items() if len(files) < FEW * median]:
        print(f"{name}: {len(few)} classes have far fewer images than the median, {median:g}: {', '.join(few[:5])}")
    return split


def visible(folder: Path) -> list[Path]:
    return sorted(x for x in folder.iterdir() if not x.name.startswith(".") and x.name != "__MACOSX")


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
    """A folder name that changes with the files' names, sizes and times of change, and with the settings.

    Reading 130,000 files would take too long, so a file whose content changes while its size and time stay the same is
    not noticed. Pillow's version counts through the files whose suffixes it reads.
    """
    entries = []
    for path in (x for split in splits.values() for files in split.values() for x in files):
        info = os.stat(path, follow_symlinks=os.path.exists(path))  # of a broken link, the link's own
        entries.append((str(path.relative_to(root)), info.st_size, info.st_mtime_ns))
    text = json.dumps([FORMAT, size, sorted(entries)])
    return f"{root.name}-{size}px-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def pack_splits(folder: Path, splits: dict[str, Split], classes: Sequence[str], config: Data) -> None:
    """Pack both splits into ``folder``, which appears only when it is complete. One process packs, others wait."""
    listed = {
        name: [(file, label) for label, c in enumerate(classes) for file in split[c]] for name, split in splits.items()
    }
    cache = folder.parent
    needed = estimate([file for pairs in listed.values() for file, _ in pairs], config.image_size)
    partial = cache / f"{folder.name}.{secrets.token_hex(8)}.partial"
    workers = (os.cpu_count() or 1) if config.workers is None else config.workers
    try:
        cache.mkdir(parents=True, exist_ok=True)  # here, so that the error names data.cache
        with locked(cache, wait=True):
            if folder.is_dir():  # packed while this process waited
                return
            for left in cache.glob("*px-*.partial"):  # by killed processes: no other one packs now
                shutil.rmtree(left)
            check_space(cache, needed, config.cache_gib)
            try:
                partial.mkdir()
                for name, pairs in listed.items():
                    files, labels = zip(*pairs, strict=True)
                    pack(
                        partial / f"{name}.bin", files, labels,
                        size=config.image_size, workers=workers, tolerated=config.corrupt_share,
                    )  # fmt: skip
                sync_folder(partial)
                partial.rename(folder)
                sync_folder(cache)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        space = f"{needed / 2**30:.1f} GiB are needed"
        if cache.is_dir():
            space += f" and {shutil.disk_usage(cache).free / 2**30:.1f} GiB free"
        raise SystemExit(f"cannot pack images into {cache} (data.cache): {error}; about {space}") from error

"""Folders of images: ImageNet-100 in its two layouts, and any tree of images. Both are packed once."""

from __future__ import annotations

import os
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from examples.images.decode import SUFFIXES
from examples.images.packed import PackedImages
from examples.images.packing import Found, opened
from examples.recipe.sections import Data

FEW = 0.1  # of the median class size: below this share, a class may be half copied
Split = dict[str, list[Path]]  # files by class


def imagenet100(config: Data, *, train: bool) -> PackedImages:
    """``config.root`` contains ``train`` and ``val`` with one folder per class, or Kaggle's parts of them.

    Raises:
        SystemExit: naming the path, if a split, part or class is missing or empty, or if the splits' classes differ;
            and as `examples.images.packing.opened`.
    """
    return _split(opened(config, find_imagenet), train)


def folder(config: Data, *, train: bool) -> PackedImages:
    """Any tree of images, with ``train`` and ``val`` (or ``test``) folders if there are test images.

    Images have labels if each one lies in a folder of a split, at least two of them, and no deeper.

    Raises:
        SystemExit: if there are no images; and as `examples.images.packing.opened`.
    """
    return _split(opened(config, find_folder), train)


def _split(packs: dict[str, PackedImages], train: bool) -> PackedImages:
    images = packs["train" if train else "val"]
    if not train:
        images.verify()  # otherwise first read when training has ended
    return images


def find_imagenet(config: Data) -> Found:
    root = Path(os.path.abspath(config.root))
    splits = {"train": find_split(root, "train"), "val": find_split(root, "val")}
    classes = sorted(splits["train"])
    if config.classes is not None and config.classes > len(classes):
        raise SystemExit(f"data.classes must be at most the {len(classes)} of {root}, got {config.classes}")
    parts = [part for name in splits for part in split_parts(root, name)]
    folders = [*parts, *(x for part in parts for x in visible(part) if x.is_dir())]
    return _found(root, splits, folders if (root / "train").is_dir() else [root, *folders])  # another part may be added


def _found(root: Path, splits: dict[str, Split], folders: list[Path]) -> Found:
    """With labels from the names of classes."""
    classes = tuple(sorted(splits["train"]))
    if splits["val"] and set(classes) != set(splits["val"]):
        apart = sorted(set(classes) ^ set(splits["val"]))
        some = ", ".join(apart[:5])
        raise SystemExit(f"{root}: train and val must have the same classes; {len(apart)} are in only one: {some}")
    files = {name: [file for c in classes for file in split.get(c, [])] for name, split in splits.items()}
    labels = {name: [i for i, c in enumerate(classes) for _ in split.get(c, [])] for name, split in splits.items()}
    return Found(files, labels, classes, folders)


def find_folder(config: Data) -> Found:
    root = Path(os.path.abspath(config.root))
    if not root.is_dir():
        raise SystemExit(f"data.root must be a folder of images, got {str(root)!r}, which does not exist")
    tops = {"train": [root], "val": []}
    if (root / "train").is_dir():
        tested = [root / name for name in ("val", "test") if (root / name).is_dir()]
        tops = {"train": [root / "train"], "val": tested[:1]}
    others: Counter[str] = Counter()
    folders = [root]
    files: dict[str, list[Path]] = {}
    splits: dict[str, Split] = {}
    levels: set[int] = set()
    for name, [*top] in tops.items():
        files[name], splits[name] = [], {}
        for path in (x for part in top for x in walk(part, Path(config.cache), folders)):
            if path.suffix.lower() not in SUFFIXES:
                others[path.suffix] += 1
                continue
            files[name].append(path)
            splits[name].setdefault(path.parent.name, []).append(path)
            levels.add(len(path.relative_to(top[0]).parts) - 1)
        if top and not files[name]:
            raise SystemExit(f"{top[0]} contains no images (files with a suffix that Pillow reads, such as .jpg)")
    if others:
        some = ", ".join(ascii(suffix) for suffix, _ in others.most_common(5))
        print(f"{root.name!a}: {others.total()} files are not images and are skipped (suffixes: {some})")
    if levels == {1} and len(splits["train"]) > 1:
        return _found(root, splits, folders)
    print(f"{root.name!a}: no labels, because the images do not lie in folders of classes, one level deep")
    return Found(files, {name: [-1] * len(x) for name, x in files.items()}, (), folders)


def walk(folder: Path, left_out: Path, seen: list[Path], above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All visible files under a folder, in order; ``seen`` collects the folders. Links upwards are skipped."""
    real = os.path.realpath(folder)
    if real in (*above, os.path.realpath(left_out)):
        return
    seen.append(folder)
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries if not hidden(entry.name)}
    for name in sorted(kinds):
        if kinds[name]:
            yield from walk(folder / name, left_out, seen, (*above, real))
        else:
            yield folder / name


def find_split(root: Path, name: str) -> Split:
    """Files by class under ``root/name``, or under ``root/name.X`` or ``root/name.X1``, ``.X2``, … (Kaggle's parts).

    An image is whatever has a suffix that Pillow reads, so a broken link counts as an unreadable image. Other files are
    counted in one printed line, and so are classes that are much smaller than the median. Names with a leading dot and
    ``__MACOSX`` are skipped.
    """
    if not root.is_dir():
        raise SystemExit(f"data.root must be a folder with train and val, got {str(root)!r}, which does not exist")
    parts = split_parts(root, name)
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
    return sorted(x for x in folder.iterdir() if not hidden(x.name))


def hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def split_parts(root: Path, name: str) -> list[Path]:
    """The folder of one split, or Kaggle's several. A gap in their numbers means an unfinished copy."""
    if (root / name).is_dir():
        return [root / name]
    if (root / f"{name}.X").is_dir():
        return [root / f"{name}.X"]
    found = {int(m[1]): x for x in root.iterdir() if (m := re.fullmatch(rf"{re.escape(name)}\.X(\d+)", x.name))}
    if not found:
        raise SystemExit(f"{root} contains neither {name}/ nor {name}.X…/ (ImageFolder or Kaggle layout)")
    for number in range(1, max(found)):
        if number not in found:
            raise SystemExit(f"{root / f'{name}.X{number}'} is missing, but {found[max(found)].name} exists")
    return [found[number] for number in sorted(found)]

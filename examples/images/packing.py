"""Decode a folder of images once, into the files that `examples.images.packed` reads.

Each process decodes and writes files of its own, so nothing waits for a single writer. A file is kept once its index is
written, so a packing that was killed goes on where it stopped. A finished pack is used without the originals. While
they exist, the times of change of their folders show whether files were added, removed or renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from examples.images.decode import decode, open_image
from examples.images.packed import PackedImages, crc, shard
from examples.recipe.sections import Data
from examples.system.files import read_text, sync_folder, write_atomically
from examples.system.lock import locked

FORMAT = 3  # version of the packed files; count it up when pixels or index change
MANIFEST = "pack.json"
FILES = 256  # of pixels in a split, at most, because each is mapped into memory
LEAST = 256  # images in a file of pixels, where there are as many
SAMPLED = 64  # images whose headers are read to estimate the size


class Found(NamedTuple):
    """The images of a data set: files by split, their labels (-1: none), class names, and every folder looked into."""

    files: dict[str, list[Path]]
    labels: dict[str, list[int]]
    classes: tuple[str, ...]
    folders: list[Path]


def opened(config: Data, find: Callable[[Data], Found]) -> dict[str, PackedImages]:
    """The packed images by split; ``find`` is called only if they must be packed.

    Raises:
        SystemExit: if there are no images, too many of them cannot be read, there is not enough space for the packed
            files, or they are damaged.
    """
    folder = current(config) or pack_once(config, find)
    manifest = json.loads(read_text(folder / MANIFEST))
    packs = {name: PackedImages(folder, name, tuple(manifest["classes"])) for name in manifest["files"]}
    for name, images in packs.items():
        total = manifest["files"][name]  # packed with a higher share, perhaps
        check_share(total - len(images), total, config.corrupt_share, f"see {unreadable_list(folder, name)}")
    return packs


def pack_once(config: Data, find: Callable[[Data], Found]) -> Path:
    """The folder of a new pack. One process packs; others wait, and use it."""
    cache = Path(config.cache)
    with _naming(cache):
        cache.mkdir(parents=True, exist_ok=True)
    with locked(cache, wait=True):
        if folder := current(config):
            return folder
        found = find(config)
        with _naming(cache):
            return pack(config, found)


@contextmanager
def _naming(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        space = f"; {shutil.disk_usage(cache).free / 2**30:.1f} GiB are free there" if cache.is_dir() else ""
        raise SystemExit(f"cannot pack images into {cache} (data.cache): {error}{space}") from error


def current(config: Data) -> Path | None:
    """The newest finished pack of these images at this size, unless folders of the originals have changed since."""
    if not (versions := finished(config)):
        return None
    folder = versions[max(versions)]
    then: dict[str, int] = json.loads(read_text(folder / MANIFEST))["folders"]
    now = change_times(map(Path, then))
    return folder if all(now.get(path, time) == time for path, time in then.items()) else None


def key(config: Data) -> str:
    """What the names of these images' packs begin with. It depends on the path ``data.root``, not on what is there."""
    root = Path(os.path.abspath(config.root))
    settings = [FORMAT, config.name, os.fsencode(root).hex(), config.image_size, config.square]
    shape = f"{config.image_size}px{'-square' if config.square else ''}"
    return f"{config.name}-{shape}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}"


def finished(config: Data) -> dict[int, Path]:
    """The finished packs of these images by version."""
    found = Path(config.cache).glob(f"{key(config)}-v*")
    return {int(m[1]): path for path in found if (m := re.fullmatch(r".*-v(\d+)", path.name))}


def change_times(folders: Iterable[Path]) -> dict[str, int]:
    """Times of change in nanoseconds of those folders that exist."""
    return {str(path): path.stat().st_mtime_ns for path in folders if path.is_dir()}


def pack(config: Data, found: Found) -> Path:
    """Pack every split; the folder gets its name only when it is complete.

    Raises:
        SystemExit: naming the files, if more than a share ``data.corrupt_share`` of them, or all of one class, cannot
            be read.
    """
    folder = Path(config.cache) / f"{key(config)}-v{max(finished(config), default=0) + 1}"
    partial = folder.with_name(f"{folder.name}.partial")
    listing = json.dumps({name: [*map(str, files)] for name, files in found.files.items()})
    manifest = json.dumps(
        {
            "classes": found.classes,
            "files": {name: len(files) for name, files in found.files.items()},
            "folders": change_times(found.folders),
            "sha256": hashlib.sha256(listing.encode()).hexdigest(),
        }
    )
    if (partial / MANIFEST).is_file() and read_text(partial / MANIFEST) != manifest:
        shutil.rmtree(partial)  # begun before the files changed
    needed = estimate([file for files in found.files.values() for file in files], config)
    check_space(Path(config.cache), needed - sum(x.stat().st_size for x in partial.glob("*.bin")), config.cache_gib)
    partial.mkdir(exist_ok=True)
    write_atomically(partial / MANIFEST, manifest)
    for name, files in found.files.items():
        pack_split(partial, name, files, found.labels[name], config)
    sync_folder(partial)
    partial.rename(folder)
    sync_folder(folder.parent)
    return folder


def pack_split(folder: Path, name: str, files: Sequence[Path], labels: Sequence[int], config: Data) -> None:
    """Write the files of pixels that are missing, each by one of ``data.workers`` processes, and then the index."""
    if (folder / f"{name}.npz").is_file():  # written before this packing was killed
        return
    length = max(LEAST, -(-len(files) // FILES))
    parts = [files[i : i + length] for i in range(0, max(1, len(files)), length)]
    written = [shard(folder, name, i) for i in range(len(parts))]
    todo = [i for i, path in enumerate(written) if not done(path)]
    workers = (os.cpu_count() or 1) if config.workers is None else config.workers
    job = _Writer([written[i] for i in todo], [parts[i] for i in todo], config)
    bad = 0
    with tqdm(total=len(files), desc=f"packing {name}", unit="image") as bar:
        bar.update(len(files) - sum(len(parts[i]) for i in todo))
        for count, unreadable, error in DataLoader(job, batch_size=None, num_workers=min(workers, len(todo))):
            if error:
                raise OSError(error)
            bar.update(count)
            bad += len(unreadable)
            check_share(bad, len(files), config.corrupt_share, "; ".join(unreadable[:5]))
    indices = [read_part(path) for path in written]
    reasons = [line for index in indices for line in index["reasons"]]
    kept = [np.asarray(labels, np.int64)[i * length + index["kept"]] for i, index in enumerate(indices)]
    index = {
        "sizes": np.concatenate([x["sizes"] for x in indices]), "labels": np.concatenate(kept),
        "checks": np.concatenate([x["checks"] for x in indices]), "counts": np.array([len(x) for x in kept]),
    }  # fmt: skip
    for label in sorted(set(labels) - set(index["labels"].tolist())):
        parent = files[labels.index(label)].parent
        reason = next(x for x in reasons if x.startswith(f"{parent}{os.sep}"))
        raise SystemExit(f"{parent} has no image that can be read: {reason}")
    if reasons:
        print(f"{len(reasons)} of {len(files)} images of {name} cannot be read and are skipped")
        text = "\n".join(reasons) + "\n"
        unreadable_list(folder, name).write_text(text, encoding="utf-8", errors="surrogateescape")  # names of any bytes
    save_arrays(folder / f"{name}.npz", {**index, "check": np.array(crc(*index.values()))})
    for path in written:
        path.with_suffix(".part").unlink()


class _Writer(Dataset[tuple[int, list[str], str]]):
    """Item ``i`` writes the pixels of ``parts[i]`` to ``paths[i]``; it is the count, unreadable files and an error."""

    def __init__(self, paths: Sequence[Path], parts: Sequence[Sequence[Path]], config: Data) -> None:
        self.paths, self.parts, self.size, self.square = paths, parts, config.image_size, config.square

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[int, list[str], str]:
        path, files = self.paths[i], self.parts[i]
        sizes, kept, checks, reasons = [], [], [], []
        try:
            with path.open("wb") as out:
                for position, file in enumerate(files):
                    pixels = decode(file, self.size, square=self.square)
                    if isinstance(pixels, str):
                        reasons.append(pixels)
                        continue
                    out.write(pixels)
                    sizes.append(pixels.shape[1:])
                    kept.append(position)
                    checks.append(zlib.crc32(pixels))
                out.flush()
                os.fsync(out.fileno())
            index = {"sizes": np.array(sizes, np.int64).reshape(-1, 2), "kept": np.array(kept, np.int64)}
            text = json.dumps(reasons).encode()
            index |= {"checks": np.array(checks, np.int64), "reasons": np.frombuffer(text, np.uint8)}
            save_arrays(path.with_suffix(".part"), index)
        except OSError as error:
            path.unlink(missing_ok=True)  # on a full disk it would keep the disk full
            return len(files), [], str(error)
        return len(files), reasons, ""


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an ``.npz`` that is complete or absent."""
    temporary = path.with_name(f"{path.name}.partial")
    with temporary.open("wb") as out:
        np.savez(out, **arrays)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)


def done(path: Path) -> bool:
    """Whether these pixels were written before, all of them: an unreadable image may be readable by now."""
    return path.with_suffix(".part").is_file() and not read_part(path)["reasons"]


def read_part(path: Path) -> dict[str, Any]:
    """The index of one file of pixels."""
    with np.load(path.with_suffix(".part")) as arrays:
        return {**arrays, "reasons": json.loads(arrays["reasons"].tobytes())}


def estimate(files: Sequence[Path], config: Data) -> int:
    """Estimated bytes of the packed images, from the headers of a few."""
    sides = []
    for path in files[:: max(1, len(files) // SAMPLED)]:
        try:
            with open_image(path) as image:
                sides.append(1.0 if config.square else min(2.0, max(image.size) / min(image.size)))
        except Exception:  # counted and named when it is decoded
            continue
    return int(3 * config.image_size**2 * (sum(sides) / max(1, len(sides))) * len(files))


def unreadable_list(folder: Path, split: str) -> Path:
    """The file that lists the images that are not in a pack, with reasons."""
    return folder / f"{split}.unreadable.txt"


def check_share(unreadable: int, total: int, tolerated: float, which: str) -> None:
    """Raise SystemExit if more than a share ``tolerated`` cannot be read."""
    if unreadable > tolerated * total:
        raise SystemExit(
            f"{unreadable} of {total} images cannot be read, a share of {unreadable / total:.2g} (data.corrupt_share "
            f"allows {tolerated:g}): {which}"
        )


def check_space(folder: Path, needed: int, limit_gib: float) -> None:
    """Refuse to fill the disk.

    Raises:
        SystemExit: naming the space needed and the space available.
    """
    gib, free_gib = needed / 2**30, shutil.disk_usage(folder).free / 2**30
    if gib > limit_gib:
        raise SystemExit(f"packing needs about {gib:.1f} GiB, but data.cache_gib allows {limit_gib:g}")
    if gib > free_gib:
        raise SystemExit(f"packing needs about {gib:.1f} GiB, but {folder} (data.cache) has {free_gib:.1f} free")

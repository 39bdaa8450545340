"""A checkpoint as a folder of shards: every rank writes and reads its own part (torch.distributed.checkpoint).

``checkpoint-STEP`` contains the shards, torch's index ``.metadata``, and ``run.json`` with the step, the recipe and the
SHA-256 of every other file. It is written under another name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from examples.system.files import REMEDY, sync_folder, write_atomically

T = TypeVar("T")
NAME = re.compile(r"checkpoint-(\d+)")
INFO = "run.json"


def last_checkpoint(run: Path) -> Path:
    """The newest folder of shards in a run's folder; without one, where its ``checkpoint.pt`` is or would be."""
    folders = {int(match[1]): path for path in run.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))}
    return folders[max(folders)] if folders else run / "checkpoint.pt"


def save_shards(run: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write ``checkpoint-STEP``, together with all other ranks, and delete the older ones.

    Raises:
        SystemExit: on every rank, if a file cannot be written; the last checkpoint is still there.
    """
    folder = run / f"checkpoint-{info['step']}"
    partial = run / f".{folder.name}.partial"

    rank = dist.get_rank() if dist.is_initialized() else 0
    main = rank == 0

    def prepare() -> None:
        for left in run.glob(".checkpoint-*.partial") if main else ():
            shutil.rmtree(left)

    def write() -> dict[str, str]:
        # Of what every rank has, such as BatchNorm's statistics, rank 0's is kept, as by DistributedDataParallel.
        writer, planner = dcp.FileSystemWriter(partial), DefaultSavePlanner(dedup_save_to_lowest_rank=True)
        _quietly(dcp.save, tensors, storage_writer=writer, planner=planner)
        own = [*partial.glob(f"__{rank}_*"), *([partial / ".metadata"] if main else [])]
        return {path.name: _sha256(path) for path in own}

    def finish() -> None:
        if not main:
            return
        write_atomically(partial / INFO, json.dumps({**info, "files": files}, indent=2) + "\n")
        older = [path for path in run.glob("checkpoint-*") if NAME.fullmatch(path.name)]
        partial.rename(folder)
        sync_folder(run)
        for path in older:
            shutil.rmtree(path)

    failure = f"{folder} cannot be written"
    _together(prepare, failure)
    files = {name: hashed for part in _together(write, failure) for name, hashed in part.items()}
    _together(finish, failure)


def read_info(folder: Path, *, rank: int = 0, ranks: int = 1) -> dict[str, Any]:
    """What was saved beside the tensors. The hashes of the shards are checked, by several ranks in turn.

    Raises:
        SystemExit: naming the first file that is missing or damaged.
    """
    try:
        info: dict[str, Any] = json.loads((folder / INFO).read_text())
        files = info.pop("files")
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"checkpoint {folder} cannot be read, {INFO} is missing or damaged: {REMEDY}") from error

    def verify() -> None:
        for name in sorted(files)[rank::ranks]:
            path = folder / name
            if not path.is_file() or _sha256(path) != files[name]:
                raise SystemExit(f"checkpoint {path} is missing or damaged, its SHA-256 does not match: {REMEDY}")

    _together(verify) if ranks > 1 else verify()
    return info


def fill(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Copy a checkpoint into tensors of the same names, whole or sharded in any way; together with all other ranks.

    Raises:
        SystemExit: on every rank, naming the folder, if names or shapes differ.
    """
    names = stored(folder).keys()
    if others := sorted(names ^ tensors.keys()):
        raise SystemExit(f"checkpoint {folder} cannot be used, it does not fit this model, {others[0]}: {REMEDY}")
    reader = dcp.FileSystemReader(folder)
    _together(lambda: _quietly(dcp.load, tensors, storage_reader=reader), f"checkpoint {folder} cannot be used")


def read_shards(folder: Path) -> dict[str, Tensor]:
    """Every tensor, whole, by this process alone.

    Raises:
        SystemExit: naming the folder, if it is damaged.
    """
    tensors = {name: torch.empty(x.size, dtype=x.properties.dtype) for name, x in stored(folder).items()}
    _quietly(dcp.load, tensors, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    return tensors


def stored(folder: Path) -> dict[str, TensorStorageMetadata]:
    """Names, shapes and dtypes of a checkpoint's tensors. Its index is a pickle: check `read_info` first."""
    items = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata.items()
    return {name: x for name, x in items if isinstance(x, TensorStorageMetadata)}


def gather(value: T) -> list[T]:
    """Every rank's value, on every rank."""
    found = [value]
    if dist.is_initialized():
        found *= dist.get_world_size()
        dist.all_gather_object(found, value)
    return found


def _together(action: Callable[[], T], failure: str = "") -> list[T]:
    """Every rank's result of ``action``; if it fails on one, all of them end, so that none waits for that one."""
    result, reason = None, None
    try:
        result = action()
    except SystemExit as error:
        reason = str(error)
    except (Exception, CheckpointException) as error:  # torch raises errors of many types
        cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        reason = f"{failure}: {' '.join(str(cause).split())[:300]}"
    found = gather((result, reason))
    for _, why in found:
        if why is not None:
            raise SystemExit(why)
    return [cast(T, result) for result, _ in found]


def _quietly(function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    """Without the warning that a single process is alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        function(*args, **kwargs)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()

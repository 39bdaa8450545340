"""A folder that one process at a time writes to."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from examples.system.files import PARTIAL

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_held: set[Path] = set()  # by this process


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Create ``folder`` and hold it for this process, which may do so again inside.

    The lock is the kernel's (`flock`) and ends with the process, however that ends. On a network file system it works
    between machines if the server has locks; where there are none, a warning says so. Temporary files that
    `files.replace` left in a killed process are removed.

    Args:
        folder: the folder.
        wait: wait until another process that holds the folder ends.

    Raises:
        SystemExit: if another process holds the folder, naming it, or the folder cannot be written to.
    """
    key = folder.resolve()
    if key in _held or fcntl is None:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise SystemExit(f"{folder} cannot be written to: {error.strerror or error}") from error
    try:
        _lock(descriptor, folder, wait)
        _held.add(key)
        yield
    finally:
        _held.discard(key)
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        if not wait:
            raise SystemExit(f"{folder} is in use by {owner}: wait until it ends, or choose another folder") from error
        print(f"waiting for {owner}, which writes into {str(folder)!a}", flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        warnings.warn(f"{folder} cannot be locked ({error.strerror}): do not start two runs in it", stacklevel=4)
    with suppress(OSError):  # on a full disk the owner has no name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    for partial in folder.glob(".*.partial"):
        if PARTIAL.fullmatch(partial.name) and not partial.is_dir():
            partial.unlink(missing_ok=True)

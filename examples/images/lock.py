"""One process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time write into ``folder``; others wait. The lock ends with its process, even a killed one.

    The lock file stays: to delete it would let two processes lock different files of that name.
    """
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that writes into {str(folder)!a}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

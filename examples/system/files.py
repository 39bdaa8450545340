"""Checkpoints and logs that survive a process killed at any moment, a full disk and a flipped bit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

PARTIAL = re.compile(r"\..+\.[0-9a-f]{16}\.partial")  # names of temporary files
REMEDY = "delete it, and train.resume=true starts the run from its first step, or choose another train.out"
MARK = b"sha256:"  # after a checkpoint's last byte, and then the hash of everything before; torch.load ignores both


def save_atomically(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and primitives) so that ``path`` is always the complete old or new checkpoint.

    Raises:
        SystemExit: if the file cannot be written; the old one is still there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    replace(path, content + _seal(content))


def write_atomically(path: Path, text: str) -> None:
    """The same for a text file."""
    replace(path, text.encode())


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` in the place of a file through a temporary file that no other process uses or can guess.

    Raises:
        SystemExit: if the file cannot be written; the old one is still there, and the temporary one is not.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    with writing(path):
        file = partial.open("xb")  # x: follows no link
        try:
            with file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)  # on a full disk it would keep the disk full
            raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in the folder survive a loss of power, where the system can."""
    with suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file that cannot be written, as on a full disk.

    Raises:
        SystemExit: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise SystemExit(f"{path} cannot be written: {error.strerror or error}") from error


def load_checkpoint(
    path: Path, device: torch.device, read: Callable[[Path], bytes] = Path.read_bytes
) -> dict[str, Any]:
    """Read a checkpoint without executing code from it. One without a hash, from an older version, is not verified.

    Raises:
        SystemExit: if the file is not a checkpoint, or is damaged.
    """
    try:
        content = read(path)
        tail = len(_seal(b""))
        body, seal = content[:-tail], content[-tail:]
        if seal.startswith(MARK) and seal != _seal(body):
            raise SystemExit(f"checkpoint {path} is damaged, its SHA-256 does not match: {REMEDY}")
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except OSError as error:
        raise SystemExit(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise SystemExit(f"checkpoint {path} cannot be read: {error}; {REMEDY}") from error
    return state


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises:
        SystemExit: if it is missing, or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from error


def truncate_log(path: Path, step: int) -> None:
    """Drop the lines of a JSON-lines log from ``step`` on, which a resumed run writes again, and a damaged end.

    Raises:
        SystemExit: if a line before the last one to keep is damaged.
    """
    if not path.is_file():
        return
    lines = path.read_bytes().splitlines()
    steps = [_step(line) for line in lines]
    kept = [i for i, at in enumerate(steps) if at is not None and at < step]
    end = kept[-1] + 1 if kept else 0
    if None in steps[:end]:
        number = steps.index(None) + 1
        raise SystemExit(f"line {number} of {path} is damaged: delete that line, or the file, and resume")
    replace(path, b"".join(lines[i] + b"\n" for i in kept))


def _step(line: bytes) -> int | None:
    """The step that a line of a log is about; None if the line is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    at = record.get("step") if isinstance(record, dict) else None
    return at if isinstance(at, int) else None


def _seal(content: bytes) -> bytes:
    return MARK + hashlib.sha256(content).hexdigest().encode()

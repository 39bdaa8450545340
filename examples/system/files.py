"""Checkpoints and logs that survive a process killed at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch


def save_atomically(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and primitives) so that ``path`` is always the complete old or new checkpoint."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_atomically(path: Path, text: str) -> None:
    """The same for a text file."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint without executing code from it.

    Raises:
        SystemExit: if the file is not a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise SystemExit(f"checkpoint {path} cannot be read: {error}") from error
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
    """Drop the lines of a JSON-lines log from ``step`` on, which a resumed run rewrites, and a partial last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] < step:
            kept.append(line)
    write_atomically(path, "".join(line + "\n" for line in kept))

"""Settings and weights of one module as two matching files, JSON and safetensors."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from symplectic_jepa._version import __version__

CONFIG = "config.json"
FORMAT = 2  # format 1 had no key "format", no checksums, and its weights in model.safetensors
_SAFETENSORS = "safetensors.torch", 'weights need safetensors: pip install "symplectic-jepa[weights]"'


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files, settings last, so that the folder always holds either the complete old or new module.

    The file name of the weights contains their SHA-256, which is also in the settings, so the two cannot be mixed up.
    """
    # safetensors can write neither shared memory nor strides.
    content = {k: x.detach().cpu().contiguous().clone() for k, x in tensors.items()}
    weights: bytes = require(*_SAFETENSORS).save(content)
    config = {"format": FORMAT, "version": __version__, **config, "weights": hashlib.sha256(weights).hexdigest()}
    config["checksum"] = _checksum(config)
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(folder / CONFIG)
    old, new = _saved_weights(folder), _weights_name(config)
    try:
        _replace(folder / new, weights)
        _replace(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    finally:  # the weights that the settings do not refer to; another process may have saved since
        for unused in {old, new} - {"", _saved_weights(folder)}:
            (folder / unused).unlink(missing_ok=True)


def _refuse_foreign(path: Path) -> None:
    """Raise a ValueError if the settings in the folder are another library's, or not readable."""
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {"class": ""}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or "class" not in found:
        raise ValueError(f"folder must not hold a {CONFIG} of another library, got {path}: delete it or choose another")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Both files, checked against their checksums.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ValueError: if one is damaged or has another format.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or "class" not in config:
        raise ValueError(f"{path} must hold a 'class' and its 'arguments', got {str(config)[:200]}")
    checked = "format" in config
    if checked and config["format"] != FORMAT:
        raise ValueError(f"{path} must have format 1 or {FORMAT}, got {config['format']!r}")
    name = _weights_name(config)
    if not name or (checked and config.get("checksum") != _checksum(config)):
        raise ValueError(f"{path} is damaged, or was changed by hand: its checksum does not match")
    weights = (folder / name).read_bytes()
    if checked and hashlib.sha256(weights).hexdigest() != config["weights"]:
        raise ValueError(f"{folder / name} is damaged: its SHA-256 is not the one in {CONFIG}")
    safetensors = require(*_SAFETENSORS)
    try:
        return config, safetensors.load(weights)
    except Exception as error:  # SafetensorError, which safetensors.torch does not export
        raise ValueError(f"{folder / name} is not a safetensors file: {error}") from error


def require(module: str, message: str) -> Any:
    """Import an optional dependency, or raise an error that explains how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(message) from error


def _weights_name(config: dict[str, Any]) -> str:
    """Name of the weights file that the settings refer to; empty if there is none."""
    if "format" not in config:
        return "model.safetensors"
    digest = str(config.get("weights"))
    return f"model-{digest[:12]}.safetensors" if re.fullmatch("[0-9a-f]{64}", digest) else ""


def _saved_weights(folder: Path) -> str:
    """Name of the weights file that a save replaces; empty if the folder holds no saved module."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    return _weights_name(config) if isinstance(config, dict) and {"class", "arguments"} <= config.keys() else ""


def _checksum(config: dict[str, Any]) -> str:
    """SHA-256 of all settings except itself, independent of whitespace and key order."""
    text = json.dumps({k: x for k, x in config.items() if k != "checksum"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Write a file atomically, through a temporary file that no other process uses."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    file = partial.open("xb")
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    with suppress(OSError, AttributeError):  # systems that cannot do this for folders
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)  # the new name, before the next file
        finally:
            os.close(descriptor)

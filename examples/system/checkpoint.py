"""A run's checkpoint is checked before a run is continued or measured from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from examples.system.files import REMEDY, load_checkpoint
from examples.system.sharded import read_info, read_shards

LAYOUT = {"step": (int,), "seconds": (int, float), "recipe": (str,), "model": (dict,), "optimizer": (dict,)}


def load_run(path: Path, device: torch.device, read: Callable[[Path], bytes] = Path.read_bytes) -> dict[str, Any]:
    """Read a run's checkpoint, with at least the keys of ``LAYOUT``.

    Raises:
        SystemExit: naming the file, if it is damaged, has another layout, or contains NaN or infinity.
    """
    state = _joined(path) if path.is_dir() else load_checkpoint(path, device, read)
    if not isinstance(state, dict):
        raise unusable(path, f"it must be a dictionary, got a {type(state).__name__}")
    for key, types in LAYOUT.items():
        if not isinstance(state.get(key), types):
            got = f"a {type(state[key]).__name__}" if key in state else "nothing"
            raise unusable(path, f"its {key} must be of type {types[-1].__name__}, got {got}")
    for key in ("step", "seconds"):
        if not (state[key] >= 0 and math.isfinite(state[key])):
            raise unusable(path, f"its {key} must be at least 0, got {state[key]}")
    for part in ("model", "optimizer"):
        if bad := [name for name, x in _tensors(part, state[part]) if not x.isfinite().all()]:
            raise unusable(path, f"{bad[0]} is not finite")
    return state


def restore(
    path: Path, state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Load the weights and the optimizer's moments from the ``state`` that was read from ``path``.

    The optimizer's settings are those of the recipe and this machine, not those in the file.

    Raises:
        SystemExit: naming the file, if they do not fit.
    """
    try:
        model.load_state_dict(state["model"])
        if optimizer is not None:
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
            _check_moments(optimizer, state["step"])
    except Exception as error:  # torch raises errors of many types
        raise unusable(path, f"it does not fit this model: {' '.join(str(error).split())[:300]}") from error


def _joined(folder: Path) -> dict[str, Any]:
    """A folder of shards, read by one process for evaluation: the moments are left out."""
    info, tensors = read_info(folder), read_shards(folder)
    weights = {name.removeprefix("model."): x for name, x in tensors.items() if name.startswith("model.")}
    return {**info, "model": weights, "optimizer": {}}


def unusable(path: Path, why: str) -> SystemExit:
    return SystemExit(f"checkpoint {path} cannot be used, {why}: {REMEDY}")


def _check_moments(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Of AdamW; PyTorch itself would notice only at the next step."""
    if step and not optimizer.state:
        raise ValueError("the optimizer has no moments")
    for parameter, moments in optimizer.state.items():
        if not isinstance(parameter, Tensor):
            raise ValueError(f"the optimizer has moments of a parameter {parameter}, which does not exist")
        wanted = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        if (found := {key: x.shape for key, x in moments.items()}) != wanted:
            raise ValueError(f"the optimizer's moments must have shapes {wanted}, got {found}")


def _tensors(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dictionaries, named."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _tensors(f"{name}.{key}", inner)

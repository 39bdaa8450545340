"""Training with FSDP2: every rank holds a part of the weights and moments, and saves that part."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from examples.model.build import JEPA
from examples.system.checkpoint import unusable
from examples.system.ranks import Ranks
from examples.system.sharded import fill, gather, save_shards, stored
from examples.training.nan_guard import not_finite, refuse_not_finite

MODEL = "model."  # prefix of the names of weights, buffers and counters
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW


def shard(model: JEPA, mine: Ranks) -> None:
    """Split all parameters between the ranks, in place.

    The encoder, the predictor and the rest are gathered one after the other, each just before it runs.
    """
    # Nothing here works in place on what a part returns.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(mine.device.type, (mine.size,))
    model.encoder.to(memory_format=torch.contiguous_format)  # FSDP2 splits nothing else
    predictor = getattr(model.objective, "predictor", None)
    for part in (model.encoder, predictor, model):
        if part is not None and any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh)


def save(out: Path, model: JEPA, optimizer: torch.optim.Optimizer, info: dict[str, Any]) -> None:
    """Write weights, buffers and moments; see `save_shards`.

    Raises:
        NotFiniteError: on every rank, if the state contains NaN or infinity. The last checkpoint is kept.
    """
    tensors = _tensors(model, optimizer)
    refuse_not_finite(_bad(tensors), info["step"])
    save_shards(out, tensors, info)


def restore(folder: Path, model: JEPA, optimizer: torch.optim.Optimizer) -> None:
    """Load what `save` wrote, on any number of ranks.

    Raises:
        SystemExit: naming the folder, if it does not fit or contains NaN or infinity.
    """
    names = stored(folder)
    for name, parameter in model.named_parameters():
        if f"moments.{name}.step" in names:
            step = torch.zeros((), device=parameter.device)
            moments = (step, torch.zeros_like(parameter), torch.zeros_like(parameter))
            optimizer.state[parameter] = dict(zip(MOMENTS, moments, strict=True))
    tensors = _tensors(model, optimizer)
    fill(folder, tensors)
    if bad := _bad(tensors):
        raise unusable(folder, f"{bad[0]} is not finite")
    # Weights and moments are filled in place. The counters of draws are no tensors of the model: they are set here.
    model.load_state_dict({name.removeprefix(MODEL): x for name, x in tensors.items() if name.startswith(MODEL)})


def _tensors(model: JEPA, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers, counters and moments by name; all but the counters share memory with where they are from."""
    tensors = {f"{MODEL}{name}": x for name, x in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"moments.{name}.{key}": x for key, x in optimizer.state.get(parameter, {}).items()}
    return tensors


def _bad(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that are not finite on any rank, the same on every rank."""
    bad = not_finite({name: x.to_local() if isinstance(x, DTensor) else x for name, x in tensors.items()})
    anywhere = set().union(*gather(bad))
    return [name for name in tensors if name in anywhere]

"""A sharded checkpoint from one number of ranks to another: ``python sharded_case.py STORE W RANK OUT``.

The folder of OUT holds the run; ``test_sharded.py`` starts this with 2, then 1, then 3 ranks.
"""

import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from examples.model.build import build_model, build_optimizer
from examples.system.ranks import Ranks
from examples.system.sharded import last_checkpoint, read_info
from examples.training import sharded
from examples.training.loop import train_step
from tests.distributed.ddp_cases import on_this_rank
from tests.helpers.runs import tiny


def whole(tensors):
    return {k: (x.full_tensor() if isinstance(x, DTensor) else x).clone() for k, x in tensors.items()}


def main(rank, world):
    run = Path(sys.argv[4]).parent
    recipe = tiny(run, "train.parallel=fsdp", "train.precision=fp32")
    torch.manual_seed(world)  # what is not loaded differs
    model = build_model(recipe, torch.Size((3, 32, 32)))
    if world > 1:
        sharded.shard(model, Ranks(rank, world, torch.device("cpu")))
    optimizer = build_optimizer(model, recipe.optim)
    path = last_checkpoint(run)
    results = {}
    if path.is_dir():
        step = read_info(path, rank=rank, ranks=world)["step"]
        sharded.restore(path, model, optimizer)
        results["loaded"] = whole(sharded._tensors(model, optimizer))
    else:
        step = 0
    images = torch.randn(2, 12, 3, 32, 32, generator=torch.Generator().manual_seed(step))
    train_step(model, optimizer, images.tensor_split(world, dim=1)[rank], clip=1.0)
    sharded.save(run, model, optimizer, {"step": step + 1, "seconds": 0.0, "recipe": "", "data": ""})
    results["saved"] = whole(sharded._tensors(model, optimizer))
    shards = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
    results["share"] = torch.tensor(sum(x.numel() for x in shards) / sum(p.numel() for p in model.parameters()))
    return results


if __name__ == "__main__":
    on_this_rank(main)

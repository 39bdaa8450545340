"""An encoder sharded by FSDP2: ``python fsdp_case.py STORE W RANK OUT``, see test_fsdp.py."""

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.distributed.ddp_cases import SHARDS, Model, data, on_this_rank


def main(rank, world):
    model = Model("hamjepa_q").double()
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    for _ in range(2):
        model.zero_grad()
        loss = model(data(torch.float64).split(SHARDS[world], dim=1)[rank])
        loss.backward()
    sharded = {name: p.grad for name, p in model.named_parameters()}
    results = {"loss": loss.detach(), **{name: grad.full_tensor() for name, grad in sharded.items()}}
    held = sum(grad.to_local().numel() for grad in sharded.values())
    results["share"] = torch.tensor(held / sum(grad.numel() for grad in sharded.values()))
    return results


if __name__ == "__main__":
    on_this_rank(main)

"""An encoder sharded by FSDP2: ``python fsdp_case.py STORE W RANK OUT``, see test_distributed.py."""

import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.distributed.ddp_cases import SHARDS, Model, data


def main():
    store, world, rank, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", world_size=world, rank=rank)
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
    torch.save(results, out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

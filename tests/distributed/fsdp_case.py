"""A model sharded by FSDP2, in float64 and in bfloat16: ``python fsdp_case.py STORE W RANK OUT``, see test_fsdp.py."""

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.func import functional_call

from tests.distributed.ddp_cases import SHARDS, Model, data, on_this_rank

BF16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
FLOAT32 = MixedPrecisionPolicy()


def sharded(rank, world):
    model = Model("hamjepa_q").double()
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    for _ in range(2):
        model.zero_grad()
        loss = model(data(torch.float64).split(SHARDS[world], dim=1)[rank])
        loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    results = {"loss": loss.detach(), **{name: grad.full_tensor() for name, grad in grads.items()}}
    held = sum(grad.to_local().numel() for grad in grads.values())
    results["share"] = torch.tensor(held / sum(grad.numel() for grad in grads.values()))
    return results


def mixed(rank, world, policy):
    """The encoder in bfloat16, the rest by ``policy``; with the dtypes of the predictor's weights and states."""
    model = Model("hamjepa_q")
    mesh = init_device_mesh("cpu", (world,))
    fully_shard(model.encoder, mesh=mesh, mp_policy=BF16)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    hamiltonian = model.loss.predictor.hamiltonian
    seen, force = [], hamiltonian.force

    def watched(q):
        seen.append((str(hamiltonian.hidden[0].weight.dtype), str(q.dtype)))
        return force(q)

    hamiltonian.force = watched
    loss = model(data(torch.float32).split(SHARDS[world], dim=1)[rank])
    loss.backward()
    grads = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
    return {"loss": loss.detach(), **grads}, sorted(set(seen))


def by_hand(policy):
    """The same on one process and without FSDP2."""
    model = Model("hamjepa_q")
    x = data(torch.float32).bfloat16()
    if policy is BF16:
        for p in model.loss.parameters():
            p.data = p.data.bfloat16().float()
    encoder = {name: p.bfloat16() for name, p in model.encoder.named_parameters()}
    loss = model.loss(functional_call(model.encoder, encoder, x)).loss
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in model.named_parameters()}}


def main(rank, world):
    return {
        "float64": sharded(rank, world),
        "encoder": mixed(rank, world, FLOAT32),
        "everything": mixed(rank, world, BF16),
    }


if __name__ == "__main__":
    on_this_rank(main)

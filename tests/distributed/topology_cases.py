"""Four ranks in other arrangements: ``python topology_cases.py STORE 4 RANK OUT``, see test_agreement.py."""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import symplectic_jepa as sj
from tests.distributed.ddp_cases import SHARDS, Model, data, on_this_rank, penalties, predictor


def grads(model):
    return {name: p.grad for name, p in model.named_parameters()}


def grouped(group):
    return sj.HamJEPAObjective(predictor(), p_weight=0.2, penalties=penalties(), process_group=group)


def tensor_parallel(rank):
    """Ranks 0 and 1 hold one shard of the batch, ranks 2 and 3 the other: statistics over the data dimension."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = Model("hamjepa_q", lambda: grouped(mesh["dp"])).double()
    wrapped = DistributedDataParallel(model, process_group=mesh["dp"].get_group())
    for _ in range(2):
        model.zero_grad()
        loss = wrapped(data(torch.float64).split(SHARDS[2], dim=1)[rank // 2])
        loss.backward()
    return {"loss": loss.detach(), **grads(model)}


def pipeline(rank):
    """Ranks 0 and 1 encode, ranks 2 and 3 have the loss; the former never call it."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("pp", "dp"))
    stage, shard = divmod(rank, 2)
    model = Model("hamjepa_q", (lambda: grouped(mesh["dp"])) if stage else None).double()
    x = data(torch.float64).split(SHARDS[2], dim=1)[shard]
    for _ in range(2):
        model.zero_grad()
        if stage:
            received = torch.empty(*x.shape[:2], 12, dtype=torch.float64)
            dist.recv(received, rank - 2)
            loss = model.loss(received.requires_grad_()).loss
            loss.backward()
            dist.send(received.grad, rank - 2)
        else:
            states = model.encoder(x)
            dist.send(states.detach(), rank + 2)
            grad = torch.empty_like(states)
            dist.recv(grad, rank + 2)
            states.backward(grad)
    mine = {name: grad for name, grad in grads(model).items() if name.startswith("loss" if stage else "encoder")}
    for grad in mine.values():
        dist.all_reduce(grad, group=mesh["dp"].get_group())
    result = {name: grad / 2 for name, grad in mine.items()}
    return result | ({"loss": loss.detach()} if stage else {})


def two_jobs(rank):
    """Jobs with other settings side by side; in the second, one rank is set up differently and only this job ends."""
    groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    job = rank // 2
    loss = sj.SIGReg(slices=7 + job, seed=int(rank == 3), process_group=groups[job]).double()
    try:
        return {"loss": loss(data(torch.float64).split(SHARDS[2], dim=1)[rank % 2])}
    except RuntimeError as error:
        return {"error": str(error)}


def hsdp(rank):
    """Replicated over one dimension of the mesh, sharded over the other; all four share the batch."""
    from torch.distributed.fsdp import fully_shard

    model = Model("hamjepa_q").double()
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "shard")))
    for _ in range(2):
        model.zero_grad()
        loss = model(data(torch.float64).split(SHARDS[4], dim=1)[rank])
        loss.backward()
    return {"loss": loss.detach(), **{name: grad.full_tensor() for name, grad in grads(model).items()}}


def main(rank, world):
    cases = [tensor_parallel, pipeline, two_jobs]
    if not torch.__version__.startswith("2.6."):  # its FSDP2 needs streams that record events
        cases.append(hsdp)
    return {case.__name__: case(rank) for case in cases}


if __name__ == "__main__":
    on_this_rank(main)

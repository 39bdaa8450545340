"""Two groups of two ranks in one world of four: ``python group_cases.py STORE 4 RANK OUT``, see test_distributed.py."""

from functools import partial

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import symplectic_jepa as sj
from tests.distributed.ddp_cases import SHARDS, Model, data, on_this_rank, penalties, predictor


def objective(**ranks):
    """One collective's worth of everything, and the MMD, which has one of its own."""
    mmd = {"mmd": sj.Penalty(sj.MMD(), on="q")}
    return sj.HamJEPAObjective(predictor(), p_weight=0.2, penalties={**penalties(), **mmd}, **ranks)


def without_mmd(**ranks):  # it waits for the host, which no compiled graph can
    loss = objective(**ranks)
    del loss.penalties["mmd"]
    if ranks:
        loss.compile(fullgraph=True, backend="aot_eager")
    return loss


def run(make, rank, world, group=None, *, seed=0):
    """Loss and gradients of this rank's shard of one batch, the encoder's averaged over the same group."""
    model = Model("hamjepa_q", make).double()
    wrapped = DistributedDataParallel(model, process_group=group) if world > 1 else model
    value = wrapped(data(torch.float64, seed=seed).split(SHARDS[world], dim=1)[rank])
    value.backward()
    return {"loss": value.detach(), **{k: p.grad for k, p in model.named_parameters()}}


def main(rank, world):
    groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    mine, other = groups[rank // 2], groups[1 - rank // 2]
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "dp"))
    results = {
        "group": run(partial(objective, process_group=mine), rank % 2, 2, mine, seed=rank // 2),
        "compiled": run(partial(without_mmd, process_group=mine), rank % 2, 2, mine, seed=rank // 2),
        "mesh": run(partial(objective, process_group=mesh["dp"]), rank % 2, 2, mine, seed=rank // 2),
    }
    # One regularizer by itself, in an objective of the local batch, and in one of everybody's.
    x, shared = data(torch.float64)[0].split(SHARDS[4], dim=0)[rank], sj.MeanPenalty()
    values = []
    for options in ({"sync": False}, {}, {"process_group": mine}):
        terms = sj.LeJEPAObjective({"mean": sj.Penalty(shared)}, global_views=1, **options)(x[None]).terms
        values.append(terms["mean"])
    results["shared"] = {
        "values": torch.stack([*values, shared(x), sj.MeanPenalty(process_group=mine)(x)]),
        "sync": torch.tensor(shared.sync),
    }
    refusals = []
    for bad in (other, mesh):
        try:
            sj.MeanPenalty(process_group=bad)
        except (TypeError, ValueError) as error:
            refusals.append(str(error))
    results["refusals"] = refusals
    return results


if __name__ == "__main__":
    on_this_rank(main)

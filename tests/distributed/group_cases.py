"""Two groups of two ranks in one world of four: ``python group_cases.py STORE 4 RANK OUT``, see test_distributed.py."""

from functools import partial

import torch
import torch.distributed as dist
from torch import nn
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


class Mine(nn.Module):
    """A penalty of a user, with regularizers of ours inside."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([sj.SIGReg(slices=7), sj.MeanPenalty()])

    def forward(self, x):
        return self.parts[0](x) + self.parts[1](x[..., :3])


def nested(rank, world, *, compiled=False, x=None, **ranks):
    """Loss and gradient of an objective around such a penalty, the number of collectives, and the module's settings."""
    loss = sj.LeJEPAObjective({"mine": sj.Penalty(Mine())}, **ranks).double()
    before = str(loss.penalties), [module.ranks for module in loss.modules() if hasattr(module, "ranks")]
    if compiled:
        loss.compile(fullgraph=True, backend="aot_eager")
    x = (data(torch.float64).split(SHARDS[world], dim=1)[rank] if x is None else x).clone().requires_grad_()
    calls, all_reduce = [], dist.all_reduce
    dist.all_reduce = lambda *args, **kwargs: (calls.append(kwargs["group"]), all_reduce(*args, **kwargs))[1]
    value = loss(x).loss
    value.backward()
    dist.all_reduce = all_reduce
    after = str(loss.penalties), [module.ranks for module in loss.modules() if hasattr(module, "ranks")]
    assert after == before, "the user's module was written to"
    wanted = loss.process_group
    assert all(group is wanted or group == wanted for group in calls), "another group"
    return {"loss": value.detach(), "grad": x.grad, "calls": torch.tensor(len(calls))}


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
    results["nested"] = {
        "local": nested(rank, 4, sync=False),
        "compiled": nested(rank, 4, sync=False, compiled=True),
        "group": nested(rank % 2, 2, process_group=mine),
        "compiled group": nested(rank % 2, 2, process_group=mine, compiled=True),
    }
    return results


if __name__ == "__main__":
    on_this_rank(main)

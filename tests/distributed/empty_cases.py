"""A rank without samples: ``python empty_cases.py STORE W RANK OUT``, see test_agreement.py."""

import torch
from torch.nn.parallel import DistributedDataParallel

import symplectic_jepa as sj
from tests.distributed.ddp_cases import CASES, Model, data, on_this_rank

SHARDS = {2: [24, 0], 3: [0, 10, 14]}


def run(name, rank, world):
    """Loss and gradients of the second step."""
    model = Model(name).double()
    wrapped = DistributedDataParallel(model)
    for _ in range(2):
        model.zero_grad()
        loss = wrapped(data(torch.float64).split(SHARDS[world], dim=1)[rank])
        loss.backward()
    return {"loss": loss.detach(), **{k: p.grad for k, p in model.named_parameters()}}


def main(rank, world):
    results = {name: run(name, rank, world) for name in CASES}
    # Inside a user's module the regularizer sees the empty batch, too.
    sigreg = sj.SIGReg(slices=7).double()
    nested = sj.Penalty(lambda x: sigreg(x), views="separate")  # noqa: PLW0108  (not itself a regularizer)
    objective = sj.LeJEPAObjective({"nested": nested}, global_views=1)
    results["nested"] = objective(data(torch.float64).split(SHARDS[world], dim=1)[rank]).terms["nested"]
    return results


if __name__ == "__main__":
    on_this_rank(main)

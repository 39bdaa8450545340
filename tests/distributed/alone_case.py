"""Rank 0 evaluates alone: ``python alone_case.py STORE 2 RANK OUT``, see test_distributed.py."""

import copy
import sys
import time
from pathlib import Path

import torch
from torch import nn

import symplectic_jepa as sj
from tests.distributed.ddp_cases import CASES, SHARDS, Model, data, on_this_rank

PATIENCE = 120  # seconds after which the other rank no longer waits for the one that evaluates


class Twin(nn.Module):
    """The prediction loss alone, which is called past ``forward``."""

    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def forward(self, z):
        views = (z,) if isinstance(self.objective, sj.LeJEPAObjective) else z.unbind()
        return self.objective.prediction_loss(*views)


def values(model, x):
    """Of the loss, and of an objective's prediction loss."""
    with torch.no_grad():
        found = [model(x)]
        if hasattr(model.loss, "prediction_loss"):
            found.append(Twin(model.loss)(model.encoder(x)))
        return torch.stack(found)


def main(rank, world):
    x = data(torch.float64)
    mine = x.split(SHARDS[world], dim=1)[rank]
    models = {name: Model(name).double() for name in CASES}
    results = {"together": {name: values(copy.deepcopy(model), mine) for name, model in models.items()}}
    evaluated = Path(sys.argv[4]).with_name("evaluated")
    if rank == 0:
        results["alone"] = {name: values(model.eval(), mine) for name, model in models.items()}
        evaluated.touch()
    started = time.monotonic()
    while not evaluated.exists() and time.monotonic() < started + PATIENCE:
        time.sleep(0.05)

    # In train mode the transforms of torch.func go through the collective too.
    model = Model("hamjepa_q").double()
    weights = {name: w.detach() for name, w in model.named_parameters()}
    results["grad"] = torch.func.grad(lambda w: torch.func.functional_call(model, w, (mine,)))(weights)
    return results


if __name__ == "__main__":
    on_this_rank(main)

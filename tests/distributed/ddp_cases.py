"""Losses and gradients on W real processes: ``python ddp_cases.py STORE W RANK OUT``, see test_distributed.py."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import symplectic_jepa as sj
from tests.helpers.paths import ROOT

D = 6  # of q and of p
SHARDS = {1: [24], 2: [9, 15], 3: [5, 3, 16], 4: [2, 9, 6, 7]}  # unequal, one smaller than the projections


def penalties():
    return sj.hamjepa_penalties(
        q=sj.Floors(energy=1.0, std=3.0, log_det=3.0, participation=0.99, top_share=0.1, proj_dim=4, refresh_every=2),
        p=sj.Floors(energy=1.0, std=2.5, log_det=2.0, participation=0.98, top_share=0.2, proj_dim=5),
        seed=3,
    )


def predictor():
    return sj.HamiltonianPredictor(sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=0.5), dt=0.2)


CASES = {
    "energy_budget": lambda: sj.EnergyBudget(3.0),
    "variance_floor": lambda: sj.VarianceFloor(3.0),
    "mean_penalty": sj.MeanPenalty,
    "log_det": lambda: sj.ProjectedLogDetFloor(3.0, proj_dim=5),
    "participation": lambda: sj.ParticipationRatioFloor(0.99, proj_dim=5),
    "participation_full": lambda: sj.ParticipationRatioFloor(0.99, proj_dim=None),
    "top_eigenvalue": lambda: sj.TopEigenvalueCeiling(0.01, proj_dim=5),
    "spectral_floors": lambda: sj.SpectralFloors(log_det=3.0, participation=0.99, top_share=0.1, proj_dim=128),
    "corrected_floors": lambda: sj.SpectralFloors(log_det=3.0, participation=0.99, bias_correction=True),
    "corrected_participation_full": lambda: sj.ParticipationRatioFloor(0.99, proj_dim=None, bias_correction=True),
    "sigreg": lambda: sj.SIGReg(slices=7, knots=9),
    "hamjepa_q": lambda: sj.HamJEPAObjective(predictor(), p_weight=0.2, penalties=penalties()),
    "hamjepa_qp": lambda: sj.HamJEPAObjective(
        predictor(), match="qp", reverse_time=False, energy_weight=0.3, penalties=penalties()
    ),
    "mlp_hjepa": lambda: sj.HamJEPAObjective(sj.ResidualMLPPredictor(D, hidden_dim=8), penalties=penalties()),
    "trajectory": lambda: sj.TrajectoryObjective(
        predictor(), horizon=1, bidirectional=True, match="qp", penalties=penalties()
    ),
    "symplectic_net": lambda: sj.TrajectoryObjective(
        sj.SymplecticNetPredictor(D, hidden_dim=8), horizon=1, match="qp", detach_target=False, penalties=penalties()
    ),
    "damped": lambda: sj.HamJEPAObjective(
        sj.HamiltonianPredictor(sj.DampedHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=8), 0.2, learn=True)),
        match="qp",
        penalties=penalties(),
    ),
    "lejepa": lambda: sj.LeJEPAObjective(sj.sigreg_penalties(slices=7, weight=0.5)),
    "lejepa_pooled": lambda: sj.LeJEPAObjective(sj.sigreg_penalties(slices=7, views="stacked"), convention="convex"),
    "hamsigreg_diagonal": lambda: sj.HamSIGReg(sj.geometries.DiagonalGeometry(torch.linspace(0.5, 2, 2 * D)), slices=7),
    "hamsigreg_laplacian": lambda: sj.HamSIGReg(sj.geometries.LaplacianGeometry((3, 2)), slices=7),
    "hamsigreg_radial": lambda: sj.HamSIGReg(sj.geometries.RadialGeometry((3, 2), knots=3), slices=7),
    "mmd": sj.MMD,
    "sliced_mmd": lambda: sj.SlicedMMD(slices=7),
    "vicreg": lambda: sj.VICReg(floor=3.0),
    "barlow_twins": sj.BarlowTwins,
    "coding_rate": sj.CodingRate,
    "lejepa_mmd": lambda: sj.LeJEPAObjective(
        {
            "mmd": sj.Penalty(sj.MMD(), on="q"),
            "sliced": sj.Penalty(sj.SlicedMMD(slices=7), views="separate"),
            "barlow": sj.Penalty(sj.BarlowTwins(), weight=0.1, views="separate"),
        }
    ),
}


class Model(nn.Module):
    """A norm-free encoder and the loss on top of it."""

    def __init__(self, name, make=None):
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2 * D))
        self.loss = (make or CASES[name])()

    def forward(self, views):
        out = self.loss(self.encoder(views))
        return out.loss if isinstance(out, tuple) else out


def data(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(2, 24, 5, generator=generator, dtype=torch.float64) + 0.3).to(dtype)


def run(name, dtype, rank, world, steps=2, compiled=False):
    """Loss and gradients of the last of a few steps, so that the draws have moved on."""
    model = Model(name).to(dtype)
    if compiled:
        model.loss.compile(fullgraph=True, backend="aot_eager")
    wrapped = DistributedDataParallel(model) if world > 1 else model
    mine = data(dtype).split(SHARDS[world], dim=1)[rank]
    for _ in range(steps):
        model.zero_grad()
        loss = wrapped(mine)
        loss.backward()
    return {"loss": loss.detach(), **{k: p.grad for k, p in model.named_parameters()}}


def on_this_rank(main):
    """Join the group that the command line names, ``STORE W RANK OUT``, and save there what ``main`` returns."""
    assert Path(sj.__file__).is_relative_to(ROOT), sj.__file__  # not another installed tree
    store, world, rank, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", world_size=world, rank=rank)
    torch.save(main(rank, world), out)
    dist.barrier()
    dist.destroy_process_group()


def main(rank, world):
    results = {
        (name, str(dtype)): run(name, dtype, rank, world) for name in CASES for dtype in (torch.float64, torch.float32)
    }

    if world == 2:  # once: it takes seconds
        results["compiled", "hamjepa_q"] = run("hamjepa_q", torch.float64, rank, world, compiled=True)

    calls, all_reduce = [], dist.all_reduce
    dist.all_reduce = lambda *args, **kwargs: (calls.append(1), all_reduce(*args, **kwargs))[1]
    model = Model("hamjepa_q").double()
    model(data(torch.float64).split(SHARDS[world], dim=1)[rank]).backward()
    results["collectives", "hamjepa_q"] = {"calls": torch.tensor(len(calls))}
    calls.clear()
    penalties_of = {"mmd": sj.Penalty(sj.MMD()), "floors": sj.Penalty(sj.SpectralFloors(log_det=0.0))}
    sj.LeJEPAObjective(penalties_of, sync=False)(torch.randn(2, 8, 4))
    results["collectives", "local"] = {"calls": torch.tensor(len(calls))}
    dist.all_reduce = all_reduce

    # What one public implementation does: the sum in place, unseen by autograd.
    from symplectic_jepa import distributed

    def unseen(x, counters, group, member, lengths):
        total = x.detach().clone()
        dist.all_reduce(total)
        return x + (total - x).detach()

    distributed._all_reduce_sum = unseen
    results["unseen", "torch.float64"] = run("mean_penalty", torch.float64, rank, world)
    return results


if __name__ == "__main__":
    on_this_rank(main)

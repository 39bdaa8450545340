"""What ranks compute together of rows that each holds a part of: ``python bounded_cases.py STORE W RANK OUT``."""

import torch
import torch.distributed as dist

import symplectic_jepa as sj
from symplectic_jepa import evaluation
from symplectic_jepa.regularizers import Ranks, pairs
from tests.distributed.ddp_cases import SHARDS, on_this_rank

D, WIDE = 12, 40  # fewer and more coordinates than the 24 rows of the batch
MEAN = 3000.0  # standard deviations
KS = (1, 5, 20, 50)

REGULARIZERS = {
    "variance": lambda: sj.VarianceFloor(3.0),
    "floors": lambda: sj.SpectralFloors(log_det=3.0, participation=0.99, top_share=0.1, proj_dim=5),
    "full": lambda: sj.ParticipationRatioFloor(0.99, proj_dim=None),
    "full_corrected": lambda: sj.ParticipationRatioFloor(0.99, proj_dim=None, bias_correction=True),
    "vicreg": lambda: sj.VICReg(floor=3.0),
    "barlow": sj.BarlowTwins,
    "coding_rate": sj.CodingRate,
    "mmd": sj.MMD,
    "sliced_mmd": lambda: sj.SlicedMMD(slices=7),
}


def batch(dim, mean):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, 24, dim, generator=generator) + mean + torch.randn(dim, generator=generator)).float()


def run(name, dim, mean, dtype, rank, world):
    """The value, and the gradient at this rank's rows; with several ranks the average over them, as under DDP."""
    x = batch(dim, mean).to(dtype).split(SHARDS[world], 1)[rank].clone().requires_grad_()
    value = REGULARIZERS[name]()(x)
    value.backward()
    return value.detach(), x.grad / world


def of_the_second_rank(name, rank):
    """The value, and this rank's gradient, if the first rank has no samples and contributes a row times zero."""
    x = batch(WIDE, 0.0).double()[0, : 24 if rank else 1].clone().requires_grad_()  # without leading dimensions
    sums, finish = REGULARIZERS[name]().reduction(x, Ranks(empty=rank == 0))
    value = finish(Ranks().sum([rank * part for part in sums])).value
    value.backward()
    return value.detach(), x.grad / 2


def labelled(rows=400, test=60, dim=16, classes=9):
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(classes, dim, generator=generator)
    y = torch.randint(classes, (rows + test,), generator=generator)
    x = (centres[y] + 1.5 * torch.randn(rows + test, dim, generator=generator)).double()
    return x[:rows], y[:rows], x[rows:], y[rows:]


def evaluations(data, group):
    """Of training rows of this rank and the test rows of all."""
    train = data[0]
    probe = evaluation.linear_probe(*data, epochs=3, batch_size=64, lr=1e-2, process_group=group)
    spectrum = [evaluation.spectrum(train, samples=n, process_group=group) for n in (150, 1000)]
    return {
        "knn": evaluation.knn_sweep(*data, ks=KS, chunk_size=25, process_group=group),
        "probe": (probe.top1, probe.top5, [p.detach() for p in probe.head.parameters()]),
        "spectrum": [(x.eigenvalues, x.effective_rank, x.participation_ratio) for x in spectrum],
        "uniformity": evaluation.uniformity(train, process_group=group),
    }


def main(rank, world):
    results = {
        (name, dim, mean, str(dtype)): run(name, dim, mean, dtype, rank, world)
        for name in REGULARIZERS
        for dim in (D, WIDE)
        for mean, dtype in ((0.0, torch.float64), (MEAN, torch.float32))
    }
    if world == 2:
        results["empty"] = {name: of_the_second_rank(name, rank) for name in ("full", "vicreg", "coding_rate", "mmd")}
    pairs._ENTRIES = 50  # two rows at a time
    results["blocks"] = run("mmd", D, 0.0, torch.float64, rank, world)

    train, labels, test, test_labels = labelled()
    sizes = [5, *[395 // (world - 1)] * (world - 2)]  # the first has fewer rows than neighbours are asked for
    sizes.append(400 - sum(sizes))
    mine = train.split(sizes)[rank], labels.split(sizes)[rank], test, test_labels
    results["evaluations"] = {
        k: [tuple(a) for a in x.values()] if k == "knn" else x for k, x in evaluations(mine, dist.group.WORLD).items()
    }

    calls, gather = [], dist.all_gather
    dist.all_gather = lambda parts, x, **kwargs: (calls.append(x.numel()), gather(parts, x, **kwargs))[1]
    run("mmd", D, 0.0, torch.float64, rank, world)
    dist.all_gather = gather
    results["numbers sent"] = calls

    x = batch(D, 0.0).double().split(SHARDS[world], 1)[rank]
    results["grad"] = torch.func.grad(sj.MMD())(x) / world
    return results


if __name__ == "__main__":
    on_this_rank(main)

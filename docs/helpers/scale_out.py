"""The page ``docs/scale-out.md``: bytes counted from the tensors that the objectives sum."""

from __future__ import annotations

import torch
from torch import nn

import symplectic_jepa as sj

GPUS = (8, 64, 512)
D = 1024  # of q and of p, the paper's
BATCH = 64  # images per rank; the sums do not depend on it, gathered samples do

TEXT = """# What a step moves between ranks

Generated from the code by `python -m docs.helpers.generate`; a test checks that it is current. Bytes are counted from
the tensors that the objectives sum, not measured on a network.

## The arithmetic

Every statistic of an objective is a function of sums over the batch. Each rank sums over its own samples. The sums of
all penalties and of the prediction loss travel as one float64 vector: **one all-reduce in the forward pass, and one in
the backward pass** for its gradient. The length of the vector depends on the state dimension and the settings, not on
the batch size or the number of ranks:

- budget: 1 number; variance floor: 2d; mean penalty: 2d; each with a count;
- spectral floors: k + k² for the first and second moments of the projected samples;
- SIGReg: 2·T·M per view, the sums of cosines and sines.

A bandwidth-optimal all-reduce of b bytes on W ranks sends and receives 2·(W − 1)/W·b per rank: {factors}.
So the objective's share of the traffic does not grow with the number of ranks.

{collectives}

The gradient all-reduce of `DistributedDataParallel` overlaps with the backward pass. The objective's two collectives
cannot, because the loss waits for them. They cost latency: two small collectives per step. SyncBatchNorm adds two per
normalisation layer (the encoder has {layers}: {norm_collectives} per step, {norm_bytes} in total).
If a step does not scale, look at SyncBatchNorm first, not at the objective.

`DistributedDataParallel` also broadcasts rank 0's buffers before every forward pass: {buffers} for this encoder, its
running statistics. With SyncBatchNorm they are equal on all ranks, and `broadcast_buffers=False` saves the broadcast.

## Penalties that move more

Other regularizers on the whole state `z` ({dim} coordinates, two views taken separately, {batch} images per rank), per
rank and step, forward and backward together. All but `BarlowTwins` need to know the number of samples on all ranks, so
each adds a small collective, which the host waits for.

- With at least as many samples as coordinates (here from {square} GPUs on), `VICReg`, `CodingRate` and the
  participation ratio of the full covariance sum a D × D matrix, in float64, in both passes. With fewer they gather the
  samples once, in the forward pass, and each rank computes the pairs of its own; `CodingRate` then gathers the products
  too.
- `BarlowTwins` always sums a D × D matrix.
- The MMDs always gather the samples, `SlicedMMD` only their {slices} projections, in float64. Each rank computes the
  kernel of its own samples with all, so its work grows with the number of ranks, not with the square of it.

{others}
"""


def page() -> str:
    """The page as markdown."""
    encoder = sj.PhaseSpaceTokenEncoder.resnet18(stem="cifar")
    hamjepa = sj.hamjepa_cifar100(sj.HamiltonianPredictor(sj.SeparableHamiltonian(D)))
    full_sigreg = sj.LeJEPAObjective(sj.sigreg_penalties(slices=1024, knots=17))
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    # Forward gathers mean, inverse standard deviation and count from every rank; backward sums two vectors per layer.
    norm_numbers = sum(4 * m.num_features + 1 for m in norms)
    return TEXT.format(
        factors=", ".join(f"{2 * (w - 1) / w:.2f}·b on {w} GPUs" for w in GPUS),
        collectives=_objectives(
            {
                "HamJEPA (CIFAR-100 preset)": (hamjepa, _bytes(encoder) + _bytes(hamjepa)),
                "SIGReg, M = 64, T = 9 (the paper's)": (sj.sigreg_baseline(), _bytes(encoder)),
                "SIGReg, M = 1024, T = 17": (full_sigreg, _bytes(encoder)),
            }
        ),
        layers=len(norms),
        norm_collectives=2 * len(norms),
        norm_bytes=_size(4 * norm_numbers),
        buffers=_size(sum(x.nbytes for x in encoder.buffers())),
        square=-(-2 * D // BATCH),
        slices=sj.SlicedMMD().slices,
        dim=2 * D,
        batch=BATCH,
        others=_others(),
    )


def _objectives(rows: dict[str, tuple[sj.objectives.Objective, int]]) -> str:
    ranks = " | ".join(f"objective / gradient, {w} GPUs" for w in GPUS)
    lines = [
        f"| objective | vector | gradient all-reduce | {ranks} | share |",
        "| --- | --- | --- |" + " --- |" * (len(GPUS) + 1),
    ]
    parts, ranks = sj.objectives.StateParts(torch.randn(2, BATCH, 2 * D)), sj.regularizers.Ranks()
    for name, (objective, gradient) in rows.items():
        # Count and sum of the prediction loss, plus the sums of the penalties.
        numbers = 2 + sum(x.numel() for p in objective.penalties.values() for x in p.reduction(parts, ranks).sums)
        each = 8 * numbers
        cells = [f"{_size(2 * each * 2 * (w - 1) / w)} / {_size(gradient * 2 * (w - 1) / w)}" for w in GPUS]
        lines.append(
            f"| {name} | 2 × {_size(each)} | {_size(gradient)} | {' | '.join(cells)} | {2 * each / gradient:.1%} |"
        )
    return "\n".join(lines)


def _others() -> str:
    lines = [f"| regularizer | {' | '.join(f'{w} GPUs' for w in GPUS)} |", "| --- |" + " --- |" * len(GPUS)]
    rows = {
        "`VICReg`": (sj.VICReg(), False),
        "`BarlowTwins`": (sj.BarlowTwins(), None),
        "`CodingRate`": (sj.CodingRate(), True),
        "`ParticipationRatioFloor(proj_dim=None)`": (sj.ParticipationRatioFloor(proj_dim=None), False),
    }
    for name, (module, products) in rows.items():
        lines.append(f"| {name} | {' | '.join(_size(_matrix_or_pairs(module, products, w)) for w in GPUS)} |")
    for name, numbers, size in (("MMD", 2 * D, 4), ("SlicedMMD", sj.SlicedMMD().slices, 8)):
        lines.append(f"| `{name}` | {' | '.join(_size(_gathered(numbers, size, w)) for w in GPUS)} |")
    return "\n".join(lines)


def _matrix_or_pairs(module: sj.regularizers.BatchRegularizer, products: bool | None, ranks: int) -> float:
    """Bytes of a D × D matrix, or of the samples and, if ``products``, their products; None: always the matrix."""
    samples = BATCH * ranks
    if products is not None and samples < 2 * D:
        return _gathered(2 * D, 4, ranks) + (_gathered(samples, 8, ranks) if products else 0)
    # On one rank the floor sums nothing; its sums over several are those of VICReg.
    counted = sj.VICReg() if isinstance(module, sj.ParticipationRatioFloor) else module
    sums = counted.reduction(torch.empty(2, 2 * D, 2 * D, device="meta"), sj.regularizers.Ranks()).sums
    return 2 * 8 * sum(x.numel() for x in sums) * 2 * (ranks - 1) / ranks


def _gathered(numbers: int, size: int, ranks: int) -> float:
    """Bytes that a rank receives of the others' samples, two views of ``numbers`` each; there is no backward pass."""
    return 2 * BATCH * (ranks - 1) * numbers * size


def _bytes(module: nn.Module) -> int:
    return 4 * sum(p.numel() for p in module.parameters())


def _size(count: float) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= 0.9 * factor:  # never four digits
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"

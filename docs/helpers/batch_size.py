"""The table of ``method.md`` that shows how the statistics of the floors depend on the batch size."""

from __future__ import annotations

import warnings

import torch

import symplectic_jepa as sj

PAIRS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
D, DRAWS = 384, 4
HINGES = {"log_det": 0.0, "participation": 1.0, "top_share": 0.0}
COLUMNS = ("B", "log_det", "corrected", "participation", "corrected", "top_share")


def table() -> str:
    """What `SpectralFloors` measures of unit Gaussian states in 384 dimensions, as markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|", *map(_row, PAIRS)]
    return "\n".join(lines)


def _row(pairs: int) -> str:
    x = torch.randn(DRAWS, 2 * pairs, D, generator=torch.Generator().manual_seed(pairs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a small batch
        plain, corrected = (
            sj.SpectralFloors(**HINGES, bias_correction=correct).measure(x)[1] for correct in (False, True)
        )
    levels = [x[name].item() for name in ("log_det", "participation") for x in (plain, corrected)]
    cells = [f"{round(x, 2) + 0:.2f}" for x in levels]  # + 0 turns -0.00 into 0.00
    return f"| {pairs} | {' | '.join(cells)} | {plain['top_share'].item():.3f} |"

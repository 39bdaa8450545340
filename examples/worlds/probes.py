"""Reads physical quantities from states: a linear probe and a small MLP."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Probe = Callable[[Tensor], Tensor]  # states (..., 2d) to quantities (..., n)


def fit_linear(states: Tensor, targets: Tensor) -> Probe:
    """Least squares with an offset: states ``(N, 2d)``, targets ``(N, n)``."""
    weights = torch.linalg.lstsq(_with_one(states.double()), targets.double()).solution.float()
    return lambda z: _with_one(z) @ weights


def fit_mlp(states: Tensor, targets: Tensor, *, steps: int = 1500, batch: int = 512, seed: int = 0) -> Probe:
    """An MLP of two layers of 128, trained on standardised states and targets by Adam with a cosine decay."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        n, m = states.shape[-1], targets.shape[-1]
        mlp = nn.Sequential(nn.Linear(n, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, m))
        (shift, scale), (mean, std) = (_moments(x) for x in (states, targets))
        x, y = (states - shift) / scale, (targets - mean) / std
        regress(mlp, x, lambda index: y[index], steps=steps, batch=batch, lr=3e-3)
    mlp.requires_grad_(False)
    return lambda z: mlp((z - shift) / scale) * std + mean


def regress(
    network: nn.Module, inputs: Tensor, targets: Callable[[Tensor], Tensor], *, steps: int, batch: int, lr: float
) -> None:
    """Minimise the squared error of ``network(inputs[index]) − targets(index)`` by Adam with a cosine decay."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        index = torch.randint(len(inputs), (batch,))
        loss = (network(inputs[index]) - targets(index)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def r_squared(probe: Probe, states: Tensor, targets: Tensor) -> Tensor:
    """``1 − Σ(probe − target)² / Σ(target − mean)²`` for every quantity, ``(n,)``."""
    miss = (probe(states) - targets).square().sum(0)
    return 1 - miss / (targets - targets.mean(0)).square().sum(0)


def _with_one(z: Tensor) -> Tensor:
    return torch.cat((z, torch.ones_like(z[..., :1])), -1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(0), x.std(0).clamp_min(1e-6)

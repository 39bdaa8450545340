"""Training of a world model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from examples.worlds.episodes import Episodes
from examples.worlds.models import WorldModel


def train(model: WorldModel, episodes: Episodes, *, steps: int, batch: int, lr: float, seed: int) -> list[float]:
    """Train by AdamW with a linear warm-up and a cosine decay; return the prediction loss of every step."""
    generator = torch.Generator().manual_seed(seed)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, steps))
    count, log = episodes.frames.shape[1], []
    model.train()
    for _ in range(steps):
        index = torch.randint(count, (batch,), generator=generator)
        states = model.encode(episodes.frames[:, index])
        loss, terms = model.objective(states, episodes.actions[1:, index])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        log.append(terms["prediction"])
    model.eval()
    values: Tensor = torch.stack(log)
    if not values.isfinite().all():
        raise SystemExit(f"the loss is not finite from step {int((~values.isfinite()).nonzero()[0])} on")
    return values.tolist()


def _factor(step: int, steps: int) -> float:
    warmup = max(1, steps // 20)
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))

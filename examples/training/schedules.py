"""Learning rates and warm-ups as functions of the step, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

import torch

import symplectic_jepa as sj
from examples.recipe.sections import Optim, Predictor


class Schedules:
    """The schedules of one run; ``apply`` sets their values."""

    def __init__(self, optim: Optim, predictor: Predictor, *, epochs: int, steps_per_epoch: int) -> None:
        self.optim, self.predictor = optim, predictor
        self.steps_per_epoch, self.total = steps_per_epoch, epochs * steps_per_epoch

    def due(self, step: int, every: int, steps: int | None = None) -> bool:
        """Whether ``step`` steps end the run, are a multiple of ``every`` epochs, or a multiple of ``steps``."""
        periods = [every * self.steps_per_epoch, *([steps] if steps else [])]
        return step == self.total or (step > 0 and any(step % period == 0 for period in periods))

    def lr_factor(self, step: int) -> float:
        """Linear warm-up, then cosine decay, updated every step; ``step`` counts from 0."""
        o = self.optim
        warmup = min(o.warmup_epochs * self.steps_per_epoch, self.total)
        if step < warmup:
            return o.warmup_factor + (1 - o.warmup_factor) * step / warmup
        progress = (step - warmup) / max(1, self.total - 1 - warmup)
        return o.final_factor + (1 - o.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    def apply(self, step: int, optimizer: torch.optim.Optimizer, objective: sj.objectives.Objective) -> None:
        for group in optimizer.param_groups:
            group["lr"].fill_(group["base_lr"] * self.lr_factor(step))
        if step % self.steps_per_epoch:
            return
        epoch = step // self.steps_per_epoch + 1
        objective.set_regularizer_scale(_ramp(epoch, self.optim.regularizer_warmup_epochs))
        p = self.predictor
        objective.set_residual_scale(p.residual_scale * _ramp(epoch, p.residual_warmup_epochs))


def _ramp(epoch: int, epochs: int) -> float:
    return min(1.0, epoch / epochs) if epochs else 1.0

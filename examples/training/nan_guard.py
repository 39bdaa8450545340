"""Find the first value that is not finite, and keep it out of the checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NotFiniteError(SystemExit):
    """Training produced a value that is not finite."""


def check_state(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Stop before a checkpoint that could not be trained from. Unlike `FiniteGuard`, this reads the whole state.

    A weight may be bad while the loss is good: it was last updated after the loss was computed, or running statistics
    and moments are not part of it.

    Raises:
        NotFiniteError: naming the first of the tensors.
    """
    tensors = dict(model.state_dict())
    for name, parameter in model.named_parameters():
        moments = optimizer.state.get(parameter, {})
        tensors |= {f"optimizer's {key} of {name}": x for key, x in moments.items() if isinstance(x, Tensor)}
    refuse_not_finite(not_finite(tensors), step)


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors with NaN or infinity."""
    return [name for name, x in tensors.items() if not x.isfinite().all()]


def refuse_not_finite(bad: list[str], step: int) -> None:
    """Stop if there are such tensors after ``step`` steps.

    Raises:
        NotFiniteError: naming the first of them.
    """
    if bad:
        others = f" and {len(bad) - 1} other tensors" if bad[1:] else ""
        raise NotFiniteError(
            f"training stopped: {bad[0]}{others} not finite after step {step - 1}; not saved, any checkpoint is older"
        )


class FiniteGuard:
    """Records, on the device, the first step at which a loss, a term or the gradient norm is NaN or infinite."""

    def __init__(self, device: torch.device) -> None:
        self.first = torch.full((), -1, dtype=torch.int64, device=device)
        self.bad: Tensor | None = None
        self.names: list[str] = []

    def watch(self, step: int, values: dict[str, Tensor]) -> None:
        """Check the values of a step, scalars, without reading anything back."""
        self.names = list(values)
        # One pass over all: the terms hold every statistic, and a kernel for each would be launched at every step.
        bad = ~torch.stack([value.detach() for value in values.values()]).isfinite()
        new = (self.first < 0) & bad.any()
        self.bad = bad if self.bad is None else torch.where(new, bad, self.bad)
        self.first = torch.where(new, step, self.first)

    def check(self) -> None:
        """Stop if any value was not finite. This waits for the device.

        Raises:
            NotFiniteError: naming the step and the terms.
        """
        if self.bad is None or (step := int(self.first)) < 0:
            return
        terms = [name for name, bad in zip(self.names, self.bad.tolist(), strict=True) if bad]
        bad = ", ".join(terms)
        raise NotFiniteError(f"training stopped: {bad} not finite at step {step}; any checkpoint is from before that")

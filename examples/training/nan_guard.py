"""Find the first non-finite value without synchronising with the device at every step."""

from __future__ import annotations

import torch
from torch import Tensor


class NotFiniteError(SystemExit):
    """Training produced a value that is not finite."""


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

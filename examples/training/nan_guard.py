"""Find the first value that is not finite without waiting for the device at every step."""

from __future__ import annotations

import torch
from torch import Tensor


class NotFiniteError(SystemExit):
    """Training met a value that is not finite."""


class FiniteGuard:
    """Remembers on the device the first step at which a loss, a term or the gradient norm was NaN or infinite."""

    def __init__(self, device: torch.device) -> None:
        self.first = torch.full((), -1, dtype=torch.int64, device=device)
        self.bad: Tensor | None = None
        self.names: list[str] = []

    def watch(self, step: int, values: dict[str, Tensor]) -> None:
        """Note the values of a step; nothing is read back."""
        self.names = list(values)
        bad = torch.stack([~value.detach().isfinite().all() for value in values.values()])
        new = (self.first < 0) & bad.any()
        self.bad = bad if self.bad is None else torch.where(new, bad, self.bad)
        self.first = torch.where(new, step, self.first)

    def check(self) -> None:
        """Stop if anything was not finite (this waits for the device).

        Raises:
            NotFiniteError: naming the step and the terms.
        """
        if self.bad is None or (step := int(self.first)) < 0:
            return
        terms = [name for name, bad in zip(self.names, self.bad.tolist(), strict=True) if bad]
        raise NotFiniteError(
            f"training stopped: {', '.join(terms)} not finite at step {step}; a checkpoint, if there is one, is from "
            "before it"
        )

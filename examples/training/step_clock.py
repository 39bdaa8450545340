"""Measure where a step's time goes, without synchronising before the numbers are read."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from examples.model.build import JEPA


class StepClock:
    """Seconds between marks, by name: host time on a CPU, stream events on a GPU.

    Attached to an eager model, it splits ``train_step`` at the embeddings into ``encoder`` and ``objective``, each with
    its forward and backward pass. Otherwise it splits it into ``forward`` and ``backward``.
    """

    def __init__(self, device: torch.device) -> None:
        self.passes = ("forward", "backward")
        self.cuda = device.type == "cuda"
        self.on = False
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []

    def start(self) -> None:
        """Start measuring a step."""
        self.on, self._marks = True, []
        self.mark("")

    def mark(self, name: str) -> None:
        """Attribute the time since the last mark to ``name``."""
        if not self.on:
            return
        now: float | torch.cuda.Event = time.perf_counter()
        if self.cuda:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        self._marks.append((name, now))

    def stop(self) -> dict[str, float]:
        """Stop measuring and return seconds by name. This waits for the device."""
        self.on = False
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for (_, a), (name, b) in zip(self._marks, self._marks[1:], strict=False):
            span = b - a if isinstance(b, float) and isinstance(a, float) else a.elapsed_time(b) / 1000
            seconds[name] = seconds.get(name, 0.0) + span
        return seconds

    def attach(self, model: JEPA) -> None:
        """Mark the boundary between the model's encoder and its objective, forward and backward."""
        self.passes = ("objective", "encoder")

        def embedded(module: torch.nn.Module, inputs: tuple[Tensor, ...], embeddings: Tensor) -> None:
            self.mark("encoder")
            if self.on and embeddings.requires_grad:
                embeddings.register_hook(lambda _: self.mark("objective"))

        model.projector.register_forward_hook(embedded)

"""Being asked to end: SIGTERM and SIGUSR1 from a scheduler, SIGINT from Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from examples.system.ranks import Ranks

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))


class StoppedError(SystemExit):
    """The run was asked to end, and can be resumed. The exit code is 128 + the signal's number."""


def say(message: str) -> None:
    """Write a line to stderr; ``print`` must not be used in a signal's handler."""
    os.write(2, f"\n{message}\n".encode())


class Stop:
    """Notes a signal, so that the loop can end after the current step. A second Ctrl-C ends at once.

    Only the main thread can do so: in any other, signals have their usual effect.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.signal = ranks, 0
        self.before: dict[int, Any] = {}

    def asked(self, *, together: bool) -> bool:
        """Whether to end now. Several ranks agree, and only at a step where all of them pass ``together``."""
        if self.ranks.size == 1:
            return self.signal > 0
        if not together:
            return False
        number = torch.tensor(self.signal, device=self.ranks.device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        self.signal = int(number)
        return self.signal > 0

    def end(self, step: int, total: int, *, resumes: bool) -> StoppedError:
        """The error to raise when the run is saved; rank 0 says how to resume it."""
        if self.ranks.size > 1:
            dist.barrier()  # torchrun ends the others as soon as one has ended
        if self.ranks.main:
            name, again = signal.Signals(self.signal).name, "" if resumes else " with train.resume=true"
            say(f"stopped by {name} after step {step} of {total}, which is saved: repeat the command{again} to resume")
        return StoppedError(128 + self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # torchrun passes on the Ctrl-C that its processes also get from the terminal: one Ctrl-C, two signals.
        if number == self.signal == signal.SIGINT and not dist.is_torchelastic_launched():
            raise KeyboardInterrupt
        if self.ranks.main and number == signal.SIGINT:
            say("ending after this step; Ctrl-C again ends at once, without saving")
        self.signal = number

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.getsignal(number) for number in SIGNALS}
            for number, handler in self.before.items():
                if handler is not signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

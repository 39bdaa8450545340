"""Ctrl-C anywhere in a command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_on_ctrl_c(advice: str) -> Iterator[None]:
    """End on Ctrl-C with one line, of the first process only, that says what is saved and how to go on.

    Raises:
        SystemExit: with the exit code 130, in place of a KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            print(f"\nended by Ctrl-C: {advice}", file=sys.stderr, flush=True)
        raise SystemExit(128 + signal.SIGINT) from None

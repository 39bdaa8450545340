"""Processes that tests start, signal and wait for."""

import os
import subprocess
import sys
import time

from tests.helpers.paths import ROOT
from tests.helpers.runs import TINY, over


def started(command, **options):
    """A process with one thread, in the repository's root."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE, **options)


def training(out, *overrides, command="examples.train"):
    """``python -m examples.train`` on the small textures."""
    return started([sys.executable, "-m", command, "textures", *over(TINY, f"train.out={out}", *overrides)])


def wait_for(condition, process=None, seconds=240):
    """Until the condition holds, or fail when the process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(process):
    """Its exit code and stderr."""
    errors = process.communicate(timeout=300)[1]
    return process.returncode, errors

"""Kill a small run at every operation on its folder, and resume it: ``python -m tests.faults.kill_cases FOLDER``.

The runs are forks of one process, which has imported everything and drawn the data.
"""

import io
import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

import torch

from examples.images.datasets import load_data
from examples.system.files import load_checkpoint
from examples.system.ranks import Ranks
from examples.training.loop import train
from tests.helpers.runs import assert_same_run, tiny

ALONE = Ranks(0, 1, torch.device("cpu"))
SMALL = ("data.train_size=40", "data.test_size=20", "data.batch_size=20", "evaluation.every=1", "method=sigreg")
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove"}  # audit events; writes and fsync have none


class Torn:
    """A file, each of whose writes is two operations, one for each half."""

    def __init__(self, file, tick):
        self.file, self.tick = file, tick

    def write(self, data):
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.tick()
            self.file.write(half)
            self.file.flush()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()


def arm(folder, last):
    """From now on, the process dies before operation number ``last`` on the folder. Returns the list of operations."""
    done = []

    def tick(name):
        if len(done) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(name)

    def watched(path):
        path = "" if isinstance(path, int) else os.fsdecode(path)
        return Path(path).name if path.startswith(str(folder)) and "tensorboard" not in path else ""

    def audit(event, arguments):
        if event in WATCHED and (name := watched(arguments[0])):
            tick(f"{event} {name}")

    open_file, fsync = io.open, os.fsync

    def torn(path, mode="r", *args, **kwargs):
        file = open_file(path, mode, *args, **kwargs)
        name = watched(path)
        return Torn(file, lambda: tick(f"write {name}")) if name and mode[0] != "r" else file

    io.open, os.fsync = torn, lambda descriptor: (tick("fsync"), fsync(descriptor))
    sys.addaudithook(audit)
    return done


def forked(function, *args, **kwargs):
    """Call it in a process of its own, and return the exit code."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        function(*args, **kwargs)
    except BaseException as error:
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def main(folder):
    torch.set_num_threads(1)
    data = load_data(tiny(folder, *SMALL).data)
    whole = folder / "whole"

    def run(out, last=None, log=None):
        done = arm(out, last)
        train(tiny(out, *SMALL, "train.resume=true"), data, ALONE)
        if log:
            log.write_text(json.dumps(done))

    def operations(out):
        """Of a run in ``out``, which it finishes."""
        assert forked(run, out, log=folder / "operations.json") == 0
        return json.loads((folder / "operations.json").read_text())

    def resume(out):
        run(out)
        assert_same_run(whole, out)
        assert (out / "curves.jsonl").read_text() == (whole / "curves.jsonl").read_text()
        assert not list(out.glob("*.partial"))

    def step(out):
        path = out / "checkpoint.pt"
        return load_checkpoint(path, ALONE.device)["step"] if path.is_file() else 0

    steps, half = [], folder / "half"  # a folder with the first of two checkpoints
    for last, operation in enumerate(operations(whole)):
        out = folder / str(last)
        assert forked(run, out, last) == -signal.SIGKILL, f"not killed at {operation}"
        if not half.exists() and step(out):
            shutil.copytree(out, half)
        steps.append(step(out))
        assert forked(resume, out) == 0, f"not resumed after a kill at {operation}"
    resumed = [*operations(Path(shutil.copytree(half, folder / "resumed")))]
    resumed = resumed[: resumed.index("write metrics.jsonl")]
    for last, operation in enumerate(resumed):
        out = Path(shutil.copytree(half, folder / f"half-{last}"))
        assert forked(run, out, last) == -signal.SIGKILL, f"not killed at {operation} of a resumed run"
        assert step(out) == 2
        assert forked(resume, out) == 0, f"not resumed again after a kill at {operation}"
    print(json.dumps({"steps": steps, "resumed": resumed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

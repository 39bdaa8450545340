"""``examples.train`` with the faults in ``TODO``, a JSON object: ``python job_case.py RECIPE key=value …``."""

import json
import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from examples import train as command
from examples.training import loop
from examples.training.schedules import Schedules

TODO = json.loads(os.environ.get("TODO", "{}"))
apply, progress, prepared = Schedules.apply, loop.progress, loop.prepared


class BatchNorm(nn.BatchNorm2d):
    """With statistics of the global batch, also on CPUs; the shares must be of one size."""

    def forward(self, x):
        moments = _Mean.apply(torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]))
        mean, var = moments[0], moments[1] - moments[0].square()
        scale = (self.weight / (var + self.eps).sqrt())[:, None, None]
        return (x - mean[:, None, None]) * scale + self.bias[:, None, None]


class _Mean(torch.autograd.Function):
    """Over ranks, and its own adjoint."""

    @staticmethod
    def forward(ctx, x):
        if not dist.is_initialized():
            return x.clone()
        total = x.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx, grad):
        return _Mean.forward(None, grad)


def acts(self, step, *args):
    if "kill" in TODO and step == 5 and os.environ["RANK"] == "1" and not Path(TODO["kill"]).exists():
        Path(TODO["kill"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if "ask" in TODO and step == 4:
        os.kill(os.getpid(), signal.SIGUSR1)
    if "stall" in TODO and step == 2 and os.environ["RANK"] == "1":
        time.sleep(TODO["stall"])
    apply(self, step, *args)


def slow(*args):
    if os.environ.get("RANK") == "0":
        time.sleep(TODO.get("slow", 0))
    return progress(*args)


def synchronised(model, settings, mine):
    for module in model.encoder.modules():
        if type(module) is nn.BatchNorm2d and TODO.get("batchnorm") == "global":
            module.__class__ = BatchNorm
    return prepared(model, settings, mine)


if __name__ == "__main__":
    Schedules.apply, loop.progress, loop.prepared = acts, slow, synchronised
    command.main()

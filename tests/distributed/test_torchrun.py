"""The loop under torchrun, on two real processes."""

import json
import os
import subprocess
import sys

import torch

from tests.helpers.paths import ROOT
from tests.helpers.runs import TINY, logged, tiny, train, train_until


def torchrun(*overrides, target=("-m", "examples.train")):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *target]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    return subprocess.run(
        [*command, "textures", *TINY, *overrides],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_two_ranks_train_and_another_number_of_ranks_goes_on(tmp_path, monkeypatch):
    """The first epoch on one process, the second on two: same batches, same schedule, one log."""
    out = tmp_path / "run"
    train_until(tiny(out), 4, monkeypatch)
    result = torchrun(f"train.out={out}", "train.resume=true")
    assert result.returncode == 0, result.stderr[-3000:]
    lines = logged(out)
    assert [line["step"] for line in lines] == list(range(6))
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 6
    whole = tmp_path / "whole"
    train(tiny(whole))
    assert [line["lr"] for line in lines[3:]] == [line["lr"] for line in logged(whole)[3:]]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 6
    assert (out / "summary.png").is_file()


DYING = """
import os
from examples import train as command
from examples.training import loop
step_of = loop.train_step
def dies(*args, **kwargs):
    dies.steps += 1
    if dies.steps == 5 and os.environ["RANK"] == "1":
        os._exit(7)
    return step_of(*args, **kwargs)
dies.steps = 0
loop.train_step = dies
command.main()
"""


def test_a_rank_that_dies_ends_the_job_and_leaves_a_usable_checkpoint(tmp_path):
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    out = tmp_path / "run"
    result = torchrun(f"train.out={out}", target=[str(script)])
    assert result.returncode != 0
    assert "exitcode  : 7" in result.stderr
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 3
    resumed = torchrun(f"train.out={out}", "train.resume=true")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 6

"""Training with ``train.parallel=fsdp`` on real processes: its losses, its checkpoints, and any number of ranks."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.helpers.paths import ROOT
from tests.helpers.ranks import launch
from tests.helpers.runs import TINY, logged, over

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="FSDP2 of torch 2.6 does not run on CPUs"),
]

# Dies in the middle of a save, once the shards are written, or at a step.
DYING = """
import os, sys
from examples import train as command
from examples.system import sharded
from examples.training import loop
save, train_step = int(sys.argv.pop(1)), int(sys.argv.pop(1))
def dying(function, name, at):
    def counted(*args, **kwargs):
        counted.calls += 1
        if counted.calls == at and int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1:
            os._exit(7)
        return function(*args, **kwargs)
    counted.calls = 0
    return counted
sharded._sha256 = dying(sharded._sha256, "save", save)
loop.train_step = dying(loop.train_step, "step", train_step)
command.main()
"""


def run(ranks, out, *overrides, script=None, save=0, step=0):
    target = ["-m", "examples.train"] if script is None else [str(script), str(save), str(step)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    settings = over(TINY, "train.epochs=3", "train.precision=fp32", f"train.out={out}", *overrides)
    return subprocess.run(
        [sys.executable, *(launcher if ranks > 1 else ()), *target, "textures", *settings],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def checkpoints(out):
    return sorted(path.name for path in out.glob("*checkpoint*"))


def test_a_run_goes_on_with_other_ranks_after_a_kill_in_the_middle_of_a_save(tmp_path):
    script, out = tmp_path / "dying.py", tmp_path / "fsdp"
    script.write_text(DYING)
    died = run(2, out, "train.parallel=fsdp", script=script, save=2)  # the second checkpoint
    assert "exitcode  : 7" in died.stderr, died.stderr[-3000:]
    assert checkpoints(out) == [".checkpoint-6.partial", "checkpoint-3"]
    alone = run(1, out, "train.parallel=fsdp", "train.resume=true", script=script, step=5)  # its steps 3 … 6 are done
    assert alone.returncode == 7, alone.stderr[-3000:]
    assert checkpoints(out) == ["checkpoint-6"]
    done = run(3, out, "train.parallel=fsdp", "train.resume=true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert checkpoints(out) == ["checkpoint-9"]
    assert json.loads((out / "metrics.json").read_text())["steps"] == 9

    whole = tmp_path / "ddp"
    assert run(2, whole).returncode == 0
    found, expected = logged(out), logged(whole)
    assert [line["step"] for line in found] == list(range(9))
    assert [line["lr"] for line in found] == pytest.approx([line["lr"] for line in expected])
    for key in ("loss", "grad_norm"):  # the same as with DDP, while the ranks are the same
        assert [line[key] for line in found[:3]] == pytest.approx([line[key] for line in expected[:3]], rel=1e-4)


def test_a_resumed_run_of_as_many_ranks_is_the_uninterrupted_one(tmp_path):
    script, out, whole = tmp_path / "dying.py", tmp_path / "resumed", tmp_path / "whole"
    script.write_text(DYING)
    assert "exitcode  : 7" in run(2, out, "train.parallel=fsdp", script=script, step=5).stderr
    for folder in (out, whole):
        result = run(2, folder, "train.parallel=fsdp", "train.resume=true")
        assert result.returncode == 0, result.stderr[-3000:]
    assert logged(out) == logged(whole)
    metrics = [json.loads((folder / "metrics.json").read_text())["readouts"] for folder in (out, whole)]
    assert metrics[0] == metrics[1]


def test_two_ranks_save_what_one_loads_and_then_three(tmp_path):
    """Weights, buffers and moments, bit for bit; each rank holds a part of the weights."""
    before = None
    for world in (2, 1, 3):
        results = launch("sharded_case.py", world, tmp_path)
        for got in results:
            assert got["share"] == 1 if world == 1 else got["share"] < 0.75
        first = results[0]
        if before is not None:
            assert first["loaded"].keys() == before.keys()
            assert any(key.startswith("moments.") for key in before)
            for got in results:  # BatchNorm's statistics too, of which rank 0's were saved
                assert all(torch.equal(got["loaded"][key], before[key]) for key in before)
            assert any(not torch.equal(first["saved"][key], before[key]) for key in before)  # the step did something
        before = first["saved"]
    assert checkpoints(tmp_path) == ["checkpoint-3"]

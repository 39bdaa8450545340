"""The loop under torchrun, on two real processes."""

import json
import os
import subprocess
import sys

import pytest
import torch

from examples import evaluate as evaluate_command
from examples.measurement.features import evaluate
from tests.helpers.paths import ROOT
from tests.helpers.runs import TINY, logged, tiny, train, train_until


def torchrun(*overrides, target=("-m", "examples.train")):
    return on_two_ranks(*target, "textures", *TINY, *overrides)


def on_two_ranks(*target):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *target]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    return subprocess.run(
        command,
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


def test_an_evaluation_shared_by_two_ranks_is_that_of_one(tmp_path):
    """After training on two ranks, again on two, and on one; the curves are drawn by both too."""
    out = tmp_path / "run"
    result = torchrun(f"train.out={out}", "evaluation.every=1")
    assert result.returncode == 0, result.stderr[-3000:]
    curves = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    trained = json.loads((out / "metrics.json").read_text())
    result = on_two_ranks("-m", "examples.evaluate", str(out), "--chunk-size", "7")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("HamJEPA-q ") == 1  # rank 0 alone prints
    again = json.loads((out / "metrics.json").read_text())
    assert again == trained
    alone = evaluate(out)
    assert json.loads(json.dumps(alone)).keys() == again.keys()
    for name, row in alone["readouts"].items():
        found = again["readouts"][name]
        assert {str(k): v for k, v in row["knn"].items()} == found["knn"]
        assert found["linear"] == pytest.approx(row["linear"], abs=2.0)  # an image or two, by rounding
        for key in ("effective_rank", "participation_ratio", "cosine", "norm", "isotropy", "alignment", "uniformity"):
            assert found[key] == pytest.approx(row[key], rel=1e-4), key
        last = curves[-1]["readouts"][name.removeprefix("HamJEPA-")]
        assert last["knn"] == row["knn"]["20"]["top1"]
        assert last["effective_rank"] == pytest.approx(row["effective_rank"], rel=1e-4)


def test_an_evaluation_refuses_a_chunk_of_no_rows(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate", "run", "--chunk-size", "0"])
    with pytest.raises(SystemExit):
        evaluate_command.main()
    assert "--chunk-size: must be a whole number from 1 to 2147483647, got '0'" in capsys.readouterr().err


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

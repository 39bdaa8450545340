"""SIGTERM, SIGUSR1 and Ctrl-C: the step is finished, the run saved and resumed bit for bit."""

import importlib
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from examples import train as train_command
from examples.training import loop
from examples.training.schedules import Schedules
from examples.training.stop import StoppedError
from tests.helpers.processes import end, started, training, wait_for
from tests.helpers.runs import TINY, assert_same_run, logged, over, tiny, train

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Warm-ups of the penalties and the residual, evaluations, and a view's statistics that a resumed run must also find.
SETTINGS = ("evaluation.every=1", "optim.regularizer_warmup_epochs=2", "train.log_every=2")


def at(step, action, monkeypatch):
    """Do something before the computation of a step."""
    apply = Schedules.apply

    def acts(self, now, *args):
        if now == step:
            action()
        apply(self, now, *args)

    monkeypatch.setattr(Schedules, "apply", acts)


@pytest.mark.slow
def test_a_run_stopped_at_any_step_is_saved_at_that_step_and_resumes_bit_for_bit(tmp_path, monkeypatch, capfd):
    whole = tmp_path / "whole"
    train(tiny(whole, *SETTINGS))
    handlers = [signal.getsignal(number) for number in SIGNALS]
    for step in range(6):
        out, number = tmp_path / str(step), SIGNALS[step % 3]
        with monkeypatch.context() as patch:
            at(step, lambda number=number: os.kill(os.getpid(), number), patch)
            with pytest.raises(StoppedError) as stopped:
                train(tiny(out, *SETTINGS))
        assert stopped.value.code == 128 + number
        assert [signal.getsignal(number) for number in SIGNALS] == handlers
        assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == step + 1
        line = (
            f"stopped by {number.name} after step {step + 1} of 6, which is saved: repeat the command with train.resume"
        )
        assert line in capfd.readouterr().err
        torch.rand(7)
        train(tiny(out, *SETTINGS, "train.resume=true"))
        assert_same_run(whole, out)
        assert (out / "curves.jsonl").read_text() == (whole / "curves.jsonl").read_text()


def test_a_second_ctrl_c_ends_at_once_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    def twice():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)  # to this thread: two from outside at once may count as one

    at(4, twice, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(tmp_path))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3


def test_an_ignored_signal_stays_ignored(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        at(1, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)
        train(tiny(tmp_path, "train.epochs=1"))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(logged(tmp_path)) == 3


def test_a_run_outside_the_main_thread_leaves_signals_alone(tmp_path):
    seen = []
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: seen.append(train(tiny(tmp_path, "train.epochs=1"))))
    thread.start()
    thread.join()
    assert seen == [tmp_path]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_ends_with_its_signals_code_and_the_resumed_process_finishes(number, tmp_path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    settings = ("method=sigreg", "data.train_size=1280", "train.epochs=1")  # 40 steps
    process = training(out, *settings)
    wait_for(lambda: (out / "metrics.jsonl").is_file() and len(logged(out)) > 2, process)
    process.send_signal(number)
    code, errors = end(process)
    assert code == 128 + number
    assert f"stopped by {number.name} after step" in errors
    assert "Traceback" not in errors
    assert 2 < torch.load(out / "checkpoint.pt", weights_only=True)["step"] < 40, "not stopped half-way"
    code, errors = end(training(out, *settings, "train.resume=true"))
    assert code == 0, errors[-3000:]
    assert (out / "metrics.json").is_file()
    train(tiny(whole, *settings))
    assert_same_run(whole, out)


ONE_OF_TWO = """
import os, signal
from examples import train as command
from examples.training.schedules import Schedules
apply = Schedules.apply
def acts(self, step, *args):
    if step == 4 and os.environ["RANK"] == "1" and os.environ.get("ASKED"):
        os.kill(os.getpid(), signal.SIGTERM)
    apply(self, step, *args)
Schedules.apply = acts
command.main()
"""


@pytest.mark.slow
def test_several_ranks_agree_on_the_step_when_one_is_asked(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(ONE_OF_TWO)

    def run(out, *overrides):
        settings = over(TINY, "method=sigreg", "train.epochs=3", "train.log_every=3", f"train.out={out}", *overrides)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        return end(started([*launcher, str(script), "textures", *settings], stdout=subprocess.DEVNULL))

    whole, out = tmp_path / "whole", tmp_path / "run"
    code, errors = run(whole)
    assert code == 0, errors[-3000:]
    monkeypatch.setenv("ASKED", "1")
    code, errors = run(out)
    assert code != 0
    assert "stopped by SIGTERM after step 7 of 9" in errors  # steps 0, 3, 6 and the last are logged
    assert "exitcode  : 143" in errors
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 7
    code, errors = run(out, "train.resume=true")
    assert code == 0, errors[-3000:]
    assert_same_run(whole, out)


ENDED = {
    "train textures": ("load_data", "any checkpoint is kept; repeat the command with train.resume=true to go on"),
    "evaluate {run}": ("run_recipe", "the run is kept; repeat the command to evaluate it"),
    "compare textures --out {run}": ("compare", "finished runs and checkpoints are kept; repeat the command to go on"),
    "reproduce textures --out {run}": (
        "reproduce",
        "finished cells and checkpoints are kept; repeat the command to go on",
    ),
    "demo": ("compare", "finished runs and checkpoints are kept; repeat the command to go on"),
    "export {run} --to {run}": ("export", "the run is kept; repeat the command to export it"),
}


@pytest.mark.parametrize("line", ENDED)
def test_ctrl_c_outside_the_training_ends_a_command_with_one_line(line, tmp_path, monkeypatch, capfd):
    name, *arguments = line.format(run=tmp_path / "run").split()
    part, advice = ENDED[line]
    command = importlib.import_module(f"examples.{name}")
    monkeypatch.setattr(command, part, lambda *a: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(sys, "argv", [name, *arguments, *([f"train.out={tmp_path}/x"] if name == "train" else [])])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 130
    assert capfd.readouterr().err == f"\nended by Ctrl-C: {advice}\n"


@pytest.mark.parametrize("when", ["before", "twice", "after"])
def test_a_training_that_ctrl_c_ends_at_once_keeps_its_checkpoint_and_goes_on(when, tmp_path, monkeypatch, capfd):
    out, whole, settings = tmp_path / "run", tmp_path / "whole", ("method=sigreg", "train.device=cpu")
    train(tiny(whole, *settings))

    def interrupt(*args, **kwargs):
        for _ in range(1 + (when == "twice")):
            signal.raise_signal(signal.SIGINT)

    def command(*more):
        monkeypatch.setattr(sys, "argv", ["train", "textures", *over(TINY, *settings, f"train.out={out}", *more)])
        train_command.main()

    with monkeypatch.context() as patch:
        if when == "twice":
            at(4, interrupt, patch)
        else:
            patch.setattr(*((loop, "open_run") if when == "before" else (train_command, "evaluate")), interrupt)
        with pytest.raises(SystemExit) as ended:
            command()
    assert ended.value.code == 130
    assert capfd.readouterr().err.endswith(
        "\nended by Ctrl-C: any checkpoint is kept; repeat the command with train.resume=true to go on\n"
    )
    assert (out / "checkpoint.pt").is_file() == (when != "before")
    command("train.resume=true")
    assert_same_run(whole, out)
    assert (out / "metrics.json").is_file()

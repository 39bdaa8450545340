"""Two processes and one folder."""

import os
import re
import signal
import subprocess
import sys

import pytest

from examples import evaluate, reproduce
from examples.paper import compare as comparison
from examples.system.lock import LOCK, locked
from tests.helpers.processes import end, started, training, wait_for
from tests.helpers.runs import TINY, logged, tiny, train

HOLDS = "import sys, pathlib; from examples.system.lock import locked\nwith locked(pathlib.Path(sys.argv[1])): input()"


@pytest.fixture
def holder():
    """``holder(folder)``: a process that holds it."""
    processes = []

    def start(folder):
        process = started([sys.executable, "-c", HOLDS, str(folder)], stdin=subprocess.PIPE)
        processes.append(process)
        lock, owner = folder / LOCK, f"process {process.pid} on "  # not the lock of an earlier owner
        wait_for(lambda: lock.is_file() and lock.read_text().startswith(owner), process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_every_command_refuses_a_folder_that_another_process_holds(tmp_path, holder, monkeypatch):
    run, study, all_methods = tmp_path / "run", tmp_path / "study", tmp_path / "all"
    train(tiny(run, "train.epochs=1"))
    cell = study / "textures" / "sigreg-s42"
    pid = {folder: holder(folder).pid for folder in (run, cell, all_methods)}
    (run / "metrics.json").write_text("theirs")

    def refused(folder):
        return pytest.raises(
            SystemExit, match=rf"{folder} is in use by process {pid[folder]} on .*: wait until it ends"
        )

    with refused(run):
        train(tiny(run, "train.epochs=1", "train.resume=true"))
    monkeypatch.setattr(sys, "argv", ["evaluate", str(run)])
    with refused(run):
        evaluate.main()
    small = ["data.train_size=96", "data.test_size=40", "data.batch_size=32", "train.epochs=1", "evaluation.ks=[1,20]"]
    monkeypatch.setattr(
        sys, "argv", ["reproduce", "textures", "--only", "textures/sigreg-s42", "--out", str(study), *small]
    )
    with refused(cell):
        reproduce.main()
    with refused(all_methods):
        comparison.compare("textures", TINY, all_methods)
    assert (run / "metrics.json").read_text() == "theirs"
    assert os.listdir(cell) == [LOCK]


@pytest.mark.slow
def test_of_two_runs_started_together_one_trains_and_one_is_refused(tmp_path):
    pair = [training(tmp_path, "method=sigreg", "train.epochs=1000") for _ in range(2)]
    wait_for(lambda: any(process.poll() is not None for process in pair))
    refused, trains = sorted(pair, key=lambda process: process.poll() is None)
    code, errors = end(refused)
    assert code == 1
    # The first may not have written its name yet.
    assert re.search(rf"{tmp_path} is in use by (process {trains.pid} on|another process)", errors)
    wait_for(lambda: (tmp_path / "metrics.jsonl").is_file() and len(logged(tmp_path)) > 5, trains)
    trains.send_signal(signal.SIGTERM)
    assert end(trains)[0] == 143
    steps = [line["step"] for line in logged(tmp_path)]
    assert steps == list(range(len(steps)))


def test_the_lock_ends_with_a_killed_process_and_its_temporary_files_are_removed(tmp_path, holder):
    process = holder(tmp_path)
    left = tmp_path / ".checkpoint.pt.0123456789abcdef.partial"
    left.write_bytes(b"half")
    theirs = [".notes.partial", ".notes.0123.partial", ".notes.0123456789ABCDEF.partial", "a.0123456789abcdef.partial"]
    for name in theirs:
        (tmp_path / name).write_text("precious")
    with pytest.raises(SystemExit, match="in use"), locked(tmp_path):
        pass
    assert left.exists()  # perhaps being written
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path), locked(tmp_path):
        assert sorted(os.listdir(tmp_path)) == sorted([LOCK, *theirs])
        holding = (tmp_path / LOCK).read_text()
    assert holding.startswith(f"process {os.getpid()} on ")


def test_a_lock_that_is_a_link_is_not_followed_and_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(SystemExit, match=rf"{tmp_path} cannot be written to: Too many levels of symbolic links"):
        locked(tmp_path).__enter__()
    assert (tmp_path / "victim").read_text() == "precious"
    with pytest.raises(SystemExit, match=r"victim cannot be written to: File exists"):
        locked(tmp_path / "victim").__enter__()

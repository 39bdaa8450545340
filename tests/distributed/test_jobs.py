"""The study as a job of several processes: tasks of srun, restarts, no common disk, slow evaluations."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples.system.launcher import first_host, refuse_several, several
from tests.helpers.paths import ROOT
from tests.helpers.runs import TINY, assert_same_run, logged, over

CASE = str(Path(__file__).parent / "job_case.py")
SETTINGS = over(TINY, "method=sigreg", "train.device=cpu", "train.out=run", "train.log_every=2")
STEP = {"SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "2", "SLURM_STEP_NODELIST": "gpu[03-05,7],login1"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def run(commands, folders, *, todo=(), variables=({}, {})):
    """Processes in folders of their own, as on machines that share no disk; each one's exit code and stderr."""
    processes = []
    for command, folder, own in zip(commands, folders, variables, strict=True):
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}", "TODO": json.dumps(dict(todo)), **own}
        options = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen([sys.executable, *command], text=True, **options))
    try:
        errors = [process.communicate(timeout=400)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, errors, strict=True)]


def srun(folders, *overrides, todo=(), others=()):
    """Tasks as `srun` starts them, one per folder; rank 1 and higher have other settings, perhaps."""
    shared = {"SLURM_NTASKS": str(len(folders)), "SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": free_port()}
    variables = [{**shared, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(len(folders))]
    commands = [[CASE, "textures", *over(SETTINGS, *overrides, *(others if i else ()))] for i in range(len(folders))]
    return run(commands, folders, todo=todo, variables=variables)


def torchrun(folders, *overrides, todo=(), restarts=0):
    """One agent per folder, with two ranks in all."""
    options = ["--nnodes", str(len(folders)), "--nproc-per-node", str(2 // len(folders)), "--master-port", free_port()]
    options += ["--master-addr", "127.0.0.1", "--max-restarts", str(restarts)]
    commands = [
        ["-m", "torch.distributed.run", *options, "--node-rank", str(i), CASE, "textures", *over(SETTINGS, *overrides)]
        for i in range(len(folders))
    ]
    return run(commands, folders, todo=todo, variables=[{}] * len(folders))


def assert_finished(results):
    for code, errors in results:
        assert code == 0, errors[-4000:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of two tasks."""
    folders = [tmp_path_factory.mktemp(name) for name in "ab"]
    assert_finished(srun(folders))
    assert (folders[0] / "run" / "metrics.json").is_file()
    assert os.listdir(folders[1]) == []
    return folders[0] / "run"


def test_tasks_of_srun_have_torchs_variables():
    assert first_host(STEP["SLURM_STEP_NODELIST"]) == "gpu03"
    assert [first_host(x) for x in ("a", "a,b", "rack[1-2]node[3,5],c", "n[007]-ib")] == [
        "a",
        "a",
        "rack1node3",
        "n007-ib",
    ]
    task = {**STEP, "SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
    assert several(task)
    found = {key: task[key] for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")}
    assert found == {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu03"}
    other = {**STEP, "SLURM_STEP_ID": "3", "SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
    assert several(other)
    assert 10_000 <= int(task["MASTER_PORT"]) < 30_000
    assert task["MASTER_PORT"] != other["MASTER_PORT"]
    given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    task = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", **given}
    assert several(task)
    assert (task["WORLD_SIZE"], task["MASTER_ADDR"], task["MASTER_PORT"]) == ("2", "10.0.0.1", "29500")
    under_torchrun = {**STEP, "SLURM_NTASKS": "8", "SLURM_PROCID": "3", "RANK": "5", "WORLD_SIZE": "9", **given}
    assert several(under_torchrun)
    assert under_torchrun["RANK"] == "5"


@pytest.mark.parametrize(
    "alone", [{}, {"SLURM_NTASKS": "8"}, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {"WORLD_SIZE": "1"}]
)
def test_a_single_process_is_alone(alone):
    before = dict(alone)
    assert not several(alone)
    assert alone == before


REFUSED = {
    "SLURM_NTASKS is 2, but this is not a task of srun": {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"},
    "Slurm's variables do not tell LOCAL_RANK, MASTER_PORT: set them": {
        "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a",
    },
    "OMPI_COMM_WORLD_SIZE is 2, but RANK is not set": {"OMPI_COMM_WORLD_SIZE": "2"},
    "WORLD_SIZE is 4, but RANK is not set": {"WORLD_SIZE": "4"},
    "RANK is 0, but MASTER_ADDR, MASTER_PORT not set": {"RANK": "0", "WORLD_SIZE": "2"},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_processes_that_would_not_know_of_each_other_are_refused(message):
    with pytest.raises(SystemExit, match=re.escape(message)):
        several(REFUSED[message])


def test_commands_for_one_process_refuse_several(monkeypatch):
    for key, value in {**STEP, "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(key, value)
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(key, "")
        monkeypatch.delenv(key)  # so that it is restored after the test
    with pytest.raises(SystemExit, match="a comparison runs in one process"):
        refuse_several("a comparison")


@pytest.mark.slow
def test_tasks_of_srun_stop_with_the_signals_code_and_go_on_without_a_common_disk(whole, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for code, errors in srun(folders, todo={"ask": True}):
        assert code == 128 + signal.SIGUSR1, errors[-4000:]
    assert torch.load(folders[0] / "run" / "checkpoint.pt", weights_only=True)["step"] == 5
    assert os.listdir(folders[1]) == []
    assert_finished(torchrun(folders, "train.resume=true"))  # two agents, one on each machine
    assert_same_run(whole, folders[0] / "run")
    assert os.listdir(folders[1]) == []


@pytest.mark.slow
def test_a_rank_with_other_settings_is_refused_by_name(tmp_path):
    results = srun([tmp_path / "a", tmp_path / "b"], others=["optim.lr=0.5"])
    assert results[0][0] == 1
    assert results[1][0] != 0  # it may be ended by the end of rank 0
    assert "every rank must have the same optim.lr, got 0.001 on rank 0 and 0.5 on rank 1" in results[0][1]
    assert "every rank" not in results[1][1]


@pytest.mark.slow
def test_a_killed_rank_is_restarted_from_the_last_steps_checkpoint(whole, tmp_path):
    settings = ("train.resume=true", "train.checkpoint_steps=2")
    ((code, errors),) = torchrun([tmp_path], *settings, todo={"kill": str(tmp_path / "killed")}, restarts=1)
    assert code == 0, errors[-4000:]
    assert (tmp_path / "killed").exists()
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_an_evaluation_may_take_longer_than_a_collective(whole, tmp_path):
    """The ranks may start some seconds apart, hence no shorter limit."""
    settings = ("train.timeout=15", "evaluation.every=2")
    assert_finished(srun([tmp_path / "a", tmp_path / "b"], *settings, todo={"slow": 20}))
    assert_same_run(whole, tmp_path / "a" / "run")


@pytest.mark.slow
def test_a_rank_that_does_not_join_a_collective_in_time_ends_the_job(tmp_path):
    ((code, errors), _) = srun([tmp_path / "a", tmp_path / "b"], "train.timeout=15", todo={"stall": 24})
    assert code not in (0, None)
    assert re.search("15000ms|timeout|timed out", errors)  # gloo has several words for it


@pytest.mark.slow
def test_with_batch_statistics_of_all_ranks_a_run_does_not_depend_on_their_number(tmp_path):
    """Images, their order and their views are the same: what differs is rounding, 1e-4, and BatchNorm without a GPU."""
    settings, losses = ("train.log_every=1", "train.epochs=1"), {}
    for size in (1, 2, 4):
        folders = [tmp_path / f"{size}-{rank}" for rank in range(size)]
        assert_finished(srun(folders, *settings, todo={"batchnorm": "global"}))
        losses[size] = torch.tensor([line["loss"] for line in logged(folders[0] / "run")])
    assert losses[1].shape == (3,)
    for size in (2, 4):
        torch.testing.assert_close(losses[size], losses[1], rtol=5e-4, atol=0)

"""The single-file examples: complete, short, and what they print is true."""

import ast
import itertools
import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

SCRIPTS = ["own_loop", "data_parallel", "masked_tokens"]


def run(folder, *command):
    """The printed lines of a command, run in a folder from which nothing of the repository can be imported."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *command]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.splitlines()


def table(lines, header):
    """The printed table whose first line starts with ``header``: that line and those below, up to a blank one."""
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    return list(itertools.takewhile(str.strip, lines[start:]))


def history(lines):
    """Each logged quantity over the epochs, by name."""
    names, *rows = map(str.split, table(lines, "epoch"))
    return dict(zip(names, zip(*(map(float, row) for row in rows), strict=True), strict=False))


def accuracies(lines):
    """Features to their accuracies in percent, kNN@20 and linear."""
    _, *rows = table(lines, "features")
    found = {row[:20].strip(): [float(x) for x in row[20:].split()] for row in rows}
    assert all(len(pair) == 2 and min(pair) >= 0 and max(pair) <= 100 for pair in found.values())
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_imports_only_what_pip_installed(name):
    text = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 120
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    modules |= {"." * node.level + (node.module or "") for node in imports if isinstance(node, ast.ImportFrom)}
    allowed = sys.stdlib_module_names | {"torch", "torchvision", "symplectic_jepa"}
    assert {module.partition(".")[0] for module in modules} <= allowed


@pytest.mark.slow
def test_your_own_loop_learns_and_saves_its_encoder(tmp_path):
    lines = run(tmp_path, ROOT / "examples/own_loop.py", "--epochs", "3", "--out", "encoder")
    loss, found = history(lines)["loss"], accuracies(lines)
    assert loss[-1] < loss[0]
    assert list(found) == ["raw pixels", "untrained encoder", "q", "p", "qp"]
    assert found["qp"][0] > max(found["raw pixels"][0], found["untrained encoder"][0]) + 10
    assert sorted(path.suffix for path in (tmp_path / "encoder").iterdir()) == [".json", ".safetensors"]


@pytest.mark.slow
def test_two_processes_start_as_one_does_and_learn(tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    lines = run(tmp_path, *launch, ROOT / "examples/data_parallel.py", "--epochs", "2")
    *_, difference = table(lines, "first step")
    assert all(float(x) < 1e-5 for x in difference.split()[-2:])
    loss, found = history(lines)["loss"], accuracies(lines)
    assert loss[-1] < loss[0]
    assert found["qp"][0] > max(found["raw pixels"][0], found["untrained encoder"][0]) + 10


@pytest.mark.slow
def test_masked_tokens_train_the_input_matrix_and_the_encoder(tmp_path):
    lines = run(tmp_path, ROOT / "examples/masked_tokens.py", "--epochs", "3")
    logged, found = history(lines), accuracies(lines)
    assert logged["loss"][-1] < logged["loss"][0]
    assert min(logged["|dL/dB|"]) > 0
    assert found["qp"][0] > max(found["raw pixels"][0], found["untrained encoder"][0]) + 10

"""A process killed at any moment."""

import json
import subprocess
import sys

import pytest

from tests.helpers.processes import started


@pytest.mark.slow
def test_a_run_killed_at_any_operation_on_its_folder_resumes_to_the_same_run(tmp_path):
    process = started([sys.executable, "-m", "tests.faults.kill_cases", str(tmp_path)], stdout=subprocess.PIPE)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    result = json.loads(output)
    assert result["steps"] == sorted(result["steps"])
    assert set(result["steps"]) == {0, 2, 4}
    assert len(result["steps"]) > 30
    assert {"fsync", "open curves.jsonl"} < set(result["resumed"])


SAVES = """
import io, os, signal, sys
import torch
from symplectic_jepa import ResidualMLPPredictor
from tests.faults.kill_cases import arm, forked
from pathlib import Path
folder = Path(sys.argv[1])
modules = {steps: ResidualMLPPredictor(2, hidden_dim=3, steps=steps) for steps in (5, 6)}
found, last, code = [], 0, -signal.SIGKILL
while code:
    out = folder / str(last)
    modules[5].save_pretrained(out)
    code = forked(lambda: (arm(out, last), modules[6].save_pretrained(out)))
    loaded = ResidualMLPPredictor.from_pretrained(out)
    assert torch.equal(loaded.residual[0].weight, modules[loaded.steps].residual[0].weight)
    found.append(loaded.steps)
    last += 1
assert code == 0
print(found)
"""


def test_save_pretrained_killed_at_any_operation_leaves_the_old_or_the_new_module(tmp_path):
    process = started([sys.executable, "-c", SAVES, str(tmp_path)], stdout=subprocess.PIPE)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    found = json.loads(output)
    assert found == sorted(found)
    assert found.count(5) > 8
    assert found[-1] == 6

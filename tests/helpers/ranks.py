"""Real processes on gloo for the tests of data parallelism."""

import os
import subprocess
import sys

import torch

from tests.helpers.paths import ROOT

CASES = ROOT / "tests" / "distributed"


def launch(script, world, folder):
    """Run a script on ``world`` gloo processes; return what each rank saved."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    outputs = [folder / f"{world}-{rank}.pt" for rank in range(world)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(CASES / script), str(folder / f"store{world}"), str(world), str(rank), str(out)],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank, out in enumerate(outputs)
    ]  # fmt: skip
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)[-4000:]
    return [torch.load(out, weights_only=True) for out in outputs]


def relative_error(a, b):
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()

"""What an editor and mypy see of a call."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

CALLS = """
import torch
import symplectic_jepa as sj

z = torch.randn(2, 8, 16)
predictor = sj.HamiltonianPredictor(sj.SeparableHamiltonian(8))
objective = sj.HamJEPAObjective(predictor)
reveal_type(objective(z))
reveal_type(objective(z).terms)
reveal_type(objective.predictor)
reveal_type(objective.p_weight)
reveal_type(predictor(z))
reveal_type(sj.SIGReg()(z))
reveal_type(sj.SIGReg().measure(z).statistics)
reveal_type(sj.Penalty(sj.SIGReg())(z))
sj.HamJEPAObjective(predictor, match="pq")
sj.ProjectedLogDetFloor(-1.5, proj_dims=3)
"""


@pytest.mark.slow
def test_calls_have_types_and_options_are_checked(tmp_path):
    script = tmp_path / "calls.py"
    script.write_text(CALLS)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(tmp_path), str(script)]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    revealed = re.findall(r'Revealed type is "(.*)"', result.stdout.replace("builtins.", "").replace("?", ""))
    assert [re.sub(r"[\w.]*\.(?=[A-Z])", "", name) for name in revealed] == [
        "tuple[Tensor, dict[str, Tensor], fallback=ObjectiveOutput]",
        "dict[str, Tensor]",
        "Predictor",
        "float",
        "Tensor",
        "Tensor",
        "dict[str, Tensor]",
        "Tensor",
    ]
    errors = [line for line in result.stdout.splitlines() if " error: " in line]
    assert len(errors) == 2, result.stdout
    assert "\"Literal['pq']\"; expected \"Literal['q', 'qp']\"" in errors[0]
    assert '"proj_dims"' in errors[1]

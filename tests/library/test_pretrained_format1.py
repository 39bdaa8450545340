"""Format 1, in folders that development versions wrote."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.pretrained import Pretrained
from tests.helpers.folders import call, scramble, settings
from tests.helpers.paths import ROOT

FORMAT_1 = ROOT / "tests" / "data" / "pretrained_v1"


def predict(name, module):
    x = torch.linspace(-1, 1, 2 * 24 * 8).reshape(2, 24, 8).sin()
    with torch.no_grad():
        if name.startswith("controlled"):
            return module.with_control(torch.tensor([0.3, -0.4])).force(x[..., :4])
        if name == "potential":
            return module(*x.chunk(2, -1))
        if name == "encoder":
            return module(torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8).cos())
        return call(module, x)


GIVEN = {
    "potential": lambda: {"potential": nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(-2))},
    "encoder": lambda: {"backbone": nn.Conv2d(3, 6, 4, 4)},
}


EXPECTED = json.loads((FORMAT_1 / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_format_1_is_read(name, tmp_path):
    given = GIVEN.get(name, dict)
    module = Pretrained.from_pretrained(FORMAT_1 / name, **given())
    for _ in range(2):
        y = predict(name, module).double()
        torch.testing.assert_close([y.sum().item(), y.square().sum().item()], EXPECTED[name], rtol=1e-5, atol=1e-5)
        shutil.copytree(FORMAT_1 / name, tmp_path, dirs_exist_ok=True)
        module.save_pretrained(tmp_path)  # over the old one, whose weights go
        assert len(list(tmp_path.iterdir())) == 2
        module = Pretrained.from_pretrained(tmp_path, **given())


def test_format_1_of_an_encoder_and_of_a_forward_objective(tmp_path):
    encoder = scramble(sj.PhaseSpaceTokenEncoder.resnet18(stem="imagenet", token_layer=2, token_channels=8, grid=2))
    shutil.copy(FORMAT_1 / "resnet18" / "config.json", tmp_path)
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path)
    assert torch.equal(loaded.backbone[0].weight, encoder.backbone[0].weight)
    assert loaded.config() | {"backbone": None} == encoder.config() | {"backbone": None}
    assert loaded.backbone.config() == encoder.backbone.config()
    for constructor in ("save_pretrained", "__init__", 3):
        config = {**settings(FORMAT_1 / "resnet18"), "constructor": constructor}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="which is not a constructor"):
            sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path)
    directions = [
        loaded.config().get("backward", "forward" if not getattr(loaded, "reverse_time", True) else "reverse")
        for loaded in (sj.HamJEPAObjective.from_pretrained(FORMAT_1 / n) for n in ("hamjepa", "hamjepa_forward"))
    ]
    assert directions == ["reverse", "forward"]

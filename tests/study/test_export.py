"""An exported encoder is the trained one, and its card states the run's numbers."""

import json

import pytest
import torch

import symplectic_jepa as sj
from examples.measurement.features import evaluate
from examples.measurement.model_card import export
from examples.model.build import build_model
from examples.recipe.schema import load_recipe
from tests.helpers.runs import tiny, train

RESNET = ["encoder.backbone=resnet18", "encoder.token_layer=2", "encoder.grid=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe = tiny(folder, *RESNET, "train.epochs=1", "data.validation=0.5")
    train(recipe)
    evaluate(folder)
    return folder


@pytest.mark.slow
def test_an_exported_encoder_gives_the_features_of_the_run(run, tmp_path):
    export(run, tmp_path / "encoder")
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path / "encoder")
    recipe = load_recipe("textures", RESNET)
    model = build_model(recipe, torch.Size((3, 32, 32)))
    model.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["model"])
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model.encoder.eval()(images))  # other memory format


@pytest.mark.slow
def test_the_card_states_the_runs_numbers(run, tmp_path):
    export(run, tmp_path / "encoder")
    text = (tmp_path / "encoder/README.md").read_text()
    row = json.loads((run / "metrics.json").read_text())["readouts"]["HamJEPA-q"]
    assert f"| HamJEPA-q | {row['dim']} | {row['knn']['20']['top1']:.2f} | {row['linear']['top1']:.2f} |" in text
    assert "1 epochs, 1 steps of 32 pairs, seed 42" in text
    assert "Evaluation on the validation images" in text
    assert text.startswith("---\nlicense: apache-2.0\n")
    for file in (tmp_path / "encoder").glob("*.*"):
        assert str(run.parent).encode() not in file.read_bytes()  # no path of one machine


@pytest.mark.slow
def test_what_cannot_be_exported_is_refused_by_name(run, tmp_path):
    with pytest.raises(SystemExit, match="has no metrics.json; first run: python -m examples.evaluate"):
        export(tmp_path, tmp_path / "encoder")
    train(tiny(tmp_path))
    evaluate(tmp_path)
    with pytest.raises(SystemExit, match=r"encoder\.backbone must be resnet18 to export a run, got small_cnn"):
        export(tmp_path, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()

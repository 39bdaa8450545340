"""Sharded checkpoints on one process: what is refused."""

import json

import pytest
import torch

from examples.measurement.features import evaluate
from examples.model.build import build_model
from examples.recipe.schema import load_recipe
from examples.system import sharded as files
from examples.training.nan_guard import NotFiniteError
from tests.helpers.runs import logged, tiny, train, train_until


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("sharded") / "whole"
    train(tiny(out, "train.parallel=fsdp"))
    return out


def test_a_process_alone_trains_and_resumes_as_without_shards(whole, tmp_path, monkeypatch):
    plain, out = tmp_path / "plain", tmp_path / "fsdp"
    train(tiny(plain))
    assert logged(plain) == logged(whole)
    train_until(tiny(out, "train.parallel=fsdp"), 4, monkeypatch)
    train(tiny(out, "train.parallel=fsdp", "train.resume=true"))
    assert logged(out) == logged(whole)
    assert evaluate(out)["readouts"] == evaluate(plain)["readouts"]


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "run.json"])
def test_a_damaged_file_is_named(tmp_path, name):
    out = tmp_path / "run"
    train(tiny(out, "train.parallel=fsdp"))
    path = out / "checkpoint-6" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=rf"{name} is missing or damaged"):
        train(tiny(out, "train.parallel=fsdp", "train.resume=true"))
    path.unlink()
    with pytest.raises(SystemExit, match=rf"{name} is missing or damaged"):
        evaluate(out)


def test_both_layouts_are_not_mixed_in_one_run(whole, tmp_path):
    with pytest.raises(SystemExit, match=r"these keys differ: train\.parallel"):
        train(tiny(whole, "train.resume=true"))
    with pytest.raises(SystemExit, match=r"already contains a run: set train\.resume=true"):
        train(tiny(whole, "train.parallel=fsdp"))


def test_a_checkpoint_of_another_model_is_refused(whole, tmp_path):
    tensors = dict(build_model(tiny(tmp_path, "encoder.token_channels=16"), torch.Size((3, 32, 32))).state_dict())
    with pytest.raises(SystemExit, match="does not fit this model"):
        files.fill(whole / "checkpoint-6", tensors)
    tensors = {name: torch.empty(1) for name in files.stored(whole / "checkpoint-6")}
    with pytest.raises(SystemExit, match="checkpoint-6 cannot be used: Size mismatch between saved"):
        files.fill(whole / "checkpoint-6", tensors)


def test_a_state_that_is_not_finite_is_neither_saved_nor_loaded(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("examples.training.sharded.not_finite", lambda tensors: [next(iter(tensors))])
        with pytest.raises(NotFiniteError, match=r"model\.encoder"):
            train(tiny(out, "train.parallel=fsdp"))
        assert not list(out.glob("*checkpoint*"))
    train(tiny(out, "train.parallel=fsdp", "train.resume=true"))
    folder = out / "checkpoint-6"
    tensors, info = files.read_shards(folder), files.read_info(folder)
    name = next(name for name in tensors if name.startswith("moments."))
    tensors[name].fill_(float("nan"))
    files.save_shards(out, tensors, {**info, "step": 5})
    assert not folder.exists()
    with pytest.raises(SystemExit, match="is not finite"):
        train(tiny(out, "train.parallel=fsdp", "train.resume=true"))


def test_a_full_disk_keeps_the_last_checkpoint(whole, monkeypatch):
    before = json.loads((whole / "checkpoint-6" / files.INFO).read_text())

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", full)
        with pytest.raises(SystemExit, match=r"checkpoint-7 cannot be written: .*No space left"):
            files.save_shards(whole, {"x": torch.ones(2)}, {"step": 7})
    assert files.last_checkpoint(whole).name == "checkpoint-6"
    assert json.loads((whole / "checkpoint-6" / files.INFO).read_text()) == before


def test_evaluations_during_training_need_whole_weights():
    with pytest.raises(SystemExit, match=r"evaluation\.every must be null with train\.parallel=fsdp"):
        load_recipe("textures", ["train.parallel=fsdp", "evaluation.every=1"])

"""The two files of a folder: they belong together, hold no code, and are replaced whole."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import symplectic_jepa as sj
from symplectic_jepa import _folder
from tests.helpers.cases import MAPS, D
from tests.helpers.folders import forge, scramble, settings, weights


def test_the_files_hold_numbers_only(tmp_path):
    sj.hamjepa_cifar100(MAPS["leapfrog"]()).save_pretrained(tmp_path)
    config = settings(tmp_path)
    assert (config["class"], config["version"], config["format"]) == ("HamJEPAObjective", sj.__version__, 2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", f"model-{config['weights'][:12]}.safetensors"]
    assert any(key.endswith("predictor.hamiltonian.output.weight") for key in load_file(weights(tmp_path)))


@pytest.mark.parametrize("name", ["os", "torch", "_checks", "leapfrog", "Floors2", "sigreg_baseline", 7, None])
def test_names_outside_of_the_library_are_refused(name, tmp_path):
    sj.VarianceFloor().save_pretrained(tmp_path)
    forge(tmp_path, {**settings(tmp_path), "class": name})
    with pytest.raises(ValueError, match=f"names {name!r}, which is not a module"):
        sj.VarianceFloor.from_pretrained(tmp_path)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        sj.VarianceFloor.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="must be a folder or a repository 'user/name', got '.*/nothing'"):
        sj.VarianceFloor.from_pretrained(tmp_path / "nothing")
    sj.VarianceFloor().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="holds a VarianceFloor, expected a SIGReg"):
        sj.SIGReg.from_pretrained(tmp_path)
    config = settings(tmp_path)
    for text, message in (
        ("{", r"config\.json is not JSON"),
        ("[" * 100_000, r"config\.json is not JSON"),
        ("[]", "must hold a 'class'"),
        (json.dumps({**config, "format": 3}), "must have format 1 or 2, got 3"),
        (json.dumps({**config, "arguments": {"floor": 9.0}}), "changed by hand: its checksum does not match"),
        (json.dumps({**config, "weights": "../secret"}), "checksum does not match"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            sj.VarianceFloor.from_pretrained(tmp_path)
    forge(tmp_path, {**config, "arguments": {"ceiling": 1.0}})
    with pytest.raises(TypeError, match="settings of VarianceFloor must be its constructor's arguments: .*'ceiling'"):
        sj.VarianceFloor.from_pretrained(tmp_path)
    predictor = sj.ResidualMLPPredictor(D)
    predictor.save_pretrained(tmp_path)
    config = settings(tmp_path)
    config["arguments"]["hidden_dim"] = 3
    forge(tmp_path, config)
    with pytest.raises(ValueError, match="size mismatch"):
        sj.ResidualMLPPredictor.from_pretrained(tmp_path)


def test_every_flipped_bit_is_noticed(tmp_path):
    module = sj.HamSIGReg(sj.geometries.RadialGeometry((2, 2), knots=3), seed=2)
    module.save_pretrained(tmp_path)
    expected = repr(module)
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        for bit in range(0, 8 * len(content), 7):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            try:
                loaded = sj.HamSIGReg.from_pretrained(tmp_path)
            except (ValueError, FileNotFoundError):
                continue
            assert file.name == "config.json"  # "e" for "E" in a number, which is the same number
            assert repr(loaded) == expected
        file.write_bytes(content)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    predictor = sj.ResidualMLPPredictor(2, hidden_dim=3)
    with torch.no_grad():
        predictor.residual[0].bias[1] = math.nan
    predictor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"residual\.0\.bias in .* holds NaN or infinity"):
        sj.ResidualMLPPredictor.from_pretrained(tmp_path)
    assert sj.ResidualMLPPredictor.from_pretrained(tmp_path, allow_nonfinite=True).residual[0].bias[1].isnan()


@pytest.mark.parametrize("cleans", [True, False], ids=["exception", "kill"])
def test_a_save_that_stops_anywhere_leaves_the_old_or_the_new_module(cleans, tmp_path, monkeypatch):
    """Every operation on the disk in turn is the last one; a killed process does not even remove its own files."""

    class Stop(BaseException):
        pass

    def count(function):
        def counted(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0 and (function.__name__ != "unlink" or not cleans):
                raise Stop
            return function(*args, **kwargs)

        return counted

    outcomes = set()
    for stop in range(16):
        folder = tmp_path / str(stop)
        old, new = sj.ResidualMLPPredictor(2, hidden_dim=3, steps=5), sj.ResidualMLPPredictor(2, hidden_dim=3, steps=6)
        old.save_pretrained(folder)
        left = stop
        with monkeypatch.context() as patch:
            for owner, name in ((_folder.os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "open")):
                patch.setattr(owner, name, count(getattr(owner, name)))
            try:
                new.save_pretrained(folder)
            except Stop:
                outcomes.add("stopped")
            else:
                outcomes.add("done")
        loaded = sj.ResidualMLPPredictor.from_pretrained(folder)
        expected = {5: old, 6: new}[loaded.steps]
        assert torch.equal(loaded.residual[0].weight, expected.residual[0].weight)
        outcomes.add(loaded.steps)
        if cleans:
            assert not list(folder.glob(".*"))
        new.save_pretrained(folder)
        assert sj.ResidualMLPPredictor.from_pretrained(folder).steps == 6
    assert outcomes == {"stopped", "done", 5, 6}


def test_a_second_process_that_saves_meanwhile_keeps_its_weights(tmp_path, monkeypatch):
    one, two = sj.ResidualMLPPredictor(2, hidden_dim=3), sj.ResidualMLPPredictor(2, hidden_dim=3)
    one.save_pretrained(tmp_path)
    replace = _folder._replace

    def replace_and_let_another_save(path, content):
        replace(path, content)
        if path.name == "config.json":
            monkeypatch.setattr(_folder, "_replace", replace)
            one.save_pretrained(tmp_path)

    monkeypatch.setattr(_folder, "_replace", replace_and_let_another_save)
    two.save_pretrained(tmp_path)  # which replaces what was there before, and that is there again
    loaded = sj.ResidualMLPPredictor.from_pretrained(tmp_path)
    assert torch.equal(loaded.residual[0].weight, one.residual[0].weight)


def test_temporary_files_follow_no_link_and_replace_nothing(tmp_path, monkeypatch):
    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr(_folder.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".config.json.guessed.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        sj.VarianceFloor().save_pretrained(tmp_path)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    ("module", "settings_"),
    [
        (lambda: sj.SeparableHamiltonian(4), {"dim": 4, "depth": 10**6}),
        (lambda: sj.SeparableHamiltonian(4), {"dim": 4, "depth": 10**18}),
        (lambda: sj.SeparableHamiltonian(4), {"dim": 4, "hidden_dim": 10**5}),
        (lambda: sj.SeparableHamiltonian(4), {"dim": 10**30}),
        (lambda: sj.ResidualMLPPredictor(4), {"dim": 4, "depth": 10**6}),
        (sj.SIGReg, {"knots": 10**10}),
        (lambda: sj.geometries.LaplacianGeometry(4), {"grid": {"tuple": [10**6, 10**6]}}),
        (lambda: sj.geometries.RadialGeometry(4), {"grid": 4, "knots": 10**10}),
    ],
)
def test_absurd_sizes_are_refused_before_they_are_built(module, settings_, tmp_path):
    module().save_pretrained(tmp_path)
    forge(tmp_path, {**settings(tmp_path), "arguments": settings_})
    with pytest.raises(ValueError, match=r"at most|more parameters than the file|cannot be built"):
        type(module()).from_pretrained(tmp_path)


def test_the_hub_there_and_back(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    calls = []

    def upload_folder(*, repo_id, folder_path, delete_patterns, **options):
        for old in (tmp_path / repo_id).glob(delete_patterns):
            old.unlink()
        shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}/{options['revision']}"

    def snapshot_download(repo_id, *, revision, allow_patterns):
        calls.append((repo_id, revision, allow_patterns))
        return str(tmp_path / repo_id)

    monkeypatch.setattr(hub, "create_repo", lambda *args, **options: calls.append((*args, options)))
    monkeypatch.setattr(hub, "upload_folder", upload_folder)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    for _ in range(2):
        predictor = scramble(sj.ResidualMLPPredictor(2, hidden_dim=3))
        assert predictor.push_to_hub("me/maps", private=True, revision="next") == "https://hub/me/maps/next"
    loaded = sj.predictors.Predictor.from_pretrained("me/maps", revision="abc")
    assert torch.equal(loaded.residual[0].weight, predictor.residual[0].weight)
    assert len(list((tmp_path / "me" / "maps").glob("*.safetensors"))) == 1
    assert calls == [
        *2 * [("me/maps", {"private": True, "exist_ok": True})],
        ("me/maps", "abc", ["config.json", "model*.safetensors"]),
    ]
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface-hub"):
        predictor.push_to_hub("me/maps")
    with pytest.raises(FileNotFoundError, match="must be a folder or a repository 'user/name', got 'me/maps'"):
        sj.predictors.Predictor.from_pretrained("me/maps")

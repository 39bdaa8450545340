"""Paths, settings and checkpoints that cannot be used are refused by name."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.pretrained import Pretrained
from tests.helpers.bad_values import HUGE
from tests.helpers.calls import CALLS
from tests.helpers.calls.fault import fault
from tests.helpers.folders import forge, settings

SAVED = {
    name: call
    for name, call in CALLS.items()
    if isinstance(call.function, type) and issubclass(call.function, Pretrained)
}
PATHS = {"None": None, "number": 3, "bytes": b"x", "list": [], "empty": "", "null": "a\0b", "no home": "~nobody-here/x"}
PARTS = (
    None, True, 3, -1.5, HUGE, "x", [], {}, [3], {"class": 3}, {"class": "os"}, {"class": "SIGReg"}, {"class": []},
    {"class": "SIGReg", "arguments": 3}, {"same": "x"}, {"same": []}, {"tensor": "x", "parameter": True}, {"tensor": 3},
    {"given": 3}, {"given": []}, {"tuple": 3}, {"tuple": None}, {"dict": []}, {"object": "os"}, {"object": []},
)  # fmt: skip
TIES = (3, None, "x", [1], {"a": "b"}, {"x.y": "output.weight"}, {"output.weight": 3}, {"forward": "output.weight"})


def plain(value):
    """Whether a value can stand in a JSON file as itself."""
    return value is None or isinstance(value, (int, float, str)) or (isinstance(value, list) and value == [1])


@pytest.mark.parametrize("call", SAVED.values(), ids=SAVED)
def test_settings_that_the_constructor_refuses(call, tmp_path):
    valid = {name: value for name, (value, _) in call.arguments.items()}
    call.function(**valid).save_pretrained(tmp_path)
    config = settings(tmp_path)
    parts = {name: value for name, value in valid.items() if name in ("backbone", "factor", "potential", "regularizer")}

    def load(**changed):
        forge(tmp_path, {**config, "arguments": {**config["arguments"], **changed}})
        return call.function.from_pretrained(tmp_path, **{k: x for k, x in parts.items() if k not in changed})

    bad = [(name, value) for name, (x, kind) in call.arguments.items() for value in kind(x).values()]
    faults = {name: (value, fault(load, {name: value}, name)) for name, value in bad if plain(value)}
    assert {name: found for name, found in faults.items() if found[1]} == {}


def test_settings_of_another_structure(tmp_path):
    predictor = sj.HamiltonianPredictor(sj.SeparableHamiltonian(4, hidden_dim=8), steps=3)
    sj.HamJEPAObjective(predictor, penalties={"a": sj.Penalty(sj.MeanPenalty(), on="q")}).save_pretrained(tmp_path)
    config = settings(tmp_path)

    def places(node, path=()):
        for key, value in node.items():
            yield *path, key
            if isinstance(value, dict):
                yield from places(value, (*path, key))

    for *path, last in [*places({k: config[k] for k in ("class", "arguments")})]:
        for part in PARTS:
            changed = copy.deepcopy(config)
            node = changed
            for key in path:
                node = node[key]
            if node[last] == part or (last in ("penalties", "dict") and part in (None, {})):  # as good
                continue
            node[last] = part
            forge(tmp_path, changed)
            with pytest.raises((ValueError, TypeError)):
                sj.HamJEPAObjective.from_pretrained(tmp_path)


@pytest.mark.parametrize("ties", TIES, ids=str)
def test_ties_to_nothing(ties, tmp_path):
    sj.SeparableHamiltonian(4, hidden_dim=8).save_pretrained(tmp_path)
    forge(tmp_path, {**settings(tmp_path), "ties": ties})
    with pytest.raises(ValueError, match="ties must fit the settings"):
        sj.SeparableHamiltonian.from_pretrained(tmp_path)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_what_is_not_a_path(path):
    def from_pretrained(source):  # positional only
        return sj.MeanPenalty.from_pretrained(source)

    assert fault(sj.MeanPenalty().save_pretrained, {"folder": path}, "folder") is None
    assert fault(from_pretrained, {"source": path}, "source") is None
    assert fault(sj.load_reference_checkpoint, {"path": path}, "path") is None


def test_paths_that_lead_to_something_else(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match=r"folder must be a folder, got the file .*file"):
        sj.MeanPenalty().save_pretrained(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        sj.MeanPenalty().save_pretrained(tmp_path / "file" / "below")
    for path in ("file", "nothing"):
        with pytest.raises(FileNotFoundError, match=f"source must be a folder or a repository.*{path}"):
            sj.MeanPenalty.from_pretrained(tmp_path / path)
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=f"path must be a file, got {path}"):
            sj.load_reference_checkpoint(path)


def test_a_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    sj.MeanPenalty().save_pretrained("~/saved")
    assert (tmp_path / "saved" / "config.json").is_file()
    assert isinstance(sj.MeanPenalty.from_pretrained(Path("~/saved")), sj.MeanPenalty)
    (tmp_path / "theirs.pt").write_text("x")
    with pytest.raises(ValueError, match=f"{tmp_path}/theirs.pt is not a checkpoint"):
        sj.load_reference_checkpoint("~/theirs.pt")


@pytest.mark.parametrize("value", [3, [], nn.ReLU], ids=str)
def test_arguments_of_the_hub(value, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # a value that gets through does not reach the network
    module = sj.MeanPenalty()
    module.save_pretrained(tmp_path)
    for name in ("repo_id", "revision", "private"):
        assert fault(module.push_to_hub, {"repo_id": "user/name", name: value}, name) is None
    for name in ("revision", "allow_nonfinite"):
        assert fault(lambda **given: sj.MeanPenalty.from_pretrained(tmp_path, **given), {name: value}, name) is None
    assert fault(module.push_to_hub, {"repo_id": "no such name"}, "repo_id") is None


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\3\4 and no more", bytes(range(100))], ids=["empty", "text", "zip", "bytes"]
)
def test_a_checkpoint_that_is_not_one(content, tmp_path):
    (tmp_path / "theirs.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"theirs\.pt is not a checkpoint"):
        sj.load_reference_checkpoint(tmp_path / "theirs.pt")


def test_a_checkpoint_cut_short(tmp_path):
    torch.save({"encoder": {"stem.0.weight": torch.randn(64, 3, 3, 3)}}, tmp_path / "theirs.pt")
    content = (tmp_path / "theirs.pt").read_bytes()
    for size in range(0, len(content), 500):
        (tmp_path / "theirs.pt").write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"theirs\.pt is not a checkpoint"):
            sj.load_reference_checkpoint(tmp_path / "theirs.pt")

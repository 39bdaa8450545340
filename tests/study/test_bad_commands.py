"""A table of bad command lines: each ends at once in a message with the argument, and writes nothing."""

import importlib
import sys

import pytest

from examples.system.lock import LOCK
from tests.helpers.refusals import refused

COMMANDS = {
    "train": "the following arguments are required: recipe",
    "train nothing": "recipe 'nothing' not found",
    "train textures --epochs 5": "unrecognized arguments: --epochs",
    "train textures extra": "an override must be key=value, got 'extra'",
    "train textures train.out={file}": "train.out must be a folder, got {file}: {file} is not a folder",
    "train textures train.out={file}/run": "train.out must be a folder, got {file}/run: {file} is not a folder",
    "train textures train.out={link}": "train.out must be a folder, got {link}: {link} is not a folder",
    "train textures train.device=gpu": "train.device must be auto or a device of this machine, got gpu",
    "compare": "the following arguments are required: ",
    "compare textures": "the following arguments are required: --out",
    "compare textures --out": "argument --out: expected one argument",
    "compare textures --out {file}": "{file} is not a folder",
    "compare textures --out {run}": "--out must not be a run's own folder",
    "compare textures method=sigreg --out {tmp}": "method is set by the comparison itself",
    "compare textures train.out=x --out {tmp}": "train.out is set by the comparison itself",
    "compare textures train.resume=true --out {tmp}": "train.resume is set by the comparison itself",
    "compare textures regularizer=vicreg --out {tmp}": "regularizer must be default in a comparison with SIGReg, got",
    "compare textures data.global_views=3 --out {tmp}": "data.global_views must be 2",
    "compare textures data.crop=9 --out {tmp}": "data.crop=9 would be ignored",
    "compare textures train.device=tpu --out {tmp}": "got tpu",
    "evaluate": "the following arguments are required: run",
    "evaluate {tmp}": "recipe.yaml cannot be read",
    "evaluate {tmp}/nowhere": "nowhere/recipe.yaml cannot be read",
    "evaluate {file}": "recipe.yaml cannot be read",
    "evaluate {run}": "checkpoint.pt cannot be read",
    "evaluate {broken}": "broken/recipe.yaml is not YAML",
    "evaluate {elsewhere}": "train.device must be auto or a device of this machine, got cuda:99",
    "evaluate {run} extra": "unrecognized arguments: extra",
    "reproduce": "the following arguments are required: scale",
    "reproduce everything": "argument scale: invalid choice: 'everything'",
    "reproduce textures extra": "an override must be key=value, got 'extra'",
    "reproduce textures train.seed=7": "train.seed is set by the study itself",
    "reproduce textures method=sigreg": "method is set by the study itself",
    "reproduce textures regularizer=none": "regularizer is set by the study itself",
    "reproduce textures data.classes=4": "data.classes is set by the study itself",
    "reproduce textures data.name=cifar100": "data.name is set by the study itself",
    "reproduce textures train.out=x": "train.out is set by the study itself",
    "reproduce textures predictor.steps=3": "predictor.steps is set by the cell textures-ablations/steps-",
    "reproduce textures hamjepa.q.log_det=1": "hamjepa.q.log_det is set by the cell textures-ablations/no-log-det",
    "reproduce cpu-10 train.epochs=1": "train.epochs is set by the cell cifar100-10classes",
    "reproduce cpu-10 data.batch_size=1": "data.batch_size is set by the cell cifar100-10classes",
    "reproduce full train.epochs=1": "train.epochs is set by the cell",
    "reproduce textures optim.lr=x": "optim.lr must be a valid number",
    "reproduce textures train.device=tpu": "got tpu",
    "reproduce textures --only nothing": "no cell of textures matches --only nothing",
    "reproduce textures --only */hamjepa-s42 --only */hamjeppa-s42": "matches --only */hamjeppa-s42",
    "reproduce textures --only": "argument --only: expected one argument",
    "reproduce textures --root cifar100=/x": "--root cifar100 would be ignored",
    "reproduce textures --root cifar=/x": "--root must be NAME=PATH with NAME one of cifar100",
    "reproduce textures --root /x": "--root must be NAME=PATH",
    "reproduce full --root cifar100=/x data.root=/y": "data.root is set by --root itself",
    "reproduce textures --out {file}": "--out must be a folder, got {file}",
    "reproduce textures --to {file}": "--to must be a folder, got {file}",
    "reproduce textures --report --out {tmp}": "no finished cell in {tmp}",
    "reproduce textures --report optim.lr=1": "optim.lr=1 would be ignored: --list and --report train nothing",
    "reproduce textures --list --root cifar100=/x": "cifar100=/x would be ignored",
}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("line", COMMANDS)
def test_a_bad_command_line_is_refused_by_name(line, tmp_path, monkeypatch, capsys):
    names = {name: tmp_path / name for name in ("file", "link", "run", "broken", "elsewhere")}
    names["file"].write_text("precious")
    names["link"].symlink_to(tmp_path / "nowhere")
    for name, settings in (("run", ""), ("broken", "a: ["), ("elsewhere", "train: {device: cuda:99}")):
        names[name].mkdir()
        (names[name] / "recipe.yaml").write_text(settings)
    (tmp_path / "empty").mkdir()
    names["tmp"] = tmp_path / "empty"
    before = sorted(tmp_path.rglob("*"))
    command, *arguments = line.format(**names).split(" ")
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"examples.{command}").main()
    assert COMMANDS[line].format(**names) in f"{caught.value} {capsys.readouterr().err}"
    assert sorted(x for x in tmp_path.rglob("*") if x.name != LOCK) == before
    assert names["file"].read_text() == "precious"


def test_data_that_are_missing_are_named(tmp_path, monkeypatch):
    for root, message in ((tmp_path / "no", "does not exist"), (tmp_path, "contains neither train/ nor train.X")):
        monkeypatch.setattr(sys, "argv", ["train", "imagenet100", f"data.root={root}", "train.device=cpu"])
        refused(root, message, call=importlib.import_module("examples.train").main)

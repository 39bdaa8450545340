"""A checkpoint of another layout, or one that is not finite, is refused by name when it is resumed or evaluated."""

import math
import shutil

import pytest
import torch

from examples.measurement.features import evaluate
from examples.system.files import save_atomically
from tests.helpers.runs import tiny, train


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    train(tiny(out, "train.epochs=1", "method=sigreg"))
    return out


def without(key):
    return lambda state: state.pop(key)


def setting(key, value):
    return lambda state: state.update({key: value})


def weight(change):
    """Change the first weight."""
    return lambda state: state["model"].update({(key := next(iter(state["model"]))): change(state["model"][key])})


def moments(**changes):
    """Change the first parameter's moments."""
    return lambda state: state["optimizer"]["state"][0].update(changes)


EITHER = {  # refused at resume and in an evaluation
    "no step": (without("step"), "step must be of type int, got nothing"),
    "no seconds": (without("seconds"), "seconds must be of type float, got nothing"),
    "no recipe": (without("recipe"), "recipe must be of type str, got nothing"),
    "no model": (without("model"), "model must be of type dict, got nothing"),
    "no optimizer": (without("optimizer"), "optimizer must be of type dict, got nothing"),
    "text": (setting("step", "3"), "step must be of type int, got a str"),
    "negative": (setting("step", -1), "step must be at least 0, got -1"),
    "endless": (setting("seconds", math.inf), "seconds must be at least 0, got inf"),
    "another shape": (weight(lambda x: x[:1]), "does not fit this model"),
    "not a tensor": (weight(lambda x: "x"), "does not fit this model"),
    "no weights": (setting("model", {}), "does not fit this model: .*Missing key"),
    "nan": (weight(lambda x: x * math.nan), r"model\.encoder\.\S+ is not finite"),
    "nan in a moment": (moments(exp_avg=torch.tensor(math.nan)), r"optimizer\.state\.0\.exp_avg is not finite"),
}
RESUMED = {  # refused at resume
    "too far": (setting("step", 4), "step must be at most 3, got 4"),
    "no state": (setting("optimizer", {}), "does not fit this model: 'state'"),
    "no moments": (setting("optimizer", {"state": {}}), "the optimizer has no moments"),
    "list": (setting("optimizer", {"state": [1]}), "does not fit this model"),
    "moment's shape": (moments(exp_avg_sq=torch.ones(2)), "moments must have shapes"),
    "moment's name": (moments(other=torch.ones(2)), "moments must have shapes"),
    "number": (moments(exp_avg=1.0), "does not fit this model"),
    "too many": (lambda state: state["optimizer"]["state"].update({999: {}}), "of a parameter 999, which does not"),
}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("case", [*EITHER, *RESUMED])
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(case, sealed, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    path, (change, message) = out / "checkpoint.pt", {**EITHER, **RESUMED}[case]
    change(state := torch.load(path, weights_only=True))
    save_atomically(path, state) if sealed else torch.save(state, path)
    before = path.read_bytes()
    expected = rf"checkpoint {path} cannot be used, .*{message}.*: delete it, .*or choose another train.out$"
    with pytest.raises(SystemExit, match=expected):
        train(tiny(out, "train.epochs=1", "method=sigreg", "train.resume=true"))
    if case in EITHER:
        with pytest.raises(SystemExit, match=expected):
            evaluate(out)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [[1], "text", torch.ones(2)])
def test_a_checkpoint_that_is_not_a_dictionary_is_refused_by_name(content, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    torch.save(content, out / "checkpoint.pt")
    with pytest.raises(SystemExit, match=r"checkpoint.pt cannot be used, it must be a dictionary, got a"):
        train(tiny(out, "train.epochs=1", "method=sigreg", "train.resume=true"))

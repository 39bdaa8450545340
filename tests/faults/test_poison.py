"""State that is not finite is not saved; an evaluation that fails loses nothing."""

import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.training import loop
from examples.training.nan_guard import NotFiniteError
from tests.helpers.runs import StoppedError, assert_same_run, tiny, train


def weight(model, optimizer):
    model.encoder.backbone[0].weight[0, 0, 0, 0] = float("nan")


def statistics(model, optimizer):
    next(x for name, x in model.named_buffers() if name.endswith("running_var"))[1] = float("inf")


def moment(model, optimizer):
    optimizer.state[next(model.encoder.parameters())]["exp_avg_sq"][0, 0, 0, 1] = float("nan")


@pytest.mark.parametrize(
    ("poison", "named"),
    [
        (weight, r"encoder\.backbone\.0\.weight"),
        (statistics, r"encoder\.\S+\.running_var"),
        (moment, r"optimizer's exp_avg_sq of encoder\.\S+"),
    ],
)
def test_a_poisoned_state_is_not_saved_over_the_good_checkpoint(poison, named, tmp_path, monkeypatch):
    """Poisoned after the last step before the checkpoint, so that no loss shows it."""
    step_of, steps = loop.train_step, []

    @torch.no_grad()
    def poisoned(model, optimizer, *args, **kwargs):
        with torch.enable_grad():
            result = step_of(model, optimizer, *args, **kwargs)
        steps.append(result)
        if len(steps) == 6:
            poison(model, optimizer)
        return result

    monkeypatch.setattr(loop, "train_step", poisoned)
    message = rf"training stopped: {named} not finite after step 5; not saved, any checkpoint is older"
    with pytest.raises(NotFiniteError) as error:
        train(tiny(tmp_path / "run"))
    assert re.fullmatch(message, str(error.value)), error.value
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 3


def points(out):
    """Of the evaluations in TensorBoard's files."""
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("q/knn")]


def test_an_evaluation_that_fails_loses_no_step_and_is_made_up_for(tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "run"
    settings = ("evaluation.every=1", "train.epochs=3")
    train(tiny(whole, *settings))
    assert [step for step, _ in points(whole)] == [3, 6, 9]
    measure, calls = loop.progress, []

    def fails(*args):
        calls.append(args)
        if len(calls) == 2:
            raise StoppedError
        return measure(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "progress", fails)
        with pytest.raises(StoppedError):
            train(tiny(out, *settings))
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 6
    train(tiny(out, *settings, "train.resume=true"))
    assert_same_run(whole, out)
    assert (out / "curves.jsonl").read_text() == (whole / "curves.jsonl").read_text()
    assert points(out) == points(whole)

"""The training step's three forms, eager, compiled and recorded, and the clock that splits it."""

import functools

import pytest
import torch

from examples.images.datasets import load_data
from examples.model.build import build_model, build_optimizer
from examples.recipe.schema import load_recipe
from examples.training.cuda_graph import CapturedStep, record_graph
from examples.training.loop import train_step
from examples.training.schedules import Schedules
from examples.training.step_clock import StepClock
from tests.helpers.runs import logged, tiny, train

STEPS = 6


def replayed(step):
    """What stands in for a CUDA graph on the CPU: nothing runs at the capture, ``step`` runs at every replay."""
    output = []

    def replay():
        output[:] = step()

    return replay, output


def losses(device, record, *, done):
    """Loss of each step, plain (``record`` None) or recorded after ``done`` plain ones, and the weights at the end."""
    recipe = tiny("unused", "method=hamjepa", "hamjepa.q.refresh_every=2", "train.epochs=4", "train.precision=fp32")
    data = load_data(recipe.data).to(device)
    torch.manual_seed(0)
    model = build_model(recipe, data.train_images.shape[1:]).to(device)
    optimizer = build_optimizer(model, recipe.optim)
    schedules = Schedules(
        recipe.optim, recipe.predictor, epochs=4, steps_per_epoch=2
    )  # warm-ups change scales and rates between the steps
    step = functools.partial(train_step, model, optimizer, clip=1.0)
    seen = []
    for i in range(STEPS):
        schedules.apply(i, optimizer, model.objective)
        noise = torch.randn(2, 32, 3, 32, 32, generator=torch.Generator().manual_seed(i)).to(device)
        if record is not None and i == done:
            step = CapturedStep(step, noise, model, optimizer, record=record)
        seen.append(step(noise)[0].item())
    return seen, {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("done", [0, 3])
def test_a_recorded_step_equals_the_plain_one(done):
    plain, weights = losses(torch.device("cpu"), None, done=done)
    recorded, recorded_weights = losses(torch.device("cpu"), replayed, done=done)
    assert recorded == plain
    assert all(torch.equal(value, recorded_weights[key]) for key, value in weights.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_cuda_graph_equals_the_plain_step():
    plain, _ = losses(torch.device("cuda"), None, done=0)
    recorded, _ = losses(torch.device("cuda"), record_graph, done=0)
    assert recorded == pytest.approx(plain, rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="host synchronisation is a GPU's")
def test_a_step_on_a_gpu_never_waits():
    recipe = tiny("unused")
    device = torch.device("cuda")
    data = load_data(recipe.data).to(device)
    model = build_model(recipe, data.train_images.shape[1:]).to(device)
    optimizer = build_optimizer(model, recipe.optim)
    images = torch.randn(2, 32, 3, 32, 32, device=device)
    train_step(model, optimizer, images, clip=1.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(model, optimizer, images, clip=1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(tmp_path, monkeypatch):
    eager, compiled = tmp_path / "eager", tmp_path / "compiled"
    train(tiny(eager, "train.precision=fp32"))
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    train(tiny(compiled, "train.precision=fp32", "train.compile=true"))
    for a, b in zip(logged(eager), logged(compiled), strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-5)


def test_the_clock_accounts_for_the_whole_step(monkeypatch):
    recipe = load_recipe("textures", ["data.train_size=64", "data.test_size=32", "data.batch_size=32"])
    data = load_data(recipe.data)
    model = build_model(recipe, data.train_images.shape[1:])
    optimizer = build_optimizer(model, recipe.optim)
    time = iter(range(100))
    monkeypatch.setattr("examples.training.step_clock.time.perf_counter", lambda: float(next(time)))
    clock = StepClock(torch.device("cpu"))
    clock.attach(model)
    images = torch.randn(2, 32, 3, 32, 32)
    train_step(model, optimizer, images, clip=1.0, clock=clock)  # not started: marks cost nothing
    clock.start()
    clock.mark("data")
    train_step(model, optimizer, images, clip=1.0, clock=clock)
    # A tick per mark: encoder and objective are passed twice, forward and backward.
    assert clock.stop() == {"data": 1.0, "encoder": 2.0, "objective": 2.0, "optimizer": 1.0}

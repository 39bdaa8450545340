"""The training loop, its recipes and its checkpoints, on a few steps of the embedded data."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR100

from examples.images.datasets import load_data
from examples.measurement.features import encode, evaluate
from examples.model import build as methods
from examples.paper.compare import compare
from examples.recipe.schema import load_recipe
from examples.recipe.sections import Regularizer
from examples.system.files import save_atomically, truncate_log
from examples.system.ranks import Ranks
from examples.training.loop import epoch_batches, make_crops, make_views, train_step
from examples.training.schedules import Schedules
from tests.helpers.paths import ROOT
from tests.helpers.runs import TINY, assert_same_run, logged, over, tiny, train, train_until


@pytest.mark.parametrize("method", ["hamjepa", "mlp_hjepa", "sigreg"])
def test_a_run_stopped_in_the_middle_and_resumed_equals_an_uninterrupted_one(method, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(whole, f"method={method}"))
    train_until(tiny(parts, f"method={method}"), 4, monkeypatch)
    assert torch.load(parts / "checkpoint.pt", weights_only=True)["step"] == 3
    torch.rand(7)  # the global generator has moved on, which must not matter
    train(tiny(parts, f"method={method}", "train.resume=true"))
    assert_same_run(whole, parts)


def test_checkpoints_between_epochs_are_resumed_in_the_middle_of_one(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(whole))
    train_until(tiny(parts, "train.checkpoint_steps=2"), 5, monkeypatch)
    assert torch.load(parts / "checkpoint.pt", weights_only=True)["step"] == 4  # an epoch has 3 steps
    train(tiny(parts, "train.resume=true", "train.checkpoint_steps=5"))
    assert_same_run(whole, parts)


def test_evaluations_during_the_training_change_nothing_and_are_resumed(tmp_path, monkeypatch):
    plain, watched, parts = tmp_path / "plain", tmp_path / "watched", tmp_path / "parts"
    train(tiny(plain))
    train(tiny(watched, "evaluation.every=1"))
    assert_same_run(plain, watched)
    train_until(tiny(parts, "evaluation.every=1"), 4, monkeypatch)
    with (parts / "curves.jsonl").open("a") as file:  # as if it had been killed between the curves and the checkpoint
        file.write('{"step": 6, "epoch": 2}\n')
    train(tiny(parts, "evaluation.every=1", "train.resume=true"))
    assert (parts / "curves.jsonl").read_text() == (watched / "curves.jsonl").read_text()
    lines = [json.loads(line) for line in (watched / "curves.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in lines] == [(3, 1), (6, 2)]
    final = evaluate(watched)["readouts"]["HamJEPA-q"]
    assert lines[-1]["readouts"]["q"]["knn"] == final["knn"]["20"]["top1"]
    assert lines[-1]["readouts"]["q"]["effective_rank"] == final["effective_rank"]
    assert 0 < final["alignment"] < 4
    assert final["uniformity"] < 0
    assert evaluate(watched)["readouts"]["HamJEPA-q"] == final  # the views are the same at every call


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_run(tmp_path):
    def command(out, *more):
        return [sys.executable, "-c",
                "import sys, torch; torch.set_num_threads(1); from tests.helpers.runs import train, load_recipe;"
                "train(load_recipe('textures', sys.argv[1:]))",
                *over(TINY, "train.epochs=4"), f"train.out={out}", *more]  # fmt: skip

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), cwd=ROOT, env=environment, check=True, capture_output=True)
    process = subprocess.Popen(command(killed), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed / "checkpoint.pt").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = torch.load(killed / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < step < 12, "the run was not killed half-way"
    subprocess.run(command(killed, "train.resume=true"), cwd=ROOT, env=environment, check=True, capture_output=True)
    assert_same_run(whole, killed)


def test_a_run_is_neither_overwritten_nor_continued_under_another_recipe(tmp_path):
    train(tiny(tmp_path / "run", "train.epochs=1"))
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(SystemExit, match=r"already contains a run: set train.resume=true"):
        train(tiny(tmp_path / "run", "train.epochs=1"))
    with pytest.raises(SystemExit, match=r"these keys differ: optim.lr, train.epochs$"):
        train(tiny(tmp_path / "run", "train.resume=true", "optim.lr=0.5"))
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_that_fails_to_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_atomically(path, {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        save_atomically(path, {"step": 2, "bad": lambda: None})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    from examples.training import loop

    step_of, calls = loop.train_step, []

    def poisoned(*args, **kwargs):
        loss, terms, norm = step_of(*args, **kwargs)
        calls.append(1)
        if len(calls) == 5:
            terms["mean"] = terms["mean"] * float("nan")
        return loss, terms, norm

    monkeypatch.setattr(loop, "train_step", poisoned)
    with pytest.raises(SystemExit, match=r"training stopped: mean not finite at step 4"):
        train(tiny(tmp_path / "run", "train.log_every=100"))
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 3


def test_log_is_cut_to_the_steps_before_the_checkpoint(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 0, "loss": 1}\n{"step": 1, "loss": 2}\n{"step": 2, "loss": 3}\n{"step": 3, "lo')
    truncate_log(log, 2)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [0, 1]


@pytest.mark.slow
def test_comparison_writes_table_metrics_and_figure(tmp_path):
    text = compare("textures", TINY, tmp_path)
    rows = json.loads((tmp_path / "metrics.json").read_text())
    readouts = [f"{m}-{r}" for m in ("SIGReg", "MLP-HJEPA", "HamJEPA") for r in ("q", "p", "qp")]
    assert list(rows) == ["raw pixels", "untrained encoder", *readouts]
    assert rows["HamJEPA-qp"]["dim"] == 2 * rows["HamJEPA-q"]["dim"] == 512
    assert set(rows["HamJEPA-q"]["knn"]) == {"1", "5", "20"}
    assert text.count("\n") == len(rows) + 1
    with Image.open(tmp_path / "summary.png") as picture:
        assert min(picture.size) > 500
    metrics = json.loads((tmp_path / "hamjepa" / "metrics.json").read_text())
    assert metrics["steps"] == 6
    assert "cosine, unweighted" in metrics["protocol"]


def test_learning_rate_warms_up_linearly_then_follows_a_cosine():
    recipe = load_recipe("cifar100")
    schedules = Schedules(recipe.optim, recipe.predictor, epochs=30, steps_per_epoch=97)
    warm, total = 970, 2910
    assert schedules.lr_factor(0) == pytest.approx(0.01)
    assert schedules.lr_factor(warm // 2) == pytest.approx((0.01 + 1) / 2)
    assert schedules.lr_factor(warm) == pytest.approx(1.0)
    middle = (warm + total - 1) / 2
    assert schedules.lr_factor(middle) == pytest.approx((1 + 0.001) / 2)
    assert schedules.lr_factor(total - 1) == pytest.approx(0.001)


def test_residual_scale_and_regularizers_warm_up_by_epoch():
    overrides = ["predictor.residual_warmup_epochs=4", "optim.regularizer_warmup_epochs=2", "predictor.lr=1e-5"]
    recipe = load_recipe("textures", overrides)
    model = methods.build_model(recipe, torch.Size([3, 32, 32]))
    optimizer = methods.build_optimizer(model, recipe.optim, recipe.predictor.lr)
    objective = model.objective
    schedules = Schedules(recipe.optim, recipe.predictor, epochs=6, steps_per_epoch=10)
    seen = []
    for step in (0, 10, 20, 30, 40):
        schedules.apply(step, optimizer, objective)
        scale = objective.predictor.hamiltonian.residual_scale.item()
        seen.append((round(scale / 0.02, 6), objective.regularizer_scale.item()))
    assert seen == [(0.25, 0.5), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0), (1.0, 1.0)]
    encoder, predictor = optimizer.param_groups
    assert predictor["lr"] / encoder["lr"] == pytest.approx(1e-5 / recipe.optim.lr)


def test_batches_of_an_epoch_are_disjoint_and_change_with_the_epoch():
    labels = torch.zeros(96)
    first, again, second, next_epoch = (epoch_batches(labels, 32, seed=2**31 - 1, step=s) for s in (0, 0, 1, 3))
    assert sorted(torch.cat(first).tolist()) == list(range(96))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(second[0], first[1])  # resumed in the middle of the epoch
    assert not torch.equal(next_epoch[0], first[0])


def test_local_views_are_smaller_crops_after_the_global_ones(tmp_path):
    recipe = tiny(tmp_path, "data.local_views=3", "augment.jitter_prob=0", "augment.solarize_prob=0",
                  "augment.blur_prob=0", "augment.grayscale_prob=0", "train.seed=2147483647")  # fmt: skip
    data = load_data(recipe.data)
    image = torch.arange(32).repeat(32, 1).mul(8).to(torch.uint8).expand(16, 3, 32, 32)  # a ramp: its range is the crop
    crops = make_crops(recipe.augment, recipe.data, recipe.local_scale, data)
    views = make_views(crops, recipe.train.seed, Ranks(0, 1, torch.device("cpu")))(image, None, 0)
    spread = (views.amax((-3, -2, -1)) - views.amin((-3, -2, -1))).mean(1)
    assert spread[2:].max() < spread[:2].min()
    train(tiny(tmp_path / "run", "train.epochs=1", "data.local_views=1"))
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 3


def test_clipping_the_encoder_leaves_the_predictors_gradient_alone():
    model = methods.build_model(load_recipe("textures"), torch.Size([3, 32, 32]))
    optimizer = torch.optim.SGD([{"params": part.parameters()} for part in (model.encoder, model.objective)], lr=0)
    images = torch.randn(2, 16, 3, 32, 32)

    def gradients(**clipping):
        norm = train_step(model, optimizer, images, **clipping)[2]
        return norm, *(
            torch.cat([p.grad.flatten() for p in part.parameters()]) for part in (model.encoder, model.objective)
        )

    norm, encoder, predictor = gradients(clip=None)
    clip = encoder.norm().item() / 10
    share = clip / norm
    close = {"rtol": 1e-4, "atol": 0}  # the predictor's gradient is tiny
    torch.testing.assert_close(norm, torch.cat([encoder, predictor]).norm(), **close)
    torch.testing.assert_close(gradients(clip=clip, clip_all=False), (norm, encoder / 10, predictor), **close)
    torch.testing.assert_close(gradients(clip=clip), (norm, encoder * share, predictor * share), **close)


@pytest.mark.parametrize("name", get_args(Regularizer)[1:])
def test_every_regularizer_trains_by_name(name, tmp_path):
    for method in ("hamjepa", "sigreg"):
        out = tmp_path / method
        train(tiny(out, f"regularizer={name}", f"method={method}", "train.epochs=1"))
        lines = logged(out)
        assert len(lines) == 3
        assert all(math.isfinite(value) for line in lines for value in line.values())
        assert (name in lines[0]) == (name != "none")


@pytest.mark.parametrize(
    ("hamiltonian", "integrator"),
    [("separable", "yoshida4"), ("quadratic", "ruth3"), ("general", "implicit_midpoint")],
)
def test_other_dynamics_train_by_name(hamiltonian, integrator, tmp_path):
    train(tiny(tmp_path / "run", f"predictor.hamiltonian={hamiltonian}", f"predictor.integrator={integrator}"))
    assert len(logged(tmp_path / "run")) == 6


def test_the_baseline_may_have_a_global_encoder_and_a_projector(tmp_path):
    recipe = tiny(tmp_path / "run", "train.epochs=1", "method=sigreg", "encoder.mode=global", "encoder.global_dim=24",
                  "encoder.projector=mlp", "encoder.projector_hidden=16", "encoder.projector_dim=8")  # fmt: skip
    train(recipe)
    data = load_data(recipe.data)
    model = methods.build_model(recipe, data.train_images.shape[1:])
    features = encode(model, data)
    assert {name: part[0].shape for name, part in features.items()} == {"z": (96, 24)}
    assert model.projector(torch.randn(4, 24)).shape == (4, 8)


def test_cifar100_is_read_in_torchvisions_layout_and_keeps_the_first_classes(tmp_path, monkeypatch):
    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()
    pixels = np.arange(40 * 3072, dtype=np.int64).astype(np.uint8).reshape(40, 3072)
    labels = [i % 4 for i in range(40)]
    for split in ("train", "test"):
        (folder / split).write_bytes(pickle.dumps({"data": pixels, "fine_labels": labels}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple", "bear", "cup", "dog"]}))
    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setitem(CIFAR100.meta, "md5", None)
    data = load_data(load_recipe("cifar100", [f"data.root={tmp_path}", "data.classes=2"]).data)
    assert data.class_names == ("apple", "bear")
    assert data.train_labels.bincount().tolist() == [10, 10]
    # Row-major planes of red, green, blue, as in the official files.
    assert torch.equal(data.test_images[1].flatten(), torch.from_numpy(pixels[1]))


def test_missing_data_is_a_clear_error(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    config = load_recipe("cifar100", [f"data.root={tmp_path / 'nowhere'}"]).data
    with pytest.raises(SystemExit, match=r"CIFAR-100 is not in .*nowhere.* could not be downloaded \(no network\)"):
        load_data(config)
    with pytest.raises(SystemExit, match=r"data.batch_size must be from 1 .* to 96 \(training images\), got 500"):
        train(tiny(tmp_path, "data.batch_size=500"))

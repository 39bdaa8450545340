"""Numbers about the learned force agree with autograd, and the hold-out never touches the test images."""

import json

import pytest
import torch

import symplectic_jepa as sj
from examples.images.datasets import load_data
from examples.measurement.features import evaluate
from examples.measurement.learned_force import learned_force, predictor_weights
from examples.model.build import build_model, build_optimizer
from examples.paper.grid import SCALES, base_table
from examples.recipe.schema import load_recipe
from tests.helpers.runs import tiny, train

SHAPE = torch.Size((3, 32, 32))


def rms(x):
    return x.square().sum(-1).mean().sqrt().item()


def pairs(images, labels):
    return [(x.numpy().tobytes(), int(y)) for x, y in zip(images, labels, strict=True)]


def test_both_parts_of_the_force_and_the_displacement_agree_with_autograd():
    model = build_model(load_recipe("textures", ["predictor.residual_scale=0.7", "predictor.steps=1"]), SHAPE)
    predictor = model.objective.predictor.double()
    h = predictor.hamiltonian
    z = torch.randn(50, 2 * h.dim, dtype=torch.float64)
    q, p = sj.split_state(z)
    q = q.clone().requires_grad_()
    learned = torch.autograd.grad(h.potential(q).sum() - 0.5 * h.base_coeff * q.square().sum(), q)[0]
    numbers = learned_force(model, predictor_weights(model), z)
    assert numbers["learned_force"] == pytest.approx(rms(learned), rel=1e-12)
    assert numbers["base_force"] == pytest.approx(h.base_coeff * rms(q), rel=1e-12)
    moved = predictor.dt * p - 0.5 * predictor.dt**2 * (h.base_coeff * q + learned)  # one step of leapfrog
    assert numbers["displacement"] == pytest.approx(rms(moved) / rms(q), rel=1e-12)


@pytest.mark.parametrize("method", ["hamjepa", "mlp_hjepa"])
def test_movement_is_relative_to_the_initial_weights(method):
    model = build_model(load_recipe("textures", [f"method={method}"]), SHAPE)
    initial = predictor_weights(model)
    z = torch.randn(4, 512)
    assert learned_force(model, initial, z)["movement"] == 0
    with torch.no_grad():
        for w in model.objective.predictor.parameters():
            w.mul_(1.25)
    assert learned_force(model, initial, z)["movement"] == pytest.approx(0.25, rel=1e-6)


def test_methods_without_a_learned_energy_leave_numbers_out():
    z = torch.randn(4, 512)
    for overrides, keys in {
        "method=sigreg": set(),
        "method=mlp_hjepa": {"displacement", "movement"},
        "predictor.hamiltonian=quadratic": {"displacement"},
    }.items():
        model = build_model(load_recipe("textures", [overrides]), SHAPE)
        assert learned_force(model, predictor_weights(model), z).keys() == keys


def test_the_numbers_after_training_are_those_of_its_last_curve(tmp_path):
    train(tiny(tmp_path, "evaluation.every=1"))
    curves = [json.loads(line)["dynamics"] for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert curves[0]["movement"] < curves[1]["movement"]
    assert evaluate(tmp_path)["dynamics"] == pytest.approx(curves[1], rel=1e-6)


def test_held_out_images_are_training_images_that_are_not_trained_on():
    whole = load_data(load_recipe("textures").data)
    split = load_data(load_recipe("textures", ["data.validation=0.1"]).data)
    trained = pairs(split.train_images, split.train_labels)
    held = pairs(split.test_images, split.test_labels)
    assert (len(trained), len(held)) == (4500, 500)
    every = pairs(whole.train_images, whole.train_labels)
    assert sorted(trained + held) == sorted(every)


@pytest.mark.parametrize("share", ["1e-5", "1"])
def test_a_hold_out_needs_images_on_both_sides(share):
    with pytest.raises(SystemExit, match=r"data\.validation must hold out between 1 and 4999 of 5000 images"):
        load_data(load_recipe("textures", [f"data.validation={share}"]).data)


def test_an_evaluation_says_which_images_it_used(tmp_path):
    for share, name in (("0", "test"), ("0.25", "validation")):
        train(tiny(tmp_path / name, f"data.validation={share}", "data.batch_size=24"))
        assert evaluate(tmp_path / name)["evaluated_on"] == name


def test_a_variant_has_the_recipes_cell_of_the_same_seed_and_scale():
    for scale in ("full", "cpu-10", "textures"):
        cells = SCALES[scale]()
        methods = {(c.table, c.seed): c for c in cells if c.name == "hamjepa"}
        variants = [c for c in cells if base_table(c.table) != c.table]
        assert variants
        for c in variants:
            shared, own = (
                dict(pair.split("=", 1) for pair in x.overrides) for x in (methods[base_table(c.table), c.seed], c)
            )
            assert len(own) == len(c.overrides)  # no key twice
            assert shared.keys() - {"method"} <= own.keys()


def test_potentials_learn_at_multiples_of_their_recipes_rate():
    for scale, recipe in (("cpu-10", "cifar100"), ("textures", "textures")):
        lr = load_recipe(recipe).optim.lr
        for name, factor in (("lr-x10", 10), ("lr-x100", 100)):
            cell = next(c for c in SCALES[scale]() if c.name == name)
            optimizer = build_optimizer(
                build_model(r := load_recipe(recipe, list(cell.overrides)), SHAPE), r.optim, r.predictor.lr
            )
            assert [group["base_lr"] for group in optimizer.param_groups] == pytest.approx([lr, factor * lr])


def test_eps_is_the_optimizers():
    recipe = load_recipe("textures", ["optim.eps=1e-12"])
    assert build_optimizer(build_model(recipe, SHAPE), recipe.optim).defaults["eps"] == 1e-12

"""Recipes: one schema that refuses what is wrong by name, files as differences, and what the paper says of them."""

import pytest
import torch

import symplectic_jepa as sj
from examples.model.build import build_model, build_objective
from examples.paper.compare import compare
from examples.paper.grid import Cell
from examples.paper.reproduce import reproduce
from examples.recipe.schema import METHODS, RECIPES, Recipe, compose, load_recipe, read_recipe, to_yaml, unread
from examples.recipe.text import assignments, flat, read
from examples.training.loop import clipping
from examples.training.run_folder import differing_keys
from tests.helpers.cases import settings

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def differences(a, b):
    x, y = (flat(r.model_dump()) for r in (a, b))
    return {key for key in x if x[key] != y[key]}


WRONG = {
    "train.epoch=1": "unknown key train.epoch in train; known: epochs, parallel, precision",
    "lr=1": "unknown key lr; known: method, regularizer",
    "hamjepa.p.eps.x=1": "hamjepa.p.eps must be a valid number",
    "hamjepa.p.projection=1": "unknown key hamjepa.p.projection in hamjepa.p",
    "train.epochs=many": "train.epochs must be a valid integer.*, got many$",
    "train.epochs": "an override must be key=value, got 'train.epochs'",
    "train=5": "train must be a valid dictionary.*, got 5$",
    "train.resume=no": "train.resume must be true or false, got no$",
    "train.out=": 'train.out must have at least 1 character, got ""$',
    "train.seed=2147483648": "train.seed must be less than 2147483648, got 2147483648$",
    "train.device=gpu": "train.device must be auto or a device of this machine, got gpu$",
    "train.device=cuda:99": "train.device must be auto or a device of this machine, got cuda:99$",
    "train.cuda_graph=true train.device=cpu": "train.cuda_graph must be false without a CUDA device, got true on cpu$",
    "augment.flip=3": "augment.flip must be less than or equal to 1, got 3$",
    "augment.blur_kernel=65": "augment.blur_kernel must be an odd number from 1 to 63 for size 32, got 65$",
    "augment.blur_sigma=[2,1]": "augment.blur_sigma must be a pair low <= high",
    "augment.jitter=[1,1,1,1]": "augment.jitter.3 must be less than or equal to 0.5, got 1$",
    "data.batch_size=0": "data.batch_size must be greater than or equal to 1, got 0$",
    "data.classes=101": "data.classes must be between 2 and 100 for cifar100, got 101$",
    "optim.lr=nan": "optim.lr must be a finite number, got nan$",
    "local_scale=[0,1]": "local_scale.0 must be greater than 0, got 0$",
    "local_scale=[0,1": "override 'local_scale=.0,1' is not YAML",
    "evaluation.ks=[]": "evaluation.ks must have at least 1 item",
    "evaluation.ks=[5]": "evaluation.ks must contain 20",
    "evaluation.ks=[0,20]": "evaluation.ks.0 must be greater than or equal to 1, got 0$",
    "hamjepa.clip_grad=0": "hamjepa.clip_grad must be greater than 0, got 0$",
    "hamjepa.match=qp": "hamjepa.p_weight must be 0 with hamjepa.match=qp",
    "method=byol": "method must be 'hamjepa', 'mlp_hjepa' or 'sigreg', got byol$",
    "method=sigreg data.global_views=1": "data.global_views must be at least 2 without local views",
    "method=mlp_hjepa hamjepa.energy_weight=1": "hamjepa.energy_weight must be 0 for method=mlp_hjepa",
    "encoder.mode=global": "encoder.mode must be tokens for method=hamjepa.* mixes the channels of q .*, got global$",
    "encoder.projector=mlp": "encoder.projector must be identity for method=hamjepa",
    "regularizer=ham_sigreg method=sigreg encoder.mode=global": "encoder.mode must be tokens for regularizer=ham",
    "regularizer=barlow_twins data.local_views=2": "data.local_views must leave two views for regularizer=barlow_twins",
    "regularizer=vicreg data.batch_size=1": "data.batch_size must be at least 2 for regularizer=vicreg.*, got 1$",
    "regularizer=barlow_twins data.batch_size=1": "data.batch_size must be at least 2 for regularizer=barlow_twins",
    "sigreg.convention=convex method=sigreg sigreg.weight=2": "sigreg.convention=convex needs a weight of at most 1",
    "predictor.learn_dt=true": "predictor.learn_dt must be false: dt -> 0 minimises",
    "predictor.hamiltonian=general": "predictor.integrator must be implicit_midpoint with hamiltonian=general",
    "predictor.learn_mass=true predictor.hamiltonian=quadratic": "predictor.learn_mass must be false with hamiltonian",
    "train.epochs=1 train.epochs=2": "train.epochs is given twice",
    'hamjepa.q={"std":2} hamjepa.q.std=1': "hamjepa.q.std is given twice",
    # Ignored:
    "regularizer_weight=5": "regularizer_weight=5.0 would be ignored: nothing reads it with regularizer=default",
    "sigreg.slices=9": "sigreg.slices=9 would be ignored.* with regularizer=default, method=hamjepa$",
    "method=sigreg predictor.steps=3": "predictor.steps=3 would be ignored: nothing reads it with method=sigreg",
    "predictor.hamiltonian=quadratic predictor.hidden_dim=9": "hidden_dim=9 .* with predictor.hamiltonian=quadratic",
    "data.train_size=99": "data.train_size=99 would be ignored: nothing reads it with data.name=cifar100",
    "hamjepa.variance=0 hamjepa.p.std=1": "hamjepa.p.std=1.0 would be ignored.* with hamjepa.variance=0.0",
}


@pytest.mark.parametrize("overrides", WRONG)
def test_what_is_wrong_is_refused_by_name(overrides):
    with pytest.raises(SystemExit, match=WRONG[overrides]):
        load_recipe("cifar100", overrides.split(" "))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epochs: 1}\ntrain: {seed: 1}", "train is given twice"),
        ("train: {seed: 1}\ntrain.seed: 1", "train.seed is given twice"),
        ("hamjepa: {q: {projection_dim: 3}}", "unknown key hamjepa.q.projection_dim"),
        ("a: &a [1, 1]\nb: [*a, *a]", r"aliases \(\*name\) are not allowed"),
        ("method: !!python/object/apply:os.system [false]", "method must be 'hamjepa'"),
        ("[" * 5000, "is not YAML"),
        ("- 1", "must be a mapping of settings"),
        ("[a]: 1", "a key must be a word"),
        ("train: 5\ntrain.epochs: 1", "train.epochs cannot be set: train is set to '5'"),
        ("train: null", "train must be a valid dictionary"),
        ("base: mnist", "recipe 'mnist' not found .* known recipes: cifar100, imagenet100, imagenet100-text, textures"),
        ("base: imagenet100-text", "base must be a recipe without a base of its own"),
        ("regularizer_weight: 3", "regularizer_weight=3.0 would be ignored"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(text, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit, match=message):
        load_recipe(str(path))


def test_a_value_is_what_its_field_says(tmp_path):
    r = load_recipe("textures", ["train.out=0123", "optim.lr=5e-4", "hamjepa.q={std: null}", "evaluation.ks=[20]"])
    assert (r.train.out, r.optim.lr, r.hamjepa.q.std, r.evaluation.ks) == ("0123", 5e-4, None, (20,))
    assert r.hamjepa.p.participation == 0.16  # a section that is named keeps its other values
    assert load_recipe("textures", ["method=sigreg", "train.seed=7"]).out.as_posix() == "runs/textures-sigreg-s7"
    path = tmp_path / "mine.yaml"
    path.write_text("base: textures\nhamjepa: {match: qp, p_weight: 0}\ntrain: {out: 0123}")
    mine = load_recipe(str(path), ["method=sigreg"])  # one file for every method
    assert (mine.data.name, mine.train.out, mine.hamjepa.match) == ("textures", "0123", "qp")
    path.write_text("base: textures\nhamjepa: {q: {std: 1}}")
    load_recipe(str(path), ["regularizer=vicreg"])  # an override may switch off what the file sets


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_its_differences_and_comes_back_whole_from_yaml(name):
    recipe = load_recipe(name)
    assert read_recipe(to_yaml(recipe), name) == recipe
    own = read((RECIPES / f"{name}.yaml").read_text(), name)
    below = Recipe() if "base" not in own else load_recipe(own["base"])
    assert differences(recipe, below) == own.keys() - {"base"}


def test_settings_for_several_runs_must_be_read_by_one_of_them(tmp_path):
    with pytest.raises(SystemExit, match="train.seed is set by the study itself"):
        reproduce([], tmp_path, ["train.seed=3"])
    with pytest.raises(SystemExit, match="method is set by the comparison itself"):
        compare("textures", ["method=sigreg"], tmp_path)
    with pytest.raises(SystemExit, match="data.crop=9 would be ignored"):
        compare("textures", ["data.crop=9"], tmp_path)
    with pytest.raises(SystemExit, match="hamjepa.mean=0.0 would be ignored"):
        reproduce([Cell("t", "sigreg", 42, "textures", ("method=sigreg",))], tmp_path, ["hamjepa.mean=0"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chosen", ["", "regularizer=coding_rate", "regularizer=ham_sigreg_radial",
                                      "predictor.hamiltonian=quadratic"])  # fmt: skip
def test_a_key_that_nothing_reads_changes_nothing(method, chosen):
    """Every number of an objective's sections that is called unread is tripled; the model that is built is the same."""
    chosen = assignments([f"method={method}", *chosen.split()])
    recipe = compose("textures", chosen)
    sections = ("predictor.", "hamjepa.", "sigreg.")
    values = {k: v for k, v in flat(recipe.model_dump()).items() if k in unread(recipe) and k.startswith(sections)}
    moved = {k: 3 * v for k, v in values.items() if type(v) in (int, float) and v}
    moved = {k: v for k, v in moved.items() if not k.endswith(("participation", "top_share"))}  # at most 1
    assert len(moved) >= 3
    built = []
    for r in (recipe, compose("textures", chosen, moved)):
        torch.manual_seed(0)
        built.append(build_model(r, torch.Size([3, 32, 32])))
    assert repr(built[0]) == repr(built[1])
    first, second = (model.state_dict() for model in built)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_recipe_older_than_a_setting_has_its_default():
    recipe = load_recipe("textures")
    new = to_yaml(recipe)
    old = "\n".join(line for line in new.splitlines() if "learn_mass" not in line)
    assert len(old) < len(new)
    assert differing_keys(old, recipe, "old") == []
    assert differing_keys(old, load_recipe("textures", ["predictor.learn_mass=true"]), "old") == [
        "predictor.learn_mass"
    ]
    with pytest.raises(SystemExit, match="old: unknown key train.grad_clip in train"):
        differing_keys(new + "train.grad_clip: 1", recipe, "old")


# What the paper says


def test_cifar100_is_the_defaults_and_they_are_the_papers():
    r = load_recipe("cifar100")
    assert r == Recipe()
    assert (r.train.epochs, r.data.batch_size, r.train.seed, r.train.precision) == (30, 512, 42, "bf16")
    assert (r.data.global_views, r.data.local_views, r.local_scale) == (2, 0, (0.05, 0.3))
    a = r.augment
    assert (a.size, a.scale, a.flip, a.jitter, a.jitter_prob) == (32, (0.3, 1), 0.5, (0.4, 0.4, 0.2, 0.1), 0.8)
    assert (a.grayscale_prob, a.solarize_prob, a.solarize_threshold) == (0.2, 0.2, 128 / 255)
    assert (a.blur_prob, a.blur_kernel, a.blur_sigma) == (0.5, 3, (0.1, 2))
    o = r.optim
    assert (o.lr, o.weight_decay, o.warmup_epochs, o.warmup_factor, o.final_factor) == (5e-4, 5e-4, 10, 0.01, 0.001)
    p = r.predictor
    assert (p.dt, p.steps, p.hidden_dim, p.depth, p.activation) == (0.05, 2, 256, 2, "gelu")
    assert (p.base_coeff, p.residual_scale, p.residual_warmup_epochs, p.lr) == (0.1, 0.02, 10, None)
    assert clipping(r) == {"clip": 1.0, "clip_all": True}
    assert clipping(load_recipe("cifar100", ["method=sigreg"])) == {"clip": None}
    predictor = build_model(r, torch.Size([3, 32, 32])).objective.predictor
    assert predictor.hamiltonian.dim == 1024


def test_imagenet100_follows_the_published_run_and_its_text_is_two_settings_away():
    run, text = load_recipe("imagenet100"), load_recipe("imagenet100-text")
    assert (run.train.epochs, run.data.batch_size, run.data.image_size, run.data.crop) == (45, 256, 256, 224)
    assert (run.augment.size, run.augment.scale, run.augment.blur_kernel) == (224, (0.4, 1), 23)
    assert run.local_scale == (0.05, 0.4)
    e, h = run.encoder, run.hamjepa
    assert (e.stem, e.grid, e.token_layer, e.token_channels) == ("imagenet", 8, 3, 32)
    assert (run.predictor.lr, h.match, h.p_weight, h.reverse_time) == (5e-5, "qp", 0, False)
    assert run.predictor.residual_warmup_epochs == 0
    assert clipping(run) == {"clip": 1.0, "clip_all": False}
    assert text.predictor.residual_warmup_epochs == 10
    assert clipping(text) == {"clip": 1.0, "clip_all": True}
    assert differences(run, text) == {"predictor.residual_warmup_epochs", "hamjepa.clip"}
    assert (run.optim, run.sigreg) == (Recipe().optim, Recipe().sigreg)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["cifar100", "imagenet100"])
def test_recipes_and_library_presets_agree(name, method):
    ours = build_objective(load_recipe(name, [f"method={method}"]), 2048)
    preset = sj.sigreg_baseline() if method == "sigreg" else getattr(sj, f"hamjepa_{name}")(ours.predictor)
    assert repr(ours) == repr(preset)
    assert settings(ours) == settings(preset)

"""A table of bad recipes and overrides: each ends at once in a message with the key and the value."""

import os
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import BaseModel

from examples.recipe.schema import Recipe, load_recipe
from tests.helpers.refusals import refused

pytestmark = pytest.mark.usefixtures("at_once")
HUGE = "9" * 30


def fields(model, prefix=""):
    """Dotted key and annotation of every setting, and of every section."""
    for name, field in model.model_fields.items():
        annotation = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        yield f"{prefix}{name}", annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from fields(annotation, f"{prefix}{name}.")


def wrong(annotation: Any) -> list[str]:
    """Values that the annotation does not allow: of another type, and just beyond each bound."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        beyond = [_beyond(bound) for bound in inner[1:]]
        return [*wrong(inner[0]), *(value for value in beyond if value is not None)]
    if origin in (Union, UnionType):
        (kind,) = (x for x in inner if x is not type(None))
        return [value for value in wrong(kind) if value != "null"]
    if origin is Literal:
        return ["other", "[1]", "null", "{a: 1}"]
    if origin is tuple:
        return ["5", "[many]", "null", "{a: 1}", "[[1]]", *(["[1,1,1,1,1]"] if Ellipsis not in inner else [])]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return ["5", "[1]", "null"]
    return {
        bool: ["no", "1", "[true]", "null", "{a: 1}"],
        int: ["many", "1.5", "true", "nan", "inf", "[1]", "null", "{a: 1}", "${oc.env:HOME}", "0x10", "1e3", HUGE],
        float: ["many", "true", "nan", "inf", "1e400", "[1]", "null", "{a: 1}", "${oc.env:HOME}", "1,5"],
        str: ["[1]", "null", "{a: 1}"],
    }[annotation]


def _beyond(bound: Any) -> str | None:
    """A value that a bound excludes."""
    beyond = {
        Ge: lambda: bound.ge - 1, Gt: lambda: bound.gt, Le: lambda: bound.le + 1, Lt: lambda: bound.lt,
        MultipleOf: lambda: 2 * bound.multiple_of + 1, MinLen: str,
    }  # fmt: skip
    return str(beyond[type(bound)]()) if type(bound) in beyond else None


WRONG = {key: wrong(annotation) for key, annotation in fields(Recipe)}


@pytest.mark.parametrize("key", WRONG)
def test_a_value_that_its_field_does_not_allow_is_refused_by_key_and_value(key, tmp_path):
    path = tmp_path / "mine.yaml"
    for value in WRONG[key]:
        flow = value.startswith(("[", "{"))
        shown = "" if flow else value  # a list is shown as JSON
        refused(key, shown, call=lambda value=value: load_recipe("textures", [f"{key}={value}"]))
        path.write_text(f"{key}: {value or repr(value)}")
        refused(key, shown, path.name, call=lambda: load_recipe(str(path)))


# Files

FILES = {
    "train: {epochs: 1": "mine.yaml is not YAML",
    "train:\n\tepochs: 1": "mine.yaml is not YAML",
    "train: {epochs: 1}}": "mine.yaml is not YAML",
    "a: b: c": "mine.yaml is not YAML",
    "%YAML 9": "mine.yaml is not YAML",
    "a: 1\n---\nb: 2": "mine.yaml is not YAML",
    "a: 'x": "mine.yaml is not YAML",
    'a: "\\q"': "mine.yaml is not YAML",
    "\a": "mine.yaml is not YAML",
    "*x": "aliases",
    "a: &x [1]\nb: [*x, *x]": "aliases",
    "a: &a [l,l]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]": "aliases",
    "<<: {train: {epochs: 1}}": "unknown key <<",
    "[" * 20_000: "mine.yaml is not YAML",
    "{a: " * 20_000: "mine.yaml is not YAML",
    "- " * 20_000: "mine.yaml is not YAML",
    "? " * 20_000: "mine.yaml is not YAML",
    "".join(" " * i + "a:\n" for i in range(300)): "unknown key a.a",
    "a." * 20_000 + "a: 1": "mine.yaml is not YAML",
    "{" + "a." * 2000 + "a: 1}": "mine.yaml is not YAML",
    "train.out." + "a." * 200 + "a: 1": "unknown key train.out",
    "x" * 100_000: "mine.yaml is not YAML",
    "train.epochs: " + "9" * 40_000: "train.epochs",
    "5": "mine.yaml must be a mapping of settings, got '5'",
    "- train": "mine.yaml must be a mapping",
    "train": "mine.yaml must be a mapping",
    "[train]: 1": "a key must be a word",
    "{a: 1}: 1": "a key must be a word",
    "train: {epochs: 1, epochs: 2}": "train.epochs is given twice",
    "train: {epochs: 1}\ntrain.epochs: 1": "train.epochs is given twice",
    "train:\n  seed: 1\ntrain:\n  epochs: 1": "train is given twice",
    "hamjepa: {q: {std: 1}, q.std: 1}": "hamjepa.q.std is given twice",
    "train: 5\ntrain.seed: 1": "train.seed cannot be set: train is set to '5'",
    "train:\ntrain.seed: 1": "train.seed cannot be set: train is set to null",
    "train.seed: 1\ntrain.seed.x: 1": "train.seed.x cannot be set: train.seed is set to '1'",
    "1: 2": "unknown key 1",
    "'': 1": "unknown key ",
    "Train: {epochs: 1}": "unknown key Train",
    "train: {Epochs: 1}": "unknown key train.Epochs",
    "train: {epochs: 1, 2: 3}": "unknown key train.2",
    "base: 5": "recipe '5' not found",
    "base: nothing": "recipe 'nothing' not found",
    "base: nothing.yaml": "recipe 'nothing.yaml' not found",
    "base: [textures]": "base must be a recipe",
    "base: {a: 1}": "unknown key base",
    "base: imagenet100-text": "base must be a recipe without a base",
    "base: ${oc.env:HOME}": "not found",
    "train.epochs: !!python/object/apply:os.system [echo]": "train.epochs must be a valid integer",
    "train.epochs: !!int x": "train.epochs must be a valid integer",
    "train: !!binary aGk=": "train must be a valid dictionary",
    'train.out: "a\\0b"': "train.out must be a path",
    'train.out: "\\ud800"': "train.out must be a valid string",
    f"train.out: {'a' * 300}": "train.out must be a path",
    f"data.root: {'a' * 300}/b": "data.root must be a path",
}


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_a_bad_file_is_refused_by_name(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    refused(FILES[text], call=lambda: load_recipe(str(path)))


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "link.yaml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "fifo.yaml")
    for name in ("bytes", "folder", "link", "fifo", "missing"):
        refused(f"{name}.yaml", call=lambda name=name: load_recipe(str(tmp_path / f"{name}.yaml")))
    for name in ("", ".", "..", "~", "~nobody/x.yaml", "cifar10", "CIFAR100", "a\0b", "textures\n", "../textures"):
        refused(repr(name), "known recipes: cifar100", call=lambda name=name: load_recipe(name))


# Overrides that contradict each other or that nothing would read

TOGETHER = {
    "data.classes=9": "data.classes must be between 2 and 8 for textures, got 9",
    "data.global_views=3": "data.global_views must be 2 for method=hamjepa, which matches two views, got 3",
    "data.global_views=1": "data.global_views must be 2",
    "method=sigreg data.global_views=1": "data.global_views must be at least 2 without local views",
    "augment.size=64": "augment.size must be 32, the size of the images in evaluation, or encoder.grid be set",
    "augment.size=24 method=mlp_hjepa": "augment.size must be 32",
    "augment.size=24 method=sigreg regularizer=ham_sigreg": "augment.size must be 32",
    "augment.size=16 augment.blur_kernel=33": "augment.blur_kernel must be an odd number from 1 to 31",
    "augment.blur_kernel=4": "augment.blur_kernel must be an odd number",
    "augment.scale=[0.5,0.4]": "augment.scale must be a pair low <= high",
    "local_scale=[0.5,0.4]": "local_scale must be a pair low <= high",
    "encoder.token_channels=3": "encoder.token_channels must be a multiple of 2, got 3",
    "encoder.mode=global": "encoder.mode must be tokens for method=hamjepa",
    "encoder.projector=mlp": "encoder.projector must be identity for method=hamjepa",
    "hamjepa.match=qp": "hamjepa.p_weight must be 0 with hamjepa.match=qp, which already matches p, got 0.2",
    "predictor.hamiltonian=general": "predictor.integrator must be implicit_midpoint with hamiltonian=general",
    "predictor.hamiltonian=quadratic predictor.learn_mass=true": "predictor.learn_mass must be false",
    "predictor.learn_dt=true": "predictor.learn_dt must be false",
    "method=mlp_hjepa hamjepa.energy_weight=1": "hamjepa.energy_weight must be 0 for method=mlp_hjepa",
    "method=sigreg sigreg.convention=convex sigreg.weight=2": "sigreg.convention=convex needs a weight of at most 1",
    "regularizer=barlow_twins method=sigreg data.local_views=1": "data.local_views must leave two views",
    "evaluation.ks=[1,5]": "evaluation.ks must contain 20",
    "evaluation.ks=[]": "evaluation.ks must have at least 1 item",
    "optim.lr=0": "optim.lr must be greater than 0, got 0",
    "hamjepa.clip_grad=0": "hamjepa.clip_grad must be greater than 0, got 0",
    "method=sigreg sigreg.clip_grad=0": "sigreg.clip_grad must be greater than 0, got 0",
    "train.seed=99999999999": "train.seed must be less than 2147483648, got 99999999999",
    "train.device=gpu": "train.device must be auto or a device of this machine, got gpu",
    "train.device=cuda:99": "got cuda:99",
    "train.device=meta": "got meta",
    "train.device=cpu:1": "got cpu:1",
    "train.device=": "train.device must have at least 1 character",
    "train.device=cuda:-1": "got cuda:-1",
    "train.device=CPU": "got CPU",
    "train.cuda_graph=true train.device=cpu": "train.cuda_graph must be false without a CUDA device",
    "data.root=x": "data.root=x would be ignored",
    "data.workers=2": "data.workers=2 would be ignored",
    "method=sigreg hamjepa.mean=1": "hamjepa.mean=1.0 would be ignored",
    "sigreg.knots=17": "sigreg.knots=17 would be ignored",
    "encoder.stem=imagenet": "encoder.stem=imagenet would be ignored",
    "regularizer=vicreg hamjepa.budget=1": "hamjepa.budget=1.0 would be ignored",
    "train.epochs": "an override must be key=value, got 'train.epochs'",
    "=5": "an override must be key=value, got '=5'",
    "=": "an override must be key=value, got '='",
    "train..epochs=5": "unknown key train.",
    ".epochs=5": "unknown key ",
    "train.=5": "unknown key train.",
    "train.epochs.=5": "train.epochs",
    "train.epochs.x=5": "train.epochs.x cannot be set: train.epochs is set to '6'",
    "augment.jitter.0=1": "augment.jitter must be a valid tuple",
    "data.classes.x=1": "data.classes must be a valid integer",
    "train={seed:1,seed:2}": "unknown key train.seed:1",
    "train={epochs: 1}": "override 'train={epochs:' is not YAML",  # split by the shell
    "hamjepa.q={std:": "override 'hamjepa.q={std:' is not YAML",
    "evaluation.ks=[1,20": "override 'evaluation.ks=[1,20' is not YAML",
    "evaluation.ks=[1,20]]": "override 'evaluation.ks=[1,20]]' is not YAML",
    "train.epochs=1 train.epochs=1": "train.epochs is given twice",
    "base=textures": "unknown key base",
    "TRAIN.EPOCHS=1": "unknown key TRAIN",
    "a." * 20_000 + "a=1": "unknown key a.a.a",
    "train.out." + "a." * 5 + "a=1": "train.out must be a valid string",
    "--epochs=1": "unknown key --epochs",
    "train.epochs==1": "train.epochs must be a valid integer, unable to parse string as an integer, got =1",
    "train.epochs=１": "train.epochs",
    "hamjepa=null": "hamjepa must be a valid dictionary",
    "evaluation.ks=[${oc.env:HOME}]": "override 'evaluation.ks=[${oc.env:HOME}]'",
}


@pytest.mark.parametrize("overrides", TOGETHER)
def test_bad_overrides_are_refused_by_name(overrides):
    refused(TOGETHER[overrides], call=lambda: load_recipe("textures", overrides.split(" ")))


def test_text_stays_text_and_paths_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load_recipe("cifar100", ["train.out=0123", "data.root=~/data"])
    assert (recipe.train.out, recipe.data.root) == ("0123", f"{tmp_path}/data")
    assert load_recipe("textures", ["train.out=${oc.env:HOME}"]).train.out == "${oc.env:HOME}"  # nothing is resolved
    (tmp_path / "mine.yaml").write_text("base: textures\ntrain: {out: ~/runs/x, seed: 007}")
    mine = load_recipe("~/mine.yaml")
    assert (mine.out, mine.train.seed) == (tmp_path / "runs/x", 7)


def test_the_tables_are_as_large_as_they_say():
    assert sum(map(len, WRONG.values())) > 1000
    assert len(FILES) + len(TOGETHER) > 100

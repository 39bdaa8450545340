"""The recipe: its sections, the rules between them, which keys are read, and how to load one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError, model_validator
from typing_extensions import Self

from examples.recipe import sections
from examples.recipe.sections import Regularizer, Scale, Section, Weight
from examples.recipe.text import Settings, assignments, flat, nested, path, read
from examples.system.files import read_text
from examples.system.machine import pick_device

RECIPES = Path(__file__).parent
METHODS = {"hamjepa": "HamJEPA", "mlp_hjepa": "MLP-HJEPA", "sigreg": "SIGReg"}


class Recipe(Section):
    method: Literal["hamjepa", "mlp_hjepa", "sigreg"] = "hamjepa"  # mlp_hjepa: the residual-MLP ablation
    regularizer: Regularizer = "default"
    regularizer_weight: Weight | None = None  # with another one; defaults are in examples/model/penalties.py
    data: sections.Data = sections.Data()
    augment: sections.AugmentConfig = sections.AugmentConfig()
    local_scale: Scale = (0.05, 0.3)  # crop scale of local views
    encoder: sections.Encoder = sections.Encoder()
    predictor: sections.Predictor = sections.Predictor()
    hamjepa: sections.HamJEPA = sections.HamJEPA()
    sigreg: sections.SIGReg = sections.SIGReg()
    optim: sections.Optim = sections.Optim()
    train: sections.Train = sections.Train()
    evaluation: sections.Evaluation = sections.Evaluation()

    @property
    def out(self) -> Path:
        """The run's folder."""
        return Path(self.train.out or f"runs/{self.data.name.rpartition(':')[2]}-{self.method}-s{self.train.seed}")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Check what no section can check alone."""
        d, e, p = self.data, self.encoder, self.predictor
        weight, regularizer = self.regularizer_weight, self.regularizer
        method, other = f" for method={self.method}", f" for regularizer={regularizer}"
        kind = f" with hamiltonian={p.hamiltonian}"
        whole = " with train.parallel=fsdp: no rank alone has the weights to evaluate"
        states, views = self.method != "sigreg", d.global_views + d.local_views
        halves = states or regularizer.startswith("ham_sigreg")
        mixes = f"{method}: anything else mixes the channels of q and p" if states else f"{other}: it needs the grid"
        for applies, key, wanted, reason in (
            (halves, "encoder.mode", "tokens", mixes),
            (halves, "encoder.projector", "identity", mixes),
            (states, "data.global_views", 2, f"{method}, which matches two views"),
            (self.method == "mlp_hjepa", "hamjepa.energy_weight", 0, f"{method}, which has no energy"),
            (self.hamjepa.match == "qp", "hamjepa.p_weight", 0, " with hamjepa.match=qp, which already matches p"),
            (p.hamiltonian == "general", "predictor.integrator", "implicit_midpoint", f"{kind}: it does not split"),
            (p.hamiltonian != "separable", "predictor.learn_mass", False, f"{kind}, which has no learned mass"),
            (self.train.parallel == "fsdp", "evaluation.every", None, whole),
            (True, "predictor.learn_dt", False, ": dt -> 0 minimises the prediction loss"),
        ):
            if applies and (value := attrgetter(key)(self)) != wanted:
                raise ValueError(f"{key} must be {_shown(wanted)}{reason}, got {_shown(value)}")
        side = 32 if d.name in sections.CLASSES else d.crop
        if halves and e.mode == "tokens" and e.grid is None and self.augment.size != side:
            raise ValueError(
                f"augment.size must be {side}, the size of the images in evaluation, or encoder.grid be set: "
                f"otherwise the number of tokens differs, got {self.augment.size}"
            )
        if e.backbone.startswith("timm:") and self.augment.size != side:
            raise ValueError(
                f"augment.size must be {side}, the size of the images in evaluation, for "
                f"encoder.backbone={e.backbone}, got {self.augment.size}"
            )
        if d.streamed and d.epoch_size is None:
            raise ValueError(f"data.epoch_size must be the number of images per epoch for data.name={d.name}, got null")
        for key, value in {"classes": d.classes, "validation": d.validation}.items():
            if d.streamed and value:
                raise ValueError(f"data.{key} must not be set for images that are read in order, got {value}")
        if views < 2:
            raise ValueError("data.global_views must be at least 2 without local views: nothing to predict, got 1")
        if regularizer == "barlow_twins" and views != 2:
            raise ValueError(f"data.local_views must leave two views{other}, got {views} views")
        if regularizer in ("vicreg", "barlow_twins") and d.batch_size < 2:
            raise ValueError(f"data.batch_size must be at least 2{other}, which needs a variance, got {d.batch_size}")
        if not states and self.sigreg.convention == "convex":
            default = weight is None and regularizer.startswith("kerjepa")
            used = self.sigreg.weight if weight is None else weight
            if used > 1 or default:
                raise ValueError(
                    "sigreg.convention=convex needs a weight of at most 1, set regularizer_weight or sigreg.weight, "
                    f"got {'the default of ' + regularizer if default else used}"
                )
        return self


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name (``cifar100``) or path, apply overrides (``train.epochs=80``), and check it.

    A recipe file contains differences from the defaults or, with ``base: NAME``, from another recipe. One file serves
    every method: at least one method must read each of its keys. An override must be read by the method that is run.

    Raises:
        SystemExit: naming the file, the key, its value and what was expected.
    """
    settings = assignments(overrides)
    recipe = compose(name, settings)
    check_runs([recipe], settings)
    return recipe


def compose(name: str, *layers: Settings) -> Recipe:
    """A recipe with layers of settings on top; later layers win. The caller must also call `check_runs`.

    Raises:
        SystemExit: as `load_recipe`, and if a file outside this package sets a key that no method reads.
    """
    own = _file(name)
    settings = dict(own)
    if (base := settings.pop("base", None)) is not None:
        below = _file(base) if isinstance(base, str) else {"base": base}
        if "base" in below:
            raise SystemExit(f"{_path(name)}: base must be a recipe without a base of its own, got {base}")
        settings = {**below, **settings}
    for layer in layers:
        settings |= layer
    recipe = _validated(settings, f"recipe {name}")
    if _path(name).parent != RECIPES:
        switches = unread(recipe)  # an override may switch off what the file sets
        kept = [key for key in own if not any(switches.get(key) in layer for layer in layers)]
        refuse_ignored([recipe.model_copy(update={"method": m}) for m in METHODS], kept)
    return recipe


def read_recipe(text: str, where: str) -> Recipe:
    """A recipe from the YAML that `to_yaml` wrote; a setting added since then gets its default.

    Raises:
        SystemExit: naming ``where``, the key, its value and what was expected.
    """
    return _validated(read(text, where), where)


def to_yaml(recipe: Recipe) -> str:
    """The complete recipe as YAML, for the run's folder and its checkpoints."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def portable(recipe: Recipe, out: str) -> Recipe:
    """The recipe without this machine's paths; ``out`` names the run."""
    data = recipe.data.model_copy(update={"root": sections.Data().root, "cache": sections.Data().cache})
    train = recipe.train.model_copy(update={"out": out})
    return recipe.model_copy(update={"data": data, "train": train})


def check_runs(recipes: Sequence[Recipe], settings: Iterable[str]) -> None:
    """Refuse settings that none of the recipes reads, and recipes that this machine cannot run.

    Raises:
        SystemExit: as `refuse_ignored`, or naming the key, its value and what was expected.
    """
    refuse_ignored(recipes, settings)
    for recipe in recipes:
        refuse_file(recipe.out, "train.out")
        device = pick_device(recipe.train.device)
        if recipe.train.cuda_graph and device.type != "cuda":
            raise SystemExit(f"train.cuda_graph must be false without a CUDA device, got true on {device.type}")


def refuse_ignored(recipes: Sequence[Recipe], settings: Iterable[str]) -> None:
    """Refuse a key that differs from its default but that none of the recipes reads.

    Raises:
        SystemExit: naming the key, its value, and the setting that makes it unused.
    """
    ignored, chosen, defaults = [unread(r) for r in recipes], flat(recipes[0].model_dump()), flat(Recipe().model_dump())
    for key in settings:
        if key in defaults and chosen[key] != defaults[key] and all(key in keys for keys in ignored):
            reason = ignored[0][key]
            because = ", ".join(f"{k}={_shown(chosen[k])}" for k in dict.fromkeys((reason, "method")))
            raise SystemExit(f"{key}={_shown(chosen[key])} would be ignored: nothing reads it with {because}")


def refuse_taken(settings: Iterable[str], owners: Mapping[str, str]) -> None:
    """Refuse settings that a command chooses itself; ``owners`` says who, by key."""
    for key in settings:
        if key in owners:
            raise SystemExit(f"{key} is set by {owners[key]} itself; leave it out")


def refuse_file(folder: Path, name: str) -> None:
    """Refuse a path that cannot become a folder."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise SystemExit(f"{name} must be a folder, got {folder}: {there} is not a folder that can be written")


def unread(r: Recipe) -> dict[str, str]:
    """Keys that nothing reads, each with the setting that makes it unused."""
    matching, d, a, e, h = r.method != "sigreg", r.data, r.augment, r.encoder, r.hamjepa
    floors = matching and r.regularizer == "default"
    sigreg = r.regularizer == "sigreg" or (not matching and r.regularizer == "default")
    sliced = sigreg or r.regularizer.startswith("ham_sigreg")
    kind = r.predictor.hamiltonian if r.method == "hamjepa" else r.method
    residual = "predictor.activation predictor.residual_scale predictor.residual_warmup_epochs"
    hinges = ("log_det", "participation", "top_share", "proj_dim", "eps", "refresh_every", "bias_correction")
    rules = (
        *((key not in sections.READS.get(d.name, key).split(), "data.name", f"data.{key}") for key in sections.SOME),
        (not d.streamed and d.name == "huggingface", "data.stream", "data.train_size data.test_size data.epoch_size"),
        (not d.streamed and d.name == "huggingface", "data.stream", "data.shuffle"),
        (not d.local_views, "data.local_views", "local_scale"),
        (not a.jitter_prob, "augment.jitter_prob", "augment.jitter"),
        (not a.blur_prob, "augment.blur_prob", "augment.blur_kernel augment.blur_sigma"),
        (not a.solarize_prob, "augment.solarize_prob", "augment.solarize_threshold"),
        (e.backbone != "resnet18", "encoder.backbone", "encoder.stem encoder.token_layer"),
        (e.mode != "tokens", "encoder.mode", "encoder.token_channels encoder.grid"),
        (e.mode != "global", "encoder.mode", "encoder.global_dim"),
        (e.projector != "mlp", "encoder.projector", "encoder.projector_hidden encoder.projector_dim"),
        (not matching, "method", "predictor hamjepa"),
        (matching, "method", "sigreg.convention sigreg.clip_grad"),
        (kind == "mlp_hjepa", "method", f"{residual} predictor.hamiltonian predictor.integrator"),
        (kind == "quadratic", "predictor.hamiltonian", f"{residual} predictor.hidden_dim predictor.depth predictor.lr"),
        (kind != "separable", "predictor.hamiltonian", "predictor.base_coeff predictor.learn_mass"),
        (h.clip_grad is None, "hamjepa.clip_grad", "hamjepa.clip"),
        (not floors, "regularizer", "hamjepa.budget hamjepa.variance hamjepa.spectrum"),
        (not floors, "regularizer", "hamjepa.mean hamjepa.q hamjepa.p"),
        (not h.budget, "hamjepa.budget", "hamjepa.q.energy hamjepa.p.energy"),
        (not h.variance, "hamjepa.variance", "hamjepa.q.std hamjepa.p.std"),
        (not h.spectrum, "hamjepa.spectrum", " ".join(f"hamjepa.{half}.{key}" for half in "qp" for key in hinges)),
        (not sigreg, "regularizer", "sigreg.views"),
        (not sliced, "regularizer", "sigreg.knots sigreg.t_max"),
        (not sliced and r.regularizer != "kerjepa_sliced", "regularizer", "sigreg.slices sigreg.weight"),
        (r.regularizer_weight is not None, "regularizer_weight", "sigreg.weight"),
        (r.regularizer in ("default", "none"), "regularizer", "regularizer_weight"),
        (r.regularizer == "none", "regularizer", "optim.regularizer_warmup_epochs"),
    )
    values = flat(r.model_dump())
    found: dict[str, str] = {}
    for holds, reason, keys in rules:
        for key in values if holds else ():
            if any(key == k or key.startswith(f"{k}.") for k in keys.split()):
                found.setdefault(key, reason)
    if r.regularizer == "coding_rate":
        found.pop("hamjepa.budget")  # it fixes the scale of the features
    if r.regularizer == "ham_sigreg_radial":
        found.pop("predictor.lr", None)  # it applies to the geometry's parameters, too
    return found


def _path(name: str) -> Path:
    return path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"


def _file(name: str) -> Settings:
    file = _path(name)
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise SystemExit(f"recipe {name!r} not found at {file}; known recipes: {known}")
    return read(read_text(file), str(file))


def _validated(settings: Settings, where: str) -> Recipe:
    try:
        return Recipe.model_validate(nested(settings))
    except ValidationError as error:
        raise SystemExit(f"{where}: " + "\n".join(_explained(e) for e in error.errors())) from error


def _explained(error: Any) -> str:
    """One line: the full key, what was expected, and the value."""
    parts, key = error["loc"], ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in parts[:-1]:
            section = section.model_fields[part].annotation
        there = ".".join(parts[:-1])
        return f"unknown key {key}{f' in {there}' if there else ''}; known: {', '.join(section.model_fields)}"
    message = str(error["ctx"]["error"]) if "error" in error.get("ctx", {}) else error["msg"]
    if not parts:
        return message
    return f"{key} {re.sub(r'^(Input|String|Tuple) should', 'must', message)}, got {_shown(error['input'])}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:200] + "…"

"""Which recipes make sense: what would fail or be ignored later is refused at the start, by its full key."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING

import torch

from symplectic_jepa.integrators import SPLITTINGS

if TYPE_CHECKING:
    from examples.recipe.schema import Recipe

METHODS = {"hamjepa": "HamJEPA", "mlp_hjepa": "MLP-HJEPA", "sigreg": "SIGReg"}
FAMILY = (
    "sigreg", "vicreg", "barlow_twins", "coding_rate", "kerjepa", "kerjepa_sliced", "ham_sigreg", "ham_sigreg_radial",
)  # fmt: skip
REGULARIZERS = ("default", "none", *FAMILY)
CHOICES = {
    "method": tuple(METHODS),
    "encoder.backbone": ("resnet18", "small_cnn"),
    "encoder.mode": ("tokens", "global"),
    "encoder.projector": ("identity", "mlp"),
    "predictor.hamiltonian": ("separable", "quadratic", "general"),
    "predictor.integrator": (*SPLITTINGS, "implicit_midpoint", "explicit_euler"),
    "hamjepa.backward": ("reverse", "forward"),
    "regularizer": REGULARIZERS,
    "train.precision": ("bf16", "fp32"),
}
LEAST = {  # smallest value of every number that no module checks
    1: (
        "data.batch_size", "data.image_size", "data.crop",
        "data.train_size", "data.test_size", "data.global_views", "encoder.global_dim",
        "encoder.projector_hidden", "encoder.projector_dim", "train.epochs", "train.log_every",
        "train.checkpoint_every", "evaluation.probe_epochs", "evaluation.every",
    ),
    0: (
        "data.local_views", "data.cache_gib", "data.workers", "data.corrupt_share",
        "predictor.lr", "predictor.residual_warmup_epochs", "hamjepa.clip_grad", "sigreg.clip_grad",
        "optim.lr", "optim.weight_decay", "optim.warmup_epochs", "optim.warmup_factor", "optim.final_factor",
        "optim.regularizer_warmup_epochs", "regularizer_weight", "train.seed",
    ),
}  # fmt: skip


def check(recipe: Recipe) -> None:
    """Refuse values out of range, and combinations that no single module can see.

    Raises:
        SystemExit: naming the key, the value and what was expected.
    """
    for key, allowed in CHOICES.items():
        _choice(key, attrgetter(key)(recipe), allowed)
    _check_numbers(recipe)
    if recipe.method != "sigreg":
        _check_phase_space(recipe)
    if recipe.regularizer == "default" and recipe.regularizer_weight is not None:
        raise SystemExit(
            "regularizer_weight is the weight of another regularizer; the default ones' are hamjepa.* and sigreg.weight"
        )
    if recipe.regularizer.startswith("ham_sigreg") and recipe.encoder.mode != "tokens":
        raise SystemExit(f"regularizer {recipe.regularizer!r} needs encoder.mode=tokens: its geometry is of their grid")
    if recipe.regularizer == "barlow_twins" and recipe.data.global_views + recipe.data.local_views != 2:
        raise SystemExit("regularizer 'barlow_twins' needs two views: data.global_views=2 data.local_views=0")
    if recipe.predictor.learn_mass and recipe.predictor.hamiltonian != "separable":
        raise SystemExit(f"predictor.learn_mass needs hamiltonian 'separable', got {recipe.predictor.hamiltonian!r}")


def _choice(key: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise SystemExit(f"{key} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def _check_phase_space(recipe: Recipe) -> None:
    for key, value, needed in (
        ("encoder.mode", recipe.encoder.mode, "tokens"),
        ("encoder.projector", recipe.encoder.projector, "identity"),
    ):
        if value != needed:
            raise SystemExit(
                f"{key} must be {needed!r} for method {recipe.method!r}, got {value!r}: anything else mixes the "
                "channels of q and p, which the Hamiltonian tells apart"
            )
    _choice("data.global_views (matched by HamJEPA)", recipe.data.global_views, (2,))


def _check_numbers(recipe: Recipe) -> None:
    for minimum, keys in LEAST.items():
        for key in keys:
            value = attrgetter(key)(recipe)
            if value is not None and not minimum <= value < math.inf:
                raise SystemExit(f"{key} must be at least {minimum} and finite, got {value}")
    if recipe.data.name == "imagenet100" and recipe.data.crop > recipe.data.image_size:
        raise SystemExit(f"data.crop must be at most data.image_size, {recipe.data.image_size}, got {recipe.data.crop}")
    low, high = recipe.local_scale
    if not 0 < low <= high <= 1:
        raise SystemExit(f"local_scale must be a pair 0 < low <= high <= 1, got {recipe.local_scale}")
    if recipe.train.device != "auto":
        try:
            torch.device(recipe.train.device)
        except RuntimeError as error:
            raise SystemExit(
                f"train.device must be auto or a device of PyTorch, got {recipe.train.device!r}"
            ) from error

"""A recipe's penalties: the method's own, or another regularizer instead."""

from __future__ import annotations

import math

import symplectic_jepa as sj
from examples.recipe.schema import Recipe
from examples.recipe.sections import HamJEPA


def build_penalties(recipe: Recipe, dim: int) -> dict[str, sj.Penalty]:
    """The penalties that ``recipe.regularizer`` names, for states ``(V, B, dim)``."""
    own = recipe.regularizer == "default"
    if recipe.regularizer == "none":
        return {}
    if own and recipe.method != "sigreg":
        return build_floors(recipe.hamjepa, seed=recipe.train.seed)
    if own or recipe.regularizer == "sigreg":
        settings = recipe.sigreg.model_dump(include={"weight", "slices", "knots", "t_max", "views"})
        if recipe.regularizer_weight is not None:
            settings["weight"] = recipe.regularizer_weight
        return sj.sigreg_penalties(**settings, seed=recipe.train.seed)
    return _other(recipe, dim)


def build_floors(h: HamJEPA, *, seed: int) -> dict[str, sj.Penalty]:
    """HamJEPA's own penalties."""
    halves = {half: sj.Floors(**getattr(h, half).model_dump()) for half in ("q", "p")}
    weights = h.model_dump(include={"budget", "variance", "spectrum", "mean"})
    return sj.hamjepa_penalties(**halves, **weights, seed=seed)


def _other(recipe: Recipe, dim: int) -> dict[str, sj.Penalty]:
    """Regularizers from other systems. Weights are relative to a prediction loss of weight 1."""
    name, seed, s = recipe.regularizer, recipe.train.seed, recipe.sigreg

    def penalty(regularizer: sj.regularizers.BatchRegularizer, weight: float) -> dict[str, sj.Penalty]:
        chosen = weight if recipe.regularizer_weight is None else recipe.regularizer_weight
        return {name: sj.Penalty(regularizer, weight=chosen, views="separate")}

    if name == "vicreg":
        # The paper: 25 : 25 : 1, summed over two views. LeJEPA's prediction loss is an eighth of the distance.
        return penalty(sj.VICReg(), 0.01 if recipe.method == "sigreg" else 0.08)
    if name == "barlow_twins":
        # Keep the paper's λ D, with its D = 8192: the off-diagonal sum grows as D², the diagonal sum as D.
        return penalty(sj.BarlowTwins(redundancy=5e-3 * 8192 / dim), 1 / dim)
    if name == "coding_rate":
        # The rate grows with the scale of the features; the budget fixes it.
        budget = sj.Penalty(sj.EnergyBudget(), weight=recipe.hamjepa.budget)
        return {"budget": budget, **penalty(sj.CodingRate(), 1 / dim)}
    if name == "kerjepa":
        return penalty(sj.MMD(), 10.0)
    if name == "kerjepa_sliced":
        # √(2π) N times this is about SIGReg, whose weight is known.
        weight = s.weight * math.sqrt(2 * math.pi) * recipe.data.batch_size
        return penalty(sj.SlicedMMD(slices=s.slices, seed=seed), weight)
    grid = math.isqrt(dim // recipe.encoder.token_channels)
    kind = sj.geometries.RadialGeometry if name == "ham_sigreg_radial" else sj.geometries.LaplacianGeometry
    settings = s.model_dump(include={"slices", "knots", "t_max"})
    return penalty(sj.HamSIGReg(kind((grid, grid)), **settings, seed=seed), s.weight)

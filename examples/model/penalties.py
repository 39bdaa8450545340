"""A recipe's penalties: the method's own, or another regularizer in their place."""

from __future__ import annotations

import math

import symplectic_jepa as sj
from examples.recipe.schema import Recipe


def build_penalties(recipe: Recipe, dim: int) -> dict[str, sj.Penalty]:
    """The penalties on states ``(V, B, dim)`` that ``recipe.regularizer`` names."""
    if recipe.regularizer == "none":
        return {}
    if recipe.regularizer == "sigreg" or (recipe.regularizer == "default" and recipe.method == "sigreg"):
        s = recipe.sigreg
        weight = s.weight if recipe.regularizer_weight is None else recipe.regularizer_weight
        return sj.sigreg_penalties(
            weight=weight, slices=s.slices, knots=s.knots, t_max=s.t_max, views=s.views, seed=recipe.train.seed
        )
    if recipe.regularizer != "default":
        return _other(recipe, dim)
    h = recipe.hamjepa
    return sj.hamjepa_penalties(
        q=sj.Floors(**vars(h.q)), p=sj.Floors(**vars(h.p)), budget=h.budget, variance=h.variance,
        spectrum=h.spectrum, mean=h.mean, seed=recipe.train.seed,
    )  # fmt: skip


def _other(recipe: Recipe, dim: int) -> dict[str, sj.Penalty]:
    """Regularizers of other systems; their weights are relative to a prediction loss of weight 1."""
    name, seed, s = recipe.regularizer, recipe.train.seed, recipe.sigreg

    def penalty(regularizer: sj.regularizers.BatchRegularizer, weight: float) -> dict[str, sj.Penalty]:
        chosen = weight if recipe.regularizer_weight is None else recipe.regularizer_weight
        return {name: sj.Penalty(regularizer, weight=chosen, views="separate")}

    if name == "vicreg":
        # 25 : 25 : 1 in the paper, whose two views are summed; LeJEPA's prediction loss is an eighth of the distance.
        return penalty(sj.VICReg(), 0.01 if recipe.method == "sigreg" else 0.08)
    if name == "barlow_twins":
        # λ D as in the paper, whose D is 8192: the off-diagonal sum grows with D², the diagonal one with D.
        return penalty(sj.BarlowTwins(redundancy=5e-3 * 8192 / dim), 1 / dim)
    if name == "coding_rate":
        # The rate grows with the scale of the features; the budget fixes it.
        budget = sj.Penalty(sj.EnergyBudget(), weight=recipe.hamjepa.budget)
        return {"budget": budget, **penalty(sj.CodingRate(), 1 / dim)}
    if name == "kerjepa":
        return penalty(sj.MMD(), 10.0)
    if name == "kerjepa_sliced":
        # √(2π) N times it is about SIGReg, whose strength is a known one.
        weight = s.weight * math.sqrt(2 * math.pi) * recipe.data.batch_size
        return penalty(sj.SlicedMMD(slices=s.slices, seed=seed), weight)
    grid = math.isqrt(dim // recipe.encoder.token_channels)
    kind = sj.geometries.RadialGeometry if name == "ham_sigreg_radial" else sj.geometries.LaplacianGeometry
    regularizer = sj.HamSIGReg(kind((grid, grid)), slices=s.slices, knots=s.knots, t_max=s.t_max, seed=seed)
    return penalty(regularizer, s.weight)

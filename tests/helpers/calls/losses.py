"""Regularizers, penalties and objectives."""

import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa import objectives, regularizers
from tests.helpers import bad_values as bad
from tests.helpers.calls.call import SPD, VIEWS, D, Q, X, by_name, call
from tests.helpers.calls.dynamics import DRIVEN, GEOMETRIES, INNER, PREDICTORS, UNCONTROLLED

PREDICTOR = PREDICTORS["HamiltonianPredictor"]
REGULARIZERS = {
    "EnergyBudget": sj.EnergyBudget(),
    "VarianceFloor": sj.VarianceFloor(),
    "MeanPenalty": sj.MeanPenalty(),
    "SpectralFloors": sj.SpectralFloors(log_det=-1.0, participation=0.1, top_share=0.5, proj_dim=3),
    "ProjectedLogDetFloor": sj.ProjectedLogDetFloor(proj_dim=3),
    "ParticipationRatioFloor": sj.ParticipationRatioFloor(proj_dim=None),
    "TopEigenvalueCeiling": sj.TopEigenvalueCeiling(proj_dim=3),
    "SIGReg": sj.SIGReg(slices=8),
    "HamSIGReg": sj.HamSIGReg(GEOMETRIES["LaplacianGeometry"], slices=8),
    "MMD": sj.MMD(),
    "SlicedMMD": sj.SlicedMMD(slices=8),
    "VICReg": sj.VICReg(),
    "CodingRate": sj.CodingRate(),
}
SYNC = {"sync": (True, bad.flag), "process_group": (None, bad.group)}
DIRECTIONS = (torch.randn(2 * D, 3), bad.optional(bad.columns))
CORRECTED = {"bias_correction": (False, bad.flag)}
FLOORS = {
    "log_det": (-1.0, bad.optional(bad.number)),
    "participation": (0.1, bad.optional(bad.fraction)),
    "top_share": (0.3, bad.optional(bad.fraction)),
    "proj_dim": (3, bad.integer),
    "eps": (1e-4, bad.positive),
    "refresh_every": (2, bad.integer),
}
PROJECTION = {k: FLOORS[k] for k in ("proj_dim", "eps", "refresh_every")} | {"seed": (0, bad.seed), **SYNC}
SIGREG = {
    "slices": (8, bad.integer),
    "knots": (5, bad.integer),
    "t_max": (3.0, bad.positive),
    "seed": (0, bad.seed),
    **SYNC,
}
DRAWN = {
    "dim": (4, bad.integer),
    "k": (2, bad.integer),
    "generator": (torch.Generator(), bad.module),
    "dtype": (torch.float32, bad.float_type),
}
REGULARIZATION = {
    "EnergyBudget": call(sj.EnergyBudget, target=(1.0, bad.positive), **SYNC),
    "VarianceFloor": call(sj.VarianceFloor, floor=(1.0, bad.positive), eps=(1e-4, bad.positive), **SYNC),
    "MeanPenalty": call(sj.MeanPenalty, **SYNC),
    "SpectralFloors": call(sj.SpectralFloors, **FLOORS, **CORRECTED, seed=(0, bad.seed), **SYNC),
    "ProjectedLogDetFloor": call(sj.ProjectedLogDetFloor, floor=(-1.0, bad.number), **CORRECTED, **PROJECTION),
    "ParticipationRatioFloor": call(
        sj.ParticipationRatioFloor,
        floor=(0.1, bad.fraction),
        **CORRECTED,
        **{**PROJECTION, "proj_dim": (3, bad.optional(bad.integer))},
    ),
    "TopEigenvalueCeiling": call(sj.TopEigenvalueCeiling, ceiling=(0.1, bad.fraction), **PROJECTION),
    "SIGReg": call(sj.SIGReg, **SIGREG),
    "HamSIGReg": call(sj.HamSIGReg, geometry=(GEOMETRIES["MatrixGeometry"], bad.module), **SIGREG),
    "MMD": call(sj.MMD, bandwidth=(1.0, bad.optional(bad.positive)), **SYNC),
    "SlicedMMD": call(sj.SlicedMMD, slices=(8, bad.integer), bandwidth=(1.0, bad.positive), seed=(0, bad.seed), **SYNC),
    "VICReg": call(
        sj.VICReg,
        variance=(1.0, bad.nonnegative),
        covariance=(1.0, bad.nonnegative),
        floor=(1.0, bad.positive),
        eps=(1e-4, bad.positive),
        **SYNC,
    ),
    "BarlowTwins": call(sj.BarlowTwins, redundancy=(0.1, bad.nonnegative), eps=(1e-4, bad.positive), **SYNC),
    "CodingRate": call(sj.CodingRate, eps=(0.5, bad.positive), **SYNC),
    **{f"{name}()": call(regularizer, x=(X, bad.samples)) for name, regularizer in REGULARIZERS.items()},
    **{
        f"{name}.measure": call(by_name(regularizer.measure, "x"), x=(X, bad.samples))
        for name, regularizer in REGULARIZERS.items()
    },
    **{
        f"{name}, directions": call(REGULARIZERS[name], x=(X, bad.samples), directions=DIRECTIONS)
        for name in ("SIGReg", "HamSIGReg", "SlicedMMD")
    },
    "SpectralFloors, projection": call(REGULARIZERS["SpectralFloors"], x=(X, bad.samples), projection=DIRECTIONS),
    "BarlowTwins()": call(sj.BarlowTwins(), x=(X, bad.states), other=(X.flip(0), bad.optional(bad.states))),
    "log_det_per_dim": call(regularizers.log_det_per_dim, cov=(SPD, bad.covariance)),
    "participation_ratio": call(regularizers.participation_ratio, cov=(SPD, bad.covariance)),
    "top_eigenvalue": call(regularizers.top_eigenvalue, cov=(SPD, bad.covariance), squarings=(17, bad.integer)),
    "projected_covariance": call(
        regularizers.projected_covariance,
        x=(X, bad.samples),
        projection=(torch.eye(2 * D)[:, :3], bad.columns),
        eps=(1e-4, bad.nonnegative),
    ),
    "orthonormal_projection": call(regularizers.orthonormal_projection, **DRAWN),
    "unit_directions": call(regularizers.unit_directions, **DRAWN),
    "hold_draws": call(sj.hold_draws, module=(nn.ReLU(), bad.without(bad.module, "other module"))),
    "set_step": call(
        sj.set_step, module=(nn.ReLU(), bad.without(bad.module, "other module")), step=(3, bad.optional(bad.seed))
    ),
    "advance_draws": call(sj.advance_draws, module=(nn.ReLU(), bad.without(bad.module, "other module"))),
}
PENALTIES = {"mean": sj.Penalty(sj.MeanPenalty())}
PENALISED = {"penalties": (PENALTIES, bad.optional(bad.mapping)), **SYNC}
MATCHING = {
    "predictor": (PREDICTOR, bad.module),
    "match": ("q", bad.option),
    "p_weight": (0.1, bad.nonnegative),
    "bidirectional": (True, bad.flag),
    "reverse_time": (True, bad.flag),
    "energy_weight": (0.1, bad.nonnegative),
    "detach_target": (True, bad.flag),
}
OVER_TIME = {
    "predictor": (PREDICTOR, bad.module),
    "horizon": (1, bad.integer),
    "match": ("q", bad.option),
    "p_weight": (0.1, bad.nonnegative),
    "starts": ("every", bad.option),
    "bidirectional": (True, bad.flag),
    "horizon_weights": ((1.0,), bad.weights),
    "detach_target": (True, bad.flag),
}
PRESET = {"predictor": (PREDICTOR, bad.module), "seed": (0, bad.seed), **SYNC}
HAMJEPA = sj.HamJEPAObjective(PREDICTOR, penalties=sj.hamjepa_penalties())
LEJEPA = sj.sigreg_baseline()
OBJECTIVES = {
    "Penalty": call(
        sj.Penalty,
        regularizer=(sj.MeanPenalty(), bad.function),
        on=("q", bad.option),
        weight=(1.0, bad.nonnegative),
        views=("stacked", bad.option),
    ),
    "Penalty()": call(sj.Penalty(sj.MeanPenalty(), on="q"), states=(VIEWS, bad.samples)),
    "Penalty.measure": call(sj.Penalty(sj.MeanPenalty(), views="separate").measure, states=(VIEWS, bad.samples)),
    "HamJEPAObjective": call(sj.HamJEPAObjective, **MATCHING, **PENALISED),
    "LeJEPAObjective": call(
        sj.LeJEPAObjective, global_views=(2, bad.integer), convention=("convex", bad.option), **PENALISED
    ),
    "Objective": call(
        objectives.Objective,
        prediction=(objectives.ViewMean(2), bad.module),
        prediction_weight=(1.0, bad.nonnegative),
        **PENALISED,
    ),
    "ViewMean": call(objectives.ViewMean, global_views=(2, bad.integer)),
    "Matching": call(objectives.Matching, **MATCHING),
    "TrajectoryObjective": call(sj.TrajectoryObjective, **OVER_TIME, **PENALISED),
    "TrajectoryMatching": call(objectives.TrajectoryMatching, **OVER_TIME),
    "TrajectoryObjective()": call(
        by_name(sj.TrajectoryObjective(PREDICTOR, horizon=1), "states"),
        states=(VIEWS, bad.views),
        controls=UNCONTROLLED["control"],
        targets=(VIEWS, bad.optional(bad.states)),
    ),
    "TrajectoryObjective(), driven": call(
        by_name(sj.TrajectoryObjective(DRIVEN, horizon=1), "states"),
        states=(VIEWS, INNER),
        controls=(torch.randn(1, 6, 2), bad.without(bad.states, "wider")),
    ),
    "HamJEPAObjective()": call(by_name(HAMJEPA, "states"), states=(VIEWS, bad.views), **UNCONTROLLED),
    "HamJEPAObjective(), driven": call(
        by_name(sj.HamJEPAObjective(DRIVEN), "states"),
        states=(VIEWS, INNER),
        control=(torch.randn(6, 2), bad.states),
    ),
    "LeJEPAObjective()": call(
        by_name(LEJEPA, "states"),
        states=(VIEWS, bad.without(bad.views, "meta", "wider")),
        **UNCONTROLLED,
    ),
    "HamJEPAObjective.prediction_loss": call(
        by_name(HAMJEPA.prediction_loss, "z_a"), z_a=(X, bad.states), z_b=(X, bad.states)
    ),
    "LeJEPAObjective.prediction_loss": call(
        by_name(LEJEPA.prediction_loss, "states"), states=(VIEWS, bad.without(bad.views, "meta", "wider"))
    ),
    "set_regularizer_scale": call(HAMJEPA.set_regularizer_scale, scale=(1.0, bad.nonnegative)),
    "Objective.set_residual_scale": call(HAMJEPA.set_residual_scale, scale=(1.0, bad.number)),
    "mean_over_samples": call(objectives.mean_over_samples, losses=(Q[:, 0], bad.without(bad.alone, "scalar"))),
    "Floors": call(
        sj.Floors,
        energy=(1.0, bad.optional(bad.positive)),
        std=(0.2, bad.optional(bad.positive)),
        **FLOORS,
        **CORRECTED,
    ),
    "hamjepa_penalties": call(
        sj.hamjepa_penalties,
        q=(sj.Floors(std=0.2), bad.module),
        p=(sj.Floors(std=0.2), bad.module),
        **dict.fromkeys(("budget", "variance", "spectrum", "mean"), (0.5, bad.nonnegative)),
        seed=(0, bad.seed),
    ),
    "sigreg_penalties": call(
        sj.sigreg_penalties, weight=(0.1, bad.nonnegative), views=("stacked", bad.option), **SIGREG
    ),
    "hamjepa_cifar100": call(sj.hamjepa_cifar100, **PRESET),
    "hamjepa_imagenet100": call(sj.hamjepa_imagenet100, **PRESET),
    "sigreg_baseline": call(sj.sigreg_baseline, seed=(0, bad.seed), **SYNC),
}
CALLS = {**REGULARIZATION, **OBJECTIVES}

"""Evaluation and theory."""

import torch

from symplectic_jepa import evaluation, theory
from tests.helpers import bad_values as bad
from tests.helpers.calls.call import SPD, D, Q, X, Z, call
from tests.helpers.calls.dynamics import PREDICTORS, QUADRATIC

LABELS = (torch.tensor([0, 1, 2, 0, 1, 2]), bad.labels)
FEATURES = (X, bad.features)
LABELLED = {
    "train_features": FEATURES,
    "train_labels": LABELS,
    "test_features": FEATURES,
    "test_labels": LABELS,
}
GROUP = {"process_group": (None, bad.group)}
MAP = (PREDICTORS["HamiltonianPredictor"], bad.function)
STATES = (Z, bad.without(bad.states, "numpy"))
EVALUATION = {
    "linear_probe": call(
        evaluation.linear_probe,
        **LABELLED,
        num_classes=(3, bad.optional(bad.integer)),
        epochs=(1, bad.integer),
        batch_size=(4, bad.integer),
        lr=(1e-3, bad.positive),
        weight_decay=(0.0, bad.nonnegative),
        seed=(0, bad.seed),
        **GROUP,
    ),
    "knn_sweep": call(
        evaluation.knn_sweep, **LABELLED, ks=((1, 2), bad.neighbours), chunk_size=(4, bad.integer), **GROUP
    ),
    "spectrum": call(
        evaluation.spectrum,
        features=FEATURES,
        samples=(4, bad.integer),
        top=(2, bad.integer),
        seed=(0, bad.seed),
        **GROUP,
    ),
    "effective_rank": call(evaluation.effective_rank, eigenvalues=(torch.rand(D), bad.spectrum)),
    "pair_cosines": call(evaluation.pair_cosines, features=FEATURES, pairs=(4, bad.integer), seed=(0, bad.seed)),
    "feature_norms": call(evaluation.feature_norms, features=FEATURES),
    "alignment": call(evaluation.alignment, z_a=FEATURES, z_b=FEATURES),
    "uniformity": call(evaluation.uniformity, z=FEATURES, t=(2.0, bad.positive), **GROUP),
    "symplecticity_defect": call(evaluation.symplecticity_defect, step=MAP, z=STATES),
    "reversibility_error": call(evaluation.reversibility_error, forward=MAP, backward=MAP, z=STATES),
    "energy_drift": call(
        evaluation.energy_drift, hamiltonian=(QUADRATIC, bad.function), step=MAP, z=STATES, steps=(2, bad.integer)
    ),
}
MATRIX = (SPD, bad.matrix)
BUDGET = {"H": MATRIX, "budget": (1.0, bad.positive_quantity)}
BOUND = {
    "log_det": (-1.0, bad.quantity),
    "trace": (3.0, bad.positive_quantity),
    "k": (3, bad.integer),
    "participation": (2.0, bad.without(bad.positive_quantity, "None")),
}
FIT = {
    "features": FEATURES,
    "labels": (LABELS[0], bad.without(bad.labels, "floating")),
    "tasks": ("readouts", bad.option),
    "ridge": (0.1, bad.positive),
}
BATCH = (SPD.expand(2, D, D), None)
BATCHED = {
    "k": (3, None),
    **{name: (torch.ones(2), bad.unmatched) for name in ("log_det", "trace", "participation")},
}
OF_BUDGET = (
    "minimax_covariance", "minimax_value", "maximum_entropy_distribution", "isotropic_covariance", "quadratic_lift",
)  # fmt: skip
OF_COVARIANCE = ("worst_case_variance", "metric_anisotropy")
THEORY = {
    "fit_geometry": call(theory.fit_geometry, **FIT),
    "isotropy_report": call(theory.isotropy_report, **FIT),
    "min_eigenvalue_bound": call(theory.min_eigenvalue_bound, **BOUND),
    "min_eigenvalue_bound, batch": call(theory.min_eigenvalue_bound, **BATCHED),
    "max_eigenvalue_bound": call(
        theory.max_eigenvalue_bound, trace=BOUND["trace"], participation=(2.0, bad.positive_quantity)
    ),
    "condition_number_bound": call(
        theory.condition_number_bound, **{**BOUND, "participation": (2.0, bad.positive_quantity)}
    ),
    "condition_number_bound, batch": call(theory.condition_number_bound, **BATCHED),
    "conditional_distribution": call(
        theory.conditional_distribution, cov=MATRIX, cross=(0.1 * SPD, bad.without(bad.matrix, "skew", "negative"))
    ),
    "scaled_coupling": call(theory.scaled_coupling, cov=MATRIX, rho=(0.5, bad.quantity)),
    "kick_drift_scaling": call(
        theory.kick_drift_scaling,
        matrix=(torch.eye(D).double(), bad.without(bad.matrix, "negative")),
        tolerance=(1e-5, bad.nonnegative),
    ),
    **{name: call(getattr(theory, name), **BUDGET) for name in OF_BUDGET},
    # It needs the dimension of H alone.
    "minimax_value": call(
        theory.minimax_value, H=(SPD, bad.without(bad.matrix, "skew", "negative")), budget=BUDGET["budget"]
    ),
    **{
        f"{name}, batch": call(getattr(theory, name), H=BATCH, budget=(torch.ones(2), bad.unmatched))
        for name in OF_BUDGET
    },
    "geometry_of_covariance": call(theory.geometry_of_covariance, cov=MATRIX, budget=BUDGET["budget"]),
    **{name: call(getattr(theory, name), H=MATRIX, cov=MATRIX) for name in OF_COVARIANCE},
    **{f"{name}, batch": call(getattr(theory, name), H=BATCH, cov=(SPD, bad.misfit)) for name in OF_COVARIANCE},
    "regret": call(theory.regret, H=MATRIX, shape=MATRIX),
    "price_of_isotropy": call(theory.price_of_isotropy, H=MATRIX),
    "whiten": call(theory.whiten, z=(Q.double(), bad.without(bad.states, "numpy")), H=MATRIX),
    "whiten, batch": call(theory.whiten, z=(Q.double(), bad.misfit), H=BATCH),
    "adversarial_geometry": call(theory.adversarial_geometry, shape=MATRIX, epsilon=(0.1, bad.share)),
    "quadratic_flow": call(theory.quadratic_flow, H=MATRIX, time=(1.0, bad.quantity)),
    "quadratic_flow, batch": call(theory.quadratic_flow, H=BATCH, time=(torch.ones(2), bad.unmatched)),
}
CALLS = {**EVALUATION, **THEORY}

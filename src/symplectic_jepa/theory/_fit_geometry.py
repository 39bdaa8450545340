"""The geometry of real tasks, estimated from labelled features, and how well the features match it."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa.theory._inputs import trace, without_scale
from symplectic_jepa.theory.isotropy import price_of_isotropy, regret

Tasks = Literal["readouts", "class_means"]


class IsotropyReport(NamedTuple):
    """A fitted geometry and what it says about the features it was fitted on; float64.

    Attributes:
        geometry: ``H``, ``(D, D)``, from `fit_geometry`.
        price: `price_of_isotropy` under ``H``: what an isotropic encoder would pay, ``≥ 1``.
        regret: `regret` of the features' own covariance shape under ``H``, ``≥ 1``.
        worst_case_ratio: worst-case task variance of the features over that of isotropic ones with the same
            ``tr(HΣ)``: ``regret / price``, below 1 if the features are better than isotropic ones.
    """

    geometry: Tensor
    price: Tensor
    regret: Tensor
    worst_case_ratio: Tensor


@torch.no_grad()
def fit_geometry(features: Array, labels: Array, *, tasks: Tasks = "readouts", ridge: float = 1e-3) -> Tensor:
    r"""``H ∝ W + ridge · I`` with ``W`` the second moment of linear tasks ``w`` on the features.

    Integer labels ``(N,)`` define one-vs-rest tasks, whose targets are centred and scaled to unit variance (so rare
    classes count as much as common ones). Floating labels ``(N, T)`` define ``T`` regressions in their own units. The
    paper does not say how to estimate ``H`` [paper, limitations]; this is the moment estimator of its task model
    [paper, equation 4].

    Args:
        features: ``(N ≥ 2, D)``, a tensor or a numpy array.
        labels: integer classes ``(N,)``, two or more different ones, or floating targets ``(N, T)``; a tensor or an
            array.
        tasks: ``"readouts"``, ridge regressions ``(Σ + ridge · (tr Σ / D) I)⁻¹ cov(z, y)``, or ``"class_means"``,
            ``cov(z, y)``: for classes, the difference between class mean and overall mean, which needs no inverse.
        ridge: share of the identity in ``H`` (and of the regularization in a readout), above 0. ``W`` has at most the
            rank of the tasks, below ``D`` for most data sets: eigenvalues outside it are ``ridge / (1 + ridge)``, and
            everything that uses ``H⁻¹`` depends on this choice.

    Returns:
        ``H``, ``(D, D)``, float64, positive definite, scaled to ``tr H = D``: as it is what `MatrixGeometry` takes.

    Raises:
        TypeError: if features are not floating, or labels are neither integer nor floating.
        ValueError: if a shape or setting is wrong, features or targets are constant, or not finite.
    """
    return _fit(*_centred(features, labels), tasks=tasks, ridge=ridge)


@torch.no_grad()
def isotropy_report(
    features: Array, labels: Array, *, tasks: Tasks = "readouts", ridge: float = 1e-3
) -> IsotropyReport:
    """Price of isotropy, regret and worst-case variance of trained features [paper, theorems 3.4 and 3.8].

    Compare encoders only at equal ``ridge``, preferably at several values. With fewer tasks than dimensions ``price``
    approaches ``D`` over the number of tasks, or more, as ``ridge → 0``.

    Args:
        features: as in `fit_geometry`.
        labels: as in `fit_geometry`.
        tasks: as in `fit_geometry`.
        ridge: as in `fit_geometry`.

    Returns:
        An `IsotropyReport`.

    Raises:
        TypeError: as in `fit_geometry`.
        ValueError: as in `fit_geometry`.
    """
    x, y = _centred(features, labels)
    geometry = _fit(x, y, tasks=tasks, ridge=ridge)
    price, own = price_of_isotropy(geometry), regret(geometry, x.mT @ x / len(x))
    return IsotropyReport(geometry, price, own, own / price)


def _fit(x: Tensor, y: Tensor, *, tasks: Tasks, ridge: float) -> Tensor:
    _checks.one_of("tasks", tasks, get_args(Tasks))
    _checks.finite("ridge", ridge, minimum=0.0, exclusive=True)
    dim = x.shape[1]
    eye = torch.eye(dim, dtype=x.dtype, device=x.device)
    w = x.mT @ y / len(x)
    if tasks == "readouts":
        cov = x.mT @ x / len(x)
        w = torch.linalg.solve(cov + ridge * trace(cov) / dim * eye, w)
    # Tasks wᵀH⁻¹w ≤ 1 are w = H^{1/2}u in the unit ball; for isotropic u, E[wwᵀ] = H^{1/2} E[uuᵀ] H^{1/2} ∝ H:
    # the second moment of the tasks is H, not H⁻¹ (H is large along the directions that tasks use).
    moment = w @ w.mT
    size = trace(moment)
    if not size > 0:
        raise ValueError(f"labels must be correlated with features, got tasks of squared size {size.item():.3g}")
    return (moment * (dim / size) + ridge * eye) / (1 + ridge)


def _centred(features: Array, labels: Array) -> tuple[Tensor, Tensor]:
    features = _checks.samples("features", _checks.array("features", features), minimum=2)
    labels = _checks.array("labels", labels)
    if features.ndim != 2 or not features.isfinite().all():
        raise ValueError(f"features must be finite, of shape (N >= 2, D), got {tuple(features.shape)}")
    x = without_scale(features.to(torch.float64))  # neither H nor the report depends on it
    x = x - x.mean(0)
    if not x.square().sum() > 0:
        raise ValueError("features must vary, got equal rows: the encoder has collapsed")
    if labels.is_floating_point():
        if labels.ndim != 2 or len(labels) != len(x) or not labels.numel() or not labels.isfinite().all():
            raise ValueError(f"floating labels must be finite, of shape ({len(x)}, T >= 1), got {tuple(labels.shape)}")
        y = without_scale(labels.to(x))
        return x, y - y.mean(0)
    if labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integer classes or floating targets, got dtype {labels.dtype}")
    if labels.shape != x.shape[:1]:
        raise ValueError(f"integer labels must have shape ({len(x)},), got {tuple(labels.shape)}")
    classes, index = torch.unique(labels.to(x.device), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels must contain at least two classes, got {classes.tolist()}")
    y = torch.nn.functional.one_hot(index).to(x)
    y = y - y.mean(0)
    return x, y / y.square().mean(0).sqrt()

"""The penalties of HamJEPA and of the baseline, with the paper's settings."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import Unpack

from symplectic_jepa import _checks
from symplectic_jepa.objectives.penalty import Part, Penalty, Views
from symplectic_jepa.regularizers import EnergyBudget, MeanPenalty, SIGReg, SpectralFloors, VarianceFloor
from symplectic_jepa.regularizers.sigreg import SIGRegSettings
from symplectic_jepa.regularizers.spectral_floors import EPS, PROJ_DIM, REFRESH_EVERY


@dataclass(frozen=True)
class Floors:
    """Targets of the penalties on one half of the state; ``None`` disables one [paper, appendix F.11].

    Attributes:
        energy: energy budget ``τ``.
        std: variance floor ``σ_min``.
        log_det: log-det floor ``ℓ_min``.
        participation: participation-ratio floor ``r_min`` of ``PR/k``.
        top_share: ceiling ``a_max`` of ``λ_max / tr``.
        proj_dim: dimension ``k`` of the projected covariance, which the last three use.
        eps: ridge of that covariance.
        refresh_every: training steps between projections.
        bias_correction: compare log-det and participation ratio of the distribution, not of the batch; see
            `SpectralFloors`. The targets then mean the same at every batch size, and the paper's have to be raised.

    Raises:
        ValueError: if an argument is out of range.
    """

    energy: float | None = None
    std: float | None = None
    log_det: float | None = None
    participation: float | None = None
    top_share: float | None = None
    proj_dim: int = PROJ_DIM
    eps: float = EPS
    refresh_every: int = REFRESH_EVERY
    bias_correction: bool = False

    def __post_init__(self) -> None:
        for name in ("energy", "std"):
            if getattr(self, name) is not None:
                _checks.finite(name, getattr(self, name), minimum=0.0, exclusive=True)
        for name in ("participation", "top_share"):
            if getattr(self, name) is not None:
                _checks.fraction(name, getattr(self, name))
        if self.log_det is not None:
            _checks.finite("log_det", self.log_det)
        _checks.positive_int("proj_dim", self.proj_dim)
        _checks.finite("eps", self.eps, minimum=0.0, exclusive=True)
        _checks.positive_int("refresh_every", self.refresh_every)
        _checks.boolean("bias_correction", self.bias_correction)


CIFAR100_Q = Floors(energy=1.0, std=0.2, log_det=-1.5, participation=0.12, top_share=0.35)
CIFAR100_P = Floors(energy=1.0, std=0.2, log_det=-1.5, participation=0.16, top_share=0.30)


def hamjepa_penalties(
    *,
    q: Floors = CIFAR100_Q,
    p: Floors = CIFAR100_P,
    budget: float = 0.2,
    variance: float = 0.5,
    spectrum: float = 0.5,
    mean: float = 0.05,
    seed: int = 0,
) -> dict[str, Penalty]:
    """HamJEPA's penalties on ``q``, ``p`` and ``z`` [paper, eq. 30 and appendix F.8].

    ``λ_budget (budget_q + budget_p) + λ_var (var_q + var_p) + λ_logdet (floor_q + floor_p) + λ_mean mean_z``; a weight
    of 0 disables its penalties. The defaults are the paper's for CIFAR-100.

    Args:
        q: targets for positions.
        p: targets for momenta.
        budget: weight ``λ_budget`` of the energy budgets.
        variance: weight ``λ_var`` of the variance floors.
        spectrum: weight ``λ_logdet`` of all three spectral hinges.
        mean: weight ``λ_mean`` of the mean penalty.
        seed: seed of the projections; ``p`` uses ``seed + 1``.

    Returns:
        Penalties named ``budget_q``, ``budget_p``, ``variance_q``, …, ``spectrum_p``, ``mean``.

    Raises:
        TypeError: if ``q`` or ``p`` is not a `Floors`.
        ValueError: if a weight or ``seed`` is negative.
    """
    for name, floors in (("q", q), ("p", p)):
        _checks.instance(name, floors, Floors)
    for name, weight in (("budget", budget), ("variance", variance), ("spectrum", spectrum), ("mean", mean)):
        _checks.finite(name, weight, minimum=0.0)
    _checks.integer("seed", seed)
    penalties: dict[str, Penalty] = {}
    halves: tuple[tuple[Part, Floors], ...] = (("q", q), ("p", p))
    for offset, (half, floors) in enumerate(halves):
        if budget and floors.energy is not None:
            penalties[f"budget_{half}"] = Penalty(EnergyBudget(floors.energy), on=half, weight=budget)
        if variance and floors.std is not None:
            penalties[f"variance_{half}"] = Penalty(VarianceFloor(floors.std), on=half, weight=variance)
        hinges = (floors.log_det, floors.participation, floors.top_share)
        if spectrum and any(hinge is not None for hinge in hinges):
            floor = SpectralFloors(
                log_det=floors.log_det,
                participation=floors.participation,
                top_share=floors.top_share,
                proj_dim=floors.proj_dim,
                eps=floors.eps,
                refresh_every=floors.refresh_every,
                bias_correction=floors.bias_correction,
                seed=seed + offset,
            )
            penalties[f"spectrum_{half}"] = Penalty(floor, on=half, weight=spectrum)
    if mean:
        penalties["mean"] = Penalty(MeanPenalty(), weight=mean)
    return penalties


def sigreg_penalties(
    *, weight: float = 0.02, views: Views = "separate", **settings: Unpack[SIGRegSettings]
) -> dict[str, Penalty]:
    """The baseline's penalty: SIGReg of the whole state, per view, with the paper's settings [paper, appendix F.11].

    Args:
        weight: weight ``λ`` of the penalty.
        views: ``"separate"`` (per view) or ``"stacked"`` (pooled).
        settings: arguments of `SIGReg`; here ``slices=64`` and ``knots=9`` by default, as in the paper.
    """
    chosen: SIGRegSettings = {"slices": 64, "knots": 9}
    chosen.update(settings)
    return {"sigreg": Penalty(SIGReg(**chosen), weight=weight, views=views)}

"""Which regularizer acts on which part of the states, with which weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import ExactBuffers, exact_scalar
from symplectic_jepa.distributed import count
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.regularizers import (
    BatchRegularizer,
    EnergyBudget,
    MeanPenalty,
    Reduction,
    SIGReg,
    SpectralFloors,
    VarianceFloor,
    complete,
)
from symplectic_jepa.state import split_state


class Penalty(Pretrained, nn.Module):
    """A regularizer, the part of the state that it reads, and its weight [paper, eq. 30].

    Args:
        regularizer: any module or function ``(..., N, D) → scalar``.
        on: ``"q"``, ``"p"`` or ``"z"`` (the whole state).
        weight: its factor in the objective.
        views: ``"stacked"`` treats all views as one sample of ``V · B`` rows, ``"separate"`` averages over views.

    Raises:
        TypeError: if ``regularizer`` cannot be called.
        ValueError: for an unknown ``on`` or ``views``, or a negative weight.
    """

    def __init__(
        self,
        regularizer: nn.Module | Callable[[Tensor], Tensor],
        *,
        on: str = "z",
        weight: float = 1.0,
        views: str = "stacked",
    ) -> None:
        super().__init__()
        if not callable(regularizer):
            raise TypeError(f"regularizer must be a module or a function, got {type(regularizer).__name__}")
        self.regularizer = regularizer
        self.on = _checks.one_of("on", on, ("q", "p", "z"))
        self.weight = _checks.finite("weight", weight, minimum=0.0)
        self.views = _checks.one_of("views", views, ("stacked", "separate"))

    def forward(self, states: Tensor) -> Tensor:
        """The unweighted penalty of states ``(V, B, D)``."""
        penalty: Tensor = self.regularizer(self._samples(state_parts(states, {self.on})[self.on]))
        return penalty

    def reduction(self, part: Tensor) -> Reduction:
        """The penalty of its part of the states in two halves, for one collective in a whole objective."""
        samples = self._samples(part)
        if isinstance(self.regularizer, BatchRegularizer) and self.regularizer.sync:
            return self.regularizer.reduction(samples)
        value: Tensor = self.regularizer(samples)
        return Reduction([], lambda _: value)

    def _samples(self, part: Tensor) -> Tensor:
        return part.flatten(0, -2) if self.views == "stacked" else part

    @property
    def statistics(self) -> dict[str, Tensor]:
        """What the regularizer measured last; empty if it does not say."""
        return getattr(self.regularizer, "statistics", {})

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"on={self.on!r}, weight={self.weight:g}, views={self.views!r}"


class ObjectiveOutput(NamedTuple):
    """A loss to call ``backward`` on, and its unweighted terms (detached, on the device) by name, for logging."""

    loss: Tensor
    terms: dict[str, Tensor]


class PenalizedObjective(Pretrained, ExactBuffers):
    """What the objectives share: ``L = L_pred + scale · Σ weight · penalty`` over states ``(V, B, D)``.

    ``regularizer_scale`` is a buffer (1 unless `set_regularizer_scale` is called), so that a warm-up of all penalties
    neither recompiles nor breaks a captured graph. The loss is that of the global batch when ``torch.distributed`` is
    initialised, equal on every rank, from one collective (and a small one for each `MMD`, of its numbers of rows); its
    gradients are exact under `DistributedDataParallel`. ``sync=False`` turns that off, in every penalty's regularizer
    too.
    """

    regularizer_scale: Tensor
    _exact = ("regularizer_scale",)

    def __init__(self, penalties: Mapping[str, Penalty] | None, *, sync: bool = True) -> None:
        super().__init__()
        self.sync = sync
        for name, penalty in (penalties or {}).items():
            if not isinstance(penalty, Penalty):
                raise TypeError(f"penalties[{name!r}] must be a Penalty, got {type(penalty).__name__}")
        if "prediction" in (penalties or {}):
            raise ValueError("penalties must not use the name 'prediction', that of the prediction loss in the terms")
        self.penalties = nn.ModuleDict(penalties)
        if not sync:
            for _, penalty in self._named_penalties():
                if isinstance(penalty.regularizer, BatchRegularizer):
                    penalty.regularizer.sync = False
        self.register_buffer("regularizer_scale", exact_scalar(1.0))

    def set_regularizer_scale(self, scale: float) -> None:
        """Set the factor of all penalties in place, without a host synchronisation.

        Raises:
            ValueError: if ``scale`` is negative or not finite.
        """
        self.regularizer_scale.fill_(_checks.finite("scale", scale, minimum=0.0))

    def statistics(self) -> dict[str, Tensor]:
        """Statistics of the last call as ``"penalty/statistic"``, detached and on the device."""
        return {
            f"{name}/{key}": value
            for name, penalty in self._named_penalties()
            for key, value in penalty.statistics.items()
        }

    def _named_penalties(self) -> Iterator[tuple[str, Penalty]]:
        for name, penalty in self.penalties.items():
            assert isinstance(penalty, Penalty)
            yield name, penalty

    def _total(
        self, prediction: Reduction, parts: Mapping[str, Tensor], *, prediction_weight: float = 1.0
    ) -> ObjectiveOutput:
        named = list(self._named_penalties())
        predicted, *values = complete(
            [prediction, *(penalty.reduction(parts[penalty.on]) for _, penalty in named)], sync=self.sync
        )
        terms = {"prediction": predicted.detach()}
        # Not 1 · predicted: inductor would drop the product, and return the detached term in the loss's place.
        loss = predicted if prediction_weight == 1 else prediction_weight * predicted
        for (name, penalty), value in zip(named, values, strict=True):
            terms[name] = value.detach()
            loss = loss + (penalty.weight * self.regularizer_scale.to(value.dtype)).squeeze() * value
        return ObjectiveOutput(loss, terms)


def state_parts(states: Tensor, wanted: set[str]) -> dict[str, Tensor]:
    """``z``, and ``q`` and ``p`` if wanted, split once for all: the gradient of every split is as large as ``z``."""
    parts = {"z": states}
    if wanted - {"z"}:
        parts["q"], parts["p"] = split_state(states)
    return parts


def mean_over_samples(losses: Tensor) -> Reduction:
    """The mean of per-sample losses ``(...)`` over the global batch."""

    def finish(sums: list[Tensor]) -> Tensor:
        return sums[1] / sums[0].to(losses.dtype)

    return Reduction([count(losses.numel(), losses), losses.sum()], finish)


def check_states(states: Tensor, *, views: int) -> Tensor:
    """Return ``states`` if they are ``(V, B, D)`` with at least ``views`` views."""
    if states.ndim != 3 or states.shape[0] < views:
        raise ValueError(f"states must have shape (V >= {views}, B, D), got {tuple(states.shape)}")
    return _checks.samples("states", states)


@dataclass
class Floors:
    """Targets of the penalties on one half of the state; ``None`` leaves a penalty out [paper, appendix F.11].

    Attributes:
        energy: energy budget ``τ``.
        std: variance floor ``σ_min``.
        log_det: log-det floor ``ℓ_min``.
        participation: participation-ratio floor ``r_min`` of ``PR/k``.
        top_share: ceiling ``a_max`` of ``λ_max / tr``.
        proj_dim: dimension ``k`` of the projected covariance that the last three read.
        eps: its ridge.
        refresh_every: training steps between projections.
    """

    energy: float | None = 1.0
    std: float | None = 0.2
    log_det: float | None = -1.5
    participation: float | None = 0.12
    top_share: float | None = 0.35
    proj_dim: int = 128
    eps: float = 1e-4
    refresh_every: int = 16


def hamjepa_penalties(
    *,
    q: Floors,
    p: Floors,
    budget: float = 0.2,
    variance: float = 0.5,
    spectrum: float = 0.5,
    mean: float = 0.05,
    seed: int = 0,
) -> dict[str, Penalty]:
    """HamJEPA's penalties on ``q``, ``p`` and ``z`` [paper, eq. 30 and appendix F.8].

    ``λ_budget (budget_q + budget_p) + λ_var (var_q + var_p) + λ_logdet (floor_q + floor_p) + λ_mean mean_z``; a weight
    of 0 leaves its penalties out.

    Args:
        q: targets for positions.
        p: targets for momenta.
        budget: ``λ_budget``.
        variance: ``λ_var``.
        spectrum: ``λ_logdet``, of all three spectral hinges.
        mean: ``λ_mean``.
        seed: seed of the projections; ``p`` uses ``seed + 1``.

    Returns:
        Penalties named ``budget_q``, ``budget_p``, ``variance_q``, …, ``spectrum_p``, ``mean``.
    """
    penalties: dict[str, Penalty] = {}
    for offset, (half, floors) in enumerate({"q": q, "p": p}.items()):
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
                seed=seed + offset,
            )
            penalties[f"spectrum_{half}"] = Penalty(floor, on=half, weight=spectrum)
    if mean:
        penalties["mean"] = Penalty(MeanPenalty(), weight=mean)
    return penalties


def sigreg_penalties(
    *,
    weight: float = 0.02,
    slices: int = 64,
    knots: int = 9,
    t_max: float = 3.0,
    views: str = "separate",
    seed: int = 0,
) -> dict[str, Penalty]:
    """The baseline's penalty: SIGReg of the whole state, per view, with the paper's settings [paper, appendix F.11].

    Args:
        weight: ``λ``.
        slices: ``M``.
        knots: ``T``.
        t_max: the last knot.
        views: ``"separate"`` (per view) or ``"stacked"`` (pooled).
        seed: seed of the directions.
    """
    sigreg = SIGReg(slices=slices, knots=knots, t_max=t_max, seed=seed)
    return {"sigreg": Penalty(sigreg, weight=weight, views=views)}

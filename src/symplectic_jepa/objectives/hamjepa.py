"""The HamJEPA objective: symplectic matching of two views, with penalties against collapse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision
from symplectic_jepa.objectives._base import Objective, PredictionLoss, Setting, mean_over_samples
from symplectic_jepa.objectives.penalty import Penalty, StateParts
from symplectic_jepa.predictors import HamiltonianPredictor, Predictor
from symplectic_jepa.regularizers import Reduction
from symplectic_jepa.regularizers._base import Group

Match = Literal["q", "qp"]
Halves = tuple[Tensor, Tensor]  # q and p, each (..., B, d)


class PredictorLoss(PredictionLoss):
    """What `Matching` and `TrajectoryMatching` share: a predictor, and the error ``ℓ`` of its predictions."""

    def __init__(
        self, predictor: Predictor, *, match: Match, p_weight: float, bidirectional: bool, detach_target: bool
    ) -> None:
        super().__init__()
        self.predictor = _checks.instance("predictor", predictor, Predictor)
        predictor.check_matching()
        self.match = _checks.one_of("match", match, get_args(Match))
        self.p_weight = _checks.finite("p_weight", p_weight, minimum=0.0)
        if match == "qp" and p_weight:
            raise ValueError(f"p_weight must be 0 with match='qp', which already matches p, got {p_weight}")
        self.bidirectional = _checks.boolean("bidirectional", bidirectional)
        self.detach_target = _checks.boolean("detach_target", detach_target)

    def error(self, predicted: Halves, target: Halves) -> Tensor:
        """``ℓ`` of `HamJEPAObjective` for every sample: halves ``(..., B, d)`` to ``(..., B)``."""
        q_loss, p_loss = (
            (x - (y.detach() if self.detach_target else y)).square().mean(-1)
            for x, y in zip(predicted, target, strict=True)
        )
        loss = 0.5 * (q_loss + p_loss) if self.match == "qp" else q_loss
        return loss + self.p_weight * p_loss if self.p_weight else loss


class Matching(PredictorLoss):
    """The prediction loss of `HamJEPAObjective`, which documents its arguments [paper, eqs. 30–32].

    It matches the states of two views through a predictor: ``½ [ℓ(Φ_h(z_a), sg z_b) + ℓ(Φ_{−h}(z_b), sg z_a)]``.
    """

    views = 2

    def __init__(
        self,
        predictor: Predictor,
        *,
        match: Match,
        p_weight: float,
        bidirectional: bool,
        reverse_time: bool,
        energy_weight: float,
        detach_target: bool,
    ) -> None:
        super().__init__(
            predictor, match=match, p_weight=p_weight, bidirectional=bidirectional, detach_target=detach_target
        )
        self.reverse_time = _checks.boolean("reverse_time", reverse_time)
        self.energy_weight = _checks.finite("energy_weight", energy_weight, minimum=0.0)
        if energy_weight and not isinstance(predictor, HamiltonianPredictor):
            raise ValueError(
                f"energy_weight must be 0 for a predictor without a Hamiltonian, got {energy_weight} with "
                f"{type(predictor).__name__}"
            )

    def reduction(self, parts: StateParts, control: Tensor | None) -> Reduction:
        """The mean over both directions and all samples; see `PredictionLoss`."""
        if control is None and self.predictor.takes_control:
            raise ValueError(
                "control must be given to a predictor that takes one, (B, m), got None: the weights that "
                "read it would get no gradient"
            )
        q, p = parts["q"][:2], parts["p"][:2]
        if not self.bidirectional:
            return mean_over_samples(self._match((q[0], p[0]), (q[1], p[1]), 1, control))
        direction = (1, -1) if self.reverse_time else 1
        return mean_over_samples(self._match((q, p), (q.flip(0), p.flip(0)), direction, control))

    def _match(
        self, source: Halves, target: Halves, direction: int | tuple[int, ...], control: Tensor | None
    ) -> Tensor:
        """Loss of each sample, ``(..., B)``."""
        predicted = self.predictor.flow(*source, direction=direction, control=control)
        loss = self.error(predicted, target)
        if self.energy_weight:
            assert isinstance(self.predictor, HamiltonianPredictor)  # checked in __init__
            before, after = (self.predictor.energy(*z, control=control) for z in (source, predicted))
            loss = loss + self.energy_weight * (after - before.detach()).square()
        return loss


class HamJEPAObjective(Objective):
    r"""``L = L_pred + Σ weight · penalty`` [paper, eqs. 30–32].

    ``L_pred = ½ [ℓ(Φ_h(z_a), sg z_b) + ℓ(Φ_{−h}(z_b), sg z_a)]`` over the first two views, with

    - ``match="q"``: ``ℓ = mean (q̂ − q)² + p_weight · mean (p̂ − p)²``;
    - ``match="qp"``: ``ℓ`` = the mean over all ``2d`` coordinates of ``(ẑ − z)²``.

    The penalties (see `hamjepa_penalties`) act on all views. Everything runs in float32 or better. With a
    predictor that takes a control, ``objective(states, control=u)`` predicts both ways under the input ``u``,
    ``(B, m)``.

    Args:
        predictor: the map ``Φ``: `HamiltonianPredictor`, `ResidualMLPPredictor` for the ablation, or your own
            `Predictor`.
        match: ``"q"`` or ``"qp"``.
        p_weight: weight of the momentum match; only with ``match="q"``.
        bidirectional: average both directions; otherwise only ``a → b``.
        reverse_time: run ``b → a`` in reverse time (``−h``); otherwise in forward time, like ``a → b``.
        energy_weight: weight ``w_E`` of ``mean (H(Φ(z)) − sg H(z))²``; needs a predictor with a Hamiltonian. It
            penalises what a `DampedHamiltonian` or a control does to the energy, too.
        detach_target: stop the gradient at the target state.
        penalties: named penalties, or ``None`` for the bare prediction loss.
        sync: see `Objective`.
        process_group: see `Objective`.

    Raises:
        ValueError: for an unknown option, a negative weight, a weight that has no effect, or a learned step size
            (the loss is minimised by ``h → 0``).
        TypeError: if ``predictor`` is not a `Predictor`.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import HamiltonianPredictor, SeparableHamiltonian, hamjepa_penalties
        >>> predictor = HamiltonianPredictor(SeparableHamiltonian(16))
        >>> objective = HamJEPAObjective(predictor, penalties=hamjepa_penalties())
        >>> loss, terms = objective(torch.randn(2, 64, 32))
        >>> sorted(terms)[:4]
        ['budget_p', 'budget_p/energy', 'budget_q', 'budget_q/energy']
    """

    predictor = Setting[Predictor]()
    match = Setting[Match]()
    p_weight = Setting[float]()
    bidirectional = Setting[bool]()
    reverse_time = Setting[bool]()
    energy_weight = Setting[float]()
    detach_target = Setting[bool]()

    def __init__(
        self,
        predictor: Predictor,
        *,
        match: Match = "q",
        p_weight: float = 0.0,
        bidirectional: bool = True,
        reverse_time: bool = True,
        energy_weight: float = 0.0,
        detach_target: bool = True,
        penalties: Mapping[str, Penalty] | None = None,
        sync: bool = True,
        process_group: Group = None,
    ) -> None:
        prediction = Matching(
            predictor,
            match=match,
            p_weight=p_weight,
            bidirectional=bidirectional,
            reverse_time=reverse_time,
            energy_weight=energy_weight,
            detach_target=detach_target,
        )
        super().__init__(prediction, penalties, sync=sync, process_group=process_group)

    @full_precision
    def prediction_loss(self, z_a: Tensor, z_b: Tensor, *, control: Tensor | None = None) -> Tensor:
        """``L_pred`` of two views' states, each ``(B, 2d)``.

        Raises:
            ValueError: if the views differ in shape or device, or a required ``control`` is missing.
            TypeError: if one is not floating-point.
        """
        ranks = self.batch_ranks
        if _checks.samples("z_a", z_a, minimum=0 if ranks.shared else 1).shape != _checks.samples("z_b", z_b).shape:
            raise ValueError(f"z_a and z_b must have the same shape, got {tuple(z_a.shape)} and {tuple(z_b.shape)}")
        _checks.same_device(z_a=z_a, z_b=z_b)
        return self._measure(torch.stack((z_a, z_b.to(z_a.dtype))), control, ranks)[0].value

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # In older files the predictor is a direct child of the objective.
        for key in [key for key in state_dict if key.startswith(f"{prefix}predictor.")]:
            state_dict[f"{prefix}prediction.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)

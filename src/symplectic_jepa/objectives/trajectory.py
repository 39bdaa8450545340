"""An objective for trajectories: open-loop prediction over a horizon, under controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision
from symplectic_jepa.distributed import count
from symplectic_jepa.objectives._base import Objective, ObjectiveOutput, Setting, check_states
from symplectic_jepa.objectives.hamjepa import Halves, Match, PredictorLoss
from symplectic_jepa.objectives.penalty import Penalty, StateParts
from symplectic_jepa.predictors import Predictor
from symplectic_jepa.regularizers import Measured, Reduction
from symplectic_jepa.regularizers._base import Group
from symplectic_jepa.state import split_state

Starts = Literal["every", "first"]


class TrajectoryMatching(PredictorLoss):
    """``L_pred`` of `TrajectoryObjective`, which documents its arguments [LeWorldModel, arXiv:2603.19312]."""

    def __init__(
        self,
        predictor: Predictor,
        *,
        horizon: int,
        match: Match,
        p_weight: float,
        starts: Starts,
        bidirectional: bool,
        horizon_weights: Sequence[float] | None,
        detach_target: bool,
    ) -> None:
        super().__init__(
            predictor, match=match, p_weight=p_weight, bidirectional=bidirectional, detach_target=detach_target
        )
        self.horizon = _checks.positive_int("horizon", horizon)
        self.starts = _checks.one_of("starts", starts, get_args(Starts))
        self.horizon_weights = None if horizon_weights is None else _weights(horizon_weights, horizon)

    @property
    def views(self) -> int:
        """The fewest frames that hold one prediction over the whole horizon."""
        return self.horizon + 1

    def reduction(self, parts: StateParts, control: Tensor | None) -> Reduction:
        """The weighted mean over horizons, starts, directions and samples; see `PredictionLoss`."""
        states = parts["z"]
        goal = (parts["q"], parts["p"]) if parts.targets is None else split_state(parts.targets)
        errors = torch.stack(self._errors((parts["q"], parts["p"]), goal, self._checked(control, states)))
        weights = self.horizon_weights or (1.0,) * self.horizon

        def finish(sums: list[Tensor]) -> Measured:
            means = (sums[1] / sums[0].to(errors.dtype)).unbind()
            # Not a tensor of the weights: to copy it to a GPU would synchronise, and a CUDA graph cannot capture that.
            loss = torch.stack([w / sum(weights) * mean for w, mean in zip(weights, means, strict=True)]).sum()
            return Measured(loss, {f"horizon_{k}": mean for k, mean in enumerate(means, start=1)})

        return Reduction([count(states.shape[1], errors), errors], finish)

    def _errors(self, start: Halves, goal: Halves, control: Tensor | None) -> list[Tensor]:
        """For every horizon, the error averaged over starts and directions and summed over samples."""
        direction: int | tuple[int, int] = 1
        if self.bidirectional:  # a second copy in which time runs backwards
            direction = (1, -1)
            start, goal = _both_ways(start), _both_ways(goal)
            control = None if control is None else torch.stack((control, control.flip(0)))
        frames = goal[0].shape[-3]
        n = frames - 1 if self.starts == "every" else 1
        q, p = (x[..., :n, :, :] for x in start)
        errors = []
        for k in range(1, self.horizon + 1):
            n = min(n, frames - k)  # starts with a frame to compare with
            u = None if control is None else control[..., k - 1 : k - 1 + n, :, :]
            q, p = self.predictor.flow(q[..., :n, :, :], p[..., :n, :, :], direction=direction, control=u)
            reached = goal[0][..., k : k + n, :, :], goal[1][..., k : k + n, :, :]
            error = self.error((q, p), reached)
            errors.append(error.sum() / error.shape[:-1].numel())
        return errors

    def _checked(self, controls: Tensor | None, states: Tensor) -> Tensor | None:
        if controls is None:
            if self.predictor.takes_control:
                raise ValueError("controls must be given to a predictor that takes them, (T - 1, B, m), got None")
            return None
        frames, samples = states.shape[:2]
        fits = _checks.floating("controls", controls).ndim == 3 and controls.shape[:2] == (frames - 1, samples)
        if not fits or not controls.shape[2]:
            raise ValueError(
                f"controls must have shape ({frames - 1}, {samples}, m), one per step, got {tuple(controls.shape)}"
            )
        _checks.same_device(states=states, controls=controls)
        return controls


class TrajectoryObjective(Objective):
    r"""``L = L_pred + Σ weight · penalty`` over trajectories of states ``(T, B, 2d)`` with controls ``(T − 1, B, m)``.

    The prediction is open-loop, as in latent world models [LeWorldModel, arXiv:2603.19312]:
    ``ẑ_{t+k} = Φ(ẑ_{t+k−1}, u_{t+k−1})`` from ``ẑ_t = z_t``, and

    ``L_pred = Σ_k w_k mean_t ℓ(ẑ_{t+k}, sg z_{t+k}) / Σ_k w_k``,  ``k = 1 … horizon``,

    with ``ℓ`` as in `HamJEPAObjective`, which is the case of two frames and ``bidirectional=True``. The terms include
    the error of each horizon, ``"prediction/horizon_3"``. Penalties act on the frames as on views: ``views="separate"``
    treats every frame as a sample of its own, ``"stacked"`` all of them as one.

    Args:
        predictor: the map ``Φ`` of one frame.
        horizon: number of frames ``K`` to predict; trajectories need at least ``K + 1``.
        match: ``"q"`` or ``"qp"``.
        p_weight: weight of the momentum match; only with ``match="q"``.
        starts: predict from ``"every"`` frame or from the ``"first"``.
        bidirectional: average with predictions backward in time, from later frames to earlier ones.
        horizon_weights: weights ``w_1 … w_K``; by default all equal.
        detach_target: stop the gradient at the target states.
        penalties: named penalties, or ``None`` for the bare prediction loss.
        sync: see `Objective`.
        process_group: see `Objective`.

    Raises:
        ValueError: for an unknown option, a negative weight, a weight that has no effect, or a learned step size.
        TypeError: if ``predictor`` is not a `Predictor`.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import ResidualMLPPredictor
        >>> objective = TrajectoryObjective(ResidualMLPPredictor(8), horizon=3)
        >>> loss, terms = objective(torch.randn(10, 32, 16))
        >>> sorted(terms)
        ['prediction', 'prediction/horizon_1', 'prediction/horizon_2', 'prediction/horizon_3']
    """

    predictor = Setting[Predictor]()
    horizon = Setting[int]()
    match = Setting[Match]()
    p_weight = Setting[float]()
    starts = Setting[Starts]()
    bidirectional = Setting[bool]()
    horizon_weights = Setting["tuple[float, ...] | None"]()
    detach_target = Setting[bool]()

    def __init__(
        self,
        predictor: Predictor,
        *,
        horizon: int,
        match: Match = "q",
        p_weight: float = 0.0,
        starts: Starts = "every",
        bidirectional: bool = False,
        horizon_weights: Sequence[float] | None = None,
        detach_target: bool = True,
        penalties: Mapping[str, Penalty] | None = None,
        sync: bool = True,
        process_group: Group = None,
    ) -> None:
        prediction = TrajectoryMatching(
            predictor,
            horizon=horizon,
            match=match,
            p_weight=p_weight,
            starts=starts,
            bidirectional=bidirectional,
            horizon_weights=horizon_weights,
            detach_target=detach_target,
        )
        super().__init__(prediction, penalties, sync=sync, process_group=process_group)

    @full_precision
    def forward(
        self, states: Tensor, controls: Tensor | None = None, *, targets: Tensor | None = None
    ) -> ObjectiveOutput:
        """Loss of trajectories.

        Args:
            states: states ``(T, B, 2d)`` of ``T > horizon`` frames.
            controls: control inputs ``(T − 1, B, m)``, one between two frames.
            targets: states ``(T, B, 2d)`` to predict instead of ``states``, such as those of an averaged encoder.

        Returns:
            ``(loss, terms)``, see `ObjectiveOutput`.

        Raises:
            ValueError: if a shape does not fit, or required ``controls`` are missing.
            TypeError: if a tensor is not floating-point, or the predictor takes no controls.
        """
        ranks = self.batch_ranks
        states = check_states(states, views=self.prediction.views, ranks=ranks)
        if targets is not None and _checks.floating("targets", targets).shape != states.shape:
            raise ValueError(
                f"targets must have the shape of states, {tuple(states.shape)}, got {tuple(targets.shape)}"
            )
        if targets is not None:
            _checks.same_device(states=states, targets=targets)
        return self._loss(states, controls, ranks, targets)


def _both_ways(halves: Halves) -> Halves:
    """``(T, B, d)`` twice to ``(2, T, B, d)`` twice: as it is, and with time reversed."""
    q, p = (torch.stack((x, x.flip(0))) for x in halves)
    return q, p


def _weights(values: Sequence[float], horizon: int) -> tuple[float, ...]:
    if not isinstance(values, Sequence):
        raise ValueError(f"horizon_weights must be {horizon} numbers (horizon), got {_checks.shown(values)}")
    weights = tuple(_checks.finite("horizon_weights", w, minimum=0.0) for w in values)
    if len(weights) != horizon or not sum(weights):
        raise ValueError(f"horizon_weights must be {horizon} numbers >= 0 (horizon), not all 0, got {weights}")
    return weights

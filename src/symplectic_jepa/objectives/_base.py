"""The base class of objectives: a prediction loss and penalties, reduced with one collective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import ExactBuffers, exact_scalar, full_precision
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.objectives.penalty import Penalty, StateParts
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.regularizers import Measured, Reduction, reduce_all, set_step
from symplectic_jepa.regularizers._base import nothing, one_row
from symplectic_jepa.regularizers._ranked import Group, Ranked

T = TypeVar("T")


class ObjectiveOutput(NamedTuple):
    """A loss for ``backward``, and its terms for logging, detached and on the device.

    The terms are ``"prediction"``, the unweighted value of every penalty under its name, and their statistics as
    ``"penalty/statistic"``.
    """

    loss: Tensor
    terms: dict[str, Tensor]


class PredictionLoss(Pretrained, nn.Module, ABC):
    """The prediction loss ``L_pred`` between views; an `Objective` adds the penalties to it [paper, eq. 30].

    Examples:
        >>> import torch
        >>> from symplectic_jepa import MeanPenalty, Penalty
        >>> from symplectic_jepa.objectives import Objective
        >>> class Distance(PredictionLoss):
        ...     views = 2
        ...     def reduction(self, parts, control):
        ...         first, second = parts["z"][:2]
        ...         return mean_over_samples((first - second).square().mean(-1))
        >>> objective = Objective(Distance(), {"mean": Penalty(MeanPenalty())})
        >>> loss, terms = objective(torch.randn(2, 16, 8))
        >>> sorted(terms)
        ['mean', 'mean/mean_square', 'prediction']
    """

    @property
    @abstractmethod
    def views(self) -> int:
        """Minimum number of views; a plain class attribute is enough."""

    @abstractmethod
    def reduction(self, parts: StateParts, control: Tensor | None) -> Reduction:
        """The loss of states ``(V ≥ views, B, D)`` as local sums, and a function of their totals over all ranks.

        Args:
            parts: the states by name: ``parts["z"]``, ``(V, B, D)``, and its halves ``parts["q"]``, ``parts["p"]``;
                ``parts.targets`` are states to predict instead, where the objective takes them.
            control: the control passed to the objective; raise a TypeError if the loss does not use one.

        Returns:
            See `BatchRegularizer`; for a mean over samples, `mean_over_samples`.
        """


class Setting(Generic[T]):
    """An attribute of an objective that forwards to its prediction loss."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, objective: Objective, owner: type | None = None) -> T:
        return cast(T, self if objective is None else getattr(objective.prediction, self.name))

    def __set__(self, objective: Objective, value: T) -> None:
        setattr(objective.prediction, self.name, value)


class Objective(Ranked, Pretrained, ExactBuffers):
    """``L = w · L_pred + scale · Σ weight · penalty`` over states ``(V, B, D)`` [paper, eq. 30].

    ``regularizer_scale`` is a buffer (1 unless `set_regularizer_scale` is called), so that a warm-up of all penalties
    neither recompiles nor breaks a captured graph. If ``torch.distributed`` is initialised, the loss is that of the
    global batch and equal on every rank. It takes one collective; penalties on pairs of samples (`MMD`) add their own.
    Gradients are exact under `DistributedDataParallel`. Everything runs in float32 or better. Each forward pass in
    training mode is one step of the random draws, unless `set_step` sets the step.

    In eval mode the loss is that of the local batch and no rank waits for another, so that one of them may evaluate
    alone. For the loss of the global batch, call it in train mode under ``torch.no_grad()``, on every rank.

    Args:
        prediction: the prediction loss.
        penalties: named penalties, or ``None`` for the bare prediction loss.
        prediction_weight: weight ``w`` of the prediction loss.
        sync: use statistics of the global batch if ``torch.distributed`` is initialised; ``False`` uses the local one.
        process_group: the ranks that share the batch, as a process group or a one-dimensional device mesh; by default
            all ranks. This and ``sync`` override the settings of the penalties' regularizers.

    Raises:
        TypeError: if ``prediction`` is not a `PredictionLoss`, or ``penalties`` not a dict of `Penalty`.
        ValueError: if a penalty has no name, a dot in it, or the name ``"prediction"``, or ``prediction_weight`` is
            negative.
    """

    _exact = ("regularizer_scale",)
    regularizer_scale: Tensor
    prediction: PredictionLoss

    if TYPE_CHECKING:
        __call__: Callable[..., ObjectiveOutput]

    def __init__(
        self,
        prediction: PredictionLoss,
        penalties: Mapping[str, Penalty] | None = None,
        *,
        prediction_weight: float = 1.0,
        sync: bool = True,
        process_group: Group = None,
    ) -> None:
        super().__init__(sync=sync, process_group=process_group)
        _checks.instance("prediction", prediction, PredictionLoss)
        named = _checks.mapping("penalties", penalties, Penalty)
        if "prediction" in named:
            raise ValueError("penalties must not use the name 'prediction', which is reserved for the prediction loss")
        self.penalties = nn.ModuleDict(named)
        self.prediction = prediction
        self.prediction_weight = _checks.finite("prediction_weight", prediction_weight, minimum=0.0)
        self.register_buffer("regularizer_scale", exact_scalar(1.0))

    @full_precision
    def forward(self, states: Tensor, control: Tensor | None = None) -> ObjectiveOutput:
        """Loss of states ``(V, B, D)``.

        Args:
            states: the states of the views, starting with those that are predicted.
            control: control input ``(B, m)``, for a prediction that takes one.

        Returns:
            ``(loss, terms)``, see `ObjectiveOutput`.

        Raises:
            ValueError: if ``states`` has another shape or too few views, or a required ``control`` is missing.
            TypeError: if ``states`` is not floating-point, or the prediction takes no ``control``.
            RuntimeError: on every rank, if settings or random draws differ between the ranks that share the batch.
        """
        ranks = self.batch_ranks
        return self._loss(check_states(states, views=self.prediction.views, ranks=ranks), control, ranks)

    def _loss(
        self, states: Tensor, control: Tensor | None, ranks: Ranks, targets: Tensor | None = None
    ) -> ObjectiveOutput:
        named = dict(self._named_penalties())
        predicted, *measured = self._measure(states, control, ranks, targets, named.values())
        # Not 1 · predicted: inductor would drop the product and return the detached term instead of the loss.
        loss = predicted.value if self.prediction_weight == 1 else self.prediction_weight * predicted.value
        scale = self.regularizer_scale.squeeze()
        for penalty, (value, _) in zip(named.values(), measured, strict=True):
            loss = loss + (penalty.weight * scale.to(value.dtype)) * value
        results = dict(zip(("prediction", *named), (predicted, *measured), strict=True))
        terms = {name: value.detach() for name, (value, _) in results.items()}
        # Not |=, which torch 2.6 cannot export.
        terms.update({f"{name}/{key}": x for name, (_, statistics) in results.items() for key, x in statistics.items()})
        return ObjectiveOutput(loss, terms)

    def _measure(
        self,
        states: Tensor,
        control: Tensor | None,
        ranks: Ranks,
        targets: Tensor | None = None,
        penalties: Iterable[Penalty] = (),
    ) -> list[Measured]:
        """The prediction loss and the penalties, with one collective."""
        parts = StateParts(states, targets)
        if states.shape[1]:
            predicted = self.prediction.reduction(parts, control)
        else:
            given = StateParts(one_row(states), None if targets is None else one_row(targets))
            predicted = nothing(self.prediction.reduction(given, None if control is None else one_row(control)))
        return reduce_all([predicted, *(penalty.reduction(parts, ranks) for penalty in penalties)], ranks)

    def set_regularizer_scale(self, scale: float) -> None:
        """Set the factor of all penalties in place, without host synchronisation.

        Raises:
            ValueError: if ``scale`` is negative or not finite.
        """
        self.regularizer_scale.fill_(_checks.finite("scale", scale, minimum=0.0))

    def set_residual_scale(self, scale: float) -> None:
        """Set the scale of the learned part of the energy in place, without host synchronisation.

        This calls the method of the same name on every module of the prediction loss that has one, such as
        `SeparableHamiltonian`. If there is none it does nothing, so one training loop works with every predictor.

        Raises:
            ValueError: if ``scale`` is not finite.
        """
        _checks.finite("scale", scale)
        for module in self.prediction.modules():
            setter: Any = getattr(module, "set_residual_scale", None)
            if setter is not None:
                setter(scale)

    def set_step(self, step: int | None) -> None:
        """Draw for training step ``step`` until the next call, instead of counting forward passes; see `set_step`.

        Raises:
            ValueError: if ``step`` is neither ``None`` nor an int >= 0.
        """
        set_step(self, step)

    def _named_penalties(self) -> Iterator[tuple[str, Penalty]]:
        for name, penalty in self.penalties.items():
            assert isinstance(penalty, Penalty)
            yield name, penalty

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), Setting):  # otherwise a module would be registered here
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def mean_over_samples(losses: Tensor) -> Reduction:
    """The mean of per-sample losses ``(...)`` over the global batch.

    Raises:
        TypeError: if ``losses`` is not a floating-point tensor.
        ValueError: if it is empty.
    """
    if _checks.floating("losses", losses).numel() == 0:
        raise ValueError(f"losses must not be empty, got shape {tuple(losses.shape)}")

    def finish(sums: list[Tensor]) -> Measured:
        return Measured(sums[1] / sums[0].to(losses.dtype), {})

    return Reduction([count(losses.numel(), losses), losses.sum()], finish)


def check_states(states: Tensor, *, views: int, ranks: Ranks) -> Tensor:
    """Return ``states`` if they are ``(V, B, D)`` with at least ``views`` views; ``B = 0`` if other ranks have some."""
    if _checks.floating("states", states).ndim != 3 or states.shape[0] < views:
        raise ValueError(f"states must have shape (V >= {views}, B, D), got {tuple(states.shape)}")
    return _checks.samples("states", states, minimum=0 if ranks.shared else 1)

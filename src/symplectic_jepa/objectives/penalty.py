"""A regularizer with its weight and the part of the states that it acts on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.distributed import Ranks
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.regularizers import BatchRegularizer, Measured, Reduction, reduce_all
from symplectic_jepa.regularizers._base import contribution
from symplectic_jepa.regularizers._ranked import imposed
from symplectic_jepa.state import split_state

Part = Literal["q", "p", "z"]
Views = Literal["stacked", "separate"]


class StateParts:
    """``parts["z"]``, ``parts["q"]`` and ``parts["p"]`` of states ``(V, B, D)``.

    The halves are split once, on first access, because the gradient of every split is as large as the states.
    """

    def __init__(self, states: Tensor, targets: Tensor | None = None) -> None:
        self._parts = {"z": states}
        self.targets = targets

    def __getitem__(self, part: Part) -> Tensor:
        if part not in self._parts:
            if self._parts["z"].shape[-1] % 2:
                shape = tuple(self._parts["z"].shape)
                raise ValueError(f"states must have an even last dimension [q | p], got shape {shape}")
            self._parts["q"], self._parts["p"] = split_state(self._parts["z"])
        return self._parts[part]


class Penalty(Pretrained, nn.Module):
    """A regularizer, the part of the state that it acts on, and its weight [paper, eq. 30].

    Args:
        regularizer: any module or function ``(..., N, D) → scalar``.
        on: ``"q"``, ``"p"`` or ``"z"`` (the whole state).
        weight: weight in the objective.
        views: ``"stacked"`` treats all views as one sample of ``V · B`` rows, ``"separate"`` averages over views.

    Raises:
        TypeError: if ``regularizer`` is neither a module nor a function.
        ValueError: for an unknown ``on`` or ``views``, or a negative weight.
    """

    if TYPE_CHECKING:
        __call__: Callable[..., Tensor]

    def __init__(
        self,
        regularizer: nn.Module | Callable[[Tensor], Tensor],
        *,
        on: Part = "z",
        weight: float = 1.0,
        views: Views = "stacked",
    ) -> None:
        super().__init__()
        self.regularizer = _checks.function("regularizer", regularizer)
        self.on = _checks.one_of("on", on, get_args(Part))
        self.weight = _checks.finite("weight", weight, minimum=0.0)
        self.views = _checks.one_of("views", views, get_args(Views))

    def forward(self, states: Tensor) -> Tensor:
        """The unweighted penalty of states ``(V, B, D)``, a scalar."""
        return self.measure(states).value

    def measure(self, states: Tensor) -> Measured:
        """The unweighted penalty of states ``(V, B, D)`` and its statistics, which are detached.

        Raises:
            TypeError: if ``states`` is not a floating-point tensor.
            ValueError: if it has fewer than two dimensions, or an empty one.
        """
        ours = self.regularizer if isinstance(self.regularizer, BatchRegularizer) else None
        shared = ours is not None and ours.batch_ranks.shared
        samples = self._samples(StateParts(_checks.samples("states", states, minimum=0 if shared else 1)))
        return reduce_all([self._local(samples)], Ranks(sync=False))[0] if ours is None else ours.measure(samples)

    def reduction(self, parts: StateParts, ranks: Ranks) -> Reduction:
        """The penalty as a `Reduction`, so that an objective needs only one collective; see `BatchRegularizer`."""
        samples = self._samples(parts)
        if isinstance(self.regularizer, BatchRegularizer):
            return contribution(self.regularizer, samples, ranks)
        imposed.append(ranks)
        try:
            return self._local(samples)
        finally:
            imposed.pop()

    def _samples(self, parts: StateParts) -> Tensor:
        part = parts[self.on]
        return part.flatten(0, -2) if self.views == "stacked" else part

    def _local(self, samples: Tensor) -> Reduction:
        value: Tensor = self.regularizer(samples)
        return Reduction([], lambda _: Measured(value, {}))

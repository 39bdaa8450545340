"""The LeJEPA objective, the baseline that asks for an isotropic Gaussian."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision
from symplectic_jepa.objectives.penalties import (
    ObjectiveOutput,
    PenalizedObjective,
    Penalty,
    check_states,
    mean_over_samples,
    state_parts,
)
from symplectic_jepa.regularizers import Reduction, complete


class LeJEPAObjective(PenalizedObjective):
    r"""``L = L_pred + Σ weight · penalty``, every view predicting the mean of the global ones.

    ``L_pred = ½ mean_{v,b,i} (z_v − z̄)²`` with ``z̄`` the mean of the first ``global_views`` views [paper, appendix
    F.2; LeJEPA, arXiv:2511.08544]. With `sigreg_penalties` this is the paper's SIGReg baseline. Everything runs in
    float32 or better.

    Args:
        penalties: named penalties, or ``None`` for the bare prediction loss.
        global_views: number of leading views that are averaged; the others are local.
        convention: ``"sum"`` for ``L_pred + Σ λ R`` (the paper's), ``"convex"`` for ``(1 − Σ λ) L_pred + Σ λ R``
            (LeJEPA's own code).
        sync: statistics of the global batch when ``torch.distributed`` is initialised; ``False``: of the local one, in
            every penalty too.

    Raises:
        ValueError: for ``global_views < 1``, an unknown convention, or a convex one with weights above 1 in sum.
    """

    def __init__(
        self,
        penalties: Mapping[str, Penalty] | None = None,
        *,
        global_views: int = 2,
        convention: str = "sum",
        sync: bool = True,
    ) -> None:
        super().__init__(penalties, sync=sync)
        self.global_views = _checks.positive_int("global_views", global_views)
        self.convention = _checks.one_of("convention", convention, ("sum", "convex"))
        total = sum(penalty.weight for penalty in (penalties or {}).values())
        if convention == "convex" and total > 1:
            raise ValueError(f"penalties must have weights of at most 1 in sum for convention='convex', got {total:g}")
        self._prediction_weight = 1.0 if convention == "sum" else 1.0 - total

    @full_precision
    def forward(self, states: Tensor) -> ObjectiveOutput:
        """Loss of states ``(V, B, D)``, the global views first.

        Returns:
            ``(loss, terms)``: terms ``"prediction"`` and one per penalty, unweighted.

        Raises:
            ValueError: if ``states`` is not ``(V ≥ global_views, B, D)``.
        """
        check_states(states, views=self.global_views)
        parts = state_parts(states, {penalty.on for _, penalty in self._named_penalties()})
        return self._total(self._prediction(states), parts, prediction_weight=self._prediction_weight)

    @full_precision
    def prediction_loss(self, states: Tensor) -> Tensor:
        """``L_pred`` of states ``(V, B, D)``."""
        check_states(states, views=self.global_views)
        return complete([self._prediction(states)], sync=self.sync)[0]

    def _prediction(self, states: Tensor) -> Reduction:
        centre = states[: self.global_views].mean(0)
        return mean_over_samples(0.5 * (states - centre).square().mean(-1))

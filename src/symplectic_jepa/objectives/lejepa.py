"""The LeJEPA objective, the baseline with an isotropic Gaussian target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision
from symplectic_jepa.objectives._base import Objective, PredictionLoss, Setting, check_states, mean_over_samples
from symplectic_jepa.objectives.penalty import Penalty, StateParts
from symplectic_jepa.regularizers import Reduction
from symplectic_jepa.regularizers._base import Group

Convention = Literal["sum", "convex"]


class ViewMean(PredictionLoss):
    """The prediction loss of `LeJEPAObjective`: ``½ mean_{v,b,i} (z_v − z̄)²`` [LeJEPA, arXiv:2511.08544].

    Args:
        global_views: number of leading views whose mean is ``z̄``.

    Raises:
        ValueError: if ``global_views < 1``.
    """

    def __init__(self, global_views: int) -> None:
        super().__init__()
        self.global_views = _checks.positive_int("global_views", global_views)

    @property
    def views(self) -> int:
        """Minimum number of views."""
        return self.global_views

    def reduction(self, parts: StateParts, control: Tensor | None) -> Reduction:
        """The mean over all views and samples; see `PredictionLoss`."""
        if control is not None:
            raise TypeError("control must be None for a prediction that takes none")
        states = parts["z"]
        centre = states[: self.global_views].mean(0)
        return mean_over_samples(0.5 * (states - centre).square().mean(-1))


class LeJEPAObjective(Objective):
    r"""``L = L_pred + Σ weight · penalty``, every view predicting the mean of the global ones.

    ``L_pred = ½ mean_{v,b,i} (z_v − z̄)²`` with ``z̄`` the mean of the first ``global_views`` views [paper, appendix
    F.2; LeJEPA, arXiv:2511.08544]. With `sigreg_penalties` this is the paper's SIGReg baseline. Everything runs in
    float32 or better.

    Args:
        penalties: named penalties, or ``None`` for the bare prediction loss.
        global_views: number of leading views that are averaged; the others are local.
        convention: ``"sum"`` for ``L_pred + Σ λ R`` (the paper's), ``"convex"`` for ``(1 − Σ λ) L_pred + Σ λ R``
            (LeJEPA's own code).
        sync: see `Objective`.
        process_group: see `Objective`.

    Raises:
        ValueError: for ``global_views < 1``, an unknown convention, or a convex one with weights that sum to above 1.
    """

    global_views = Setting[int]()

    def __init__(
        self,
        penalties: Mapping[str, Penalty] | None = None,
        *,
        global_views: int = 2,
        convention: Convention = "sum",
        sync: bool = True,
        process_group: Group = None,
    ) -> None:
        named = _checks.mapping("penalties", penalties, Penalty)
        total = sum(penalty.weight for penalty in named.values())
        if _checks.one_of("convention", convention, get_args(Convention)) == "convex" and total > 1:
            raise ValueError(f"penalties must have weights summing to at most 1 for convention='convex', got {total:g}")
        super().__init__(
            ViewMean(global_views),
            named,
            prediction_weight=1.0 if convention == "sum" else 1.0 - total,
            sync=sync,
            process_group=process_group,
        )
        self.convention = convention

    @full_precision
    def prediction_loss(self, states: Tensor) -> Tensor:
        """``L_pred`` of states ``(V, B, D)``, the global views first."""
        ranks = self.batch_ranks
        return self._measure(check_states(states, views=self.prediction.views, ranks=ranks), None, ranks)[0].value

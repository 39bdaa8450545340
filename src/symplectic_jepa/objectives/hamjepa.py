"""The HamJEPA objective: symplectic matching of two views, and floors that keep the encoder from collapsing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
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
from symplectic_jepa.predictors import HamiltonianPredictor, Predictor
from symplectic_jepa.regularizers import Reduction, complete
from symplectic_jepa.state import split_state

Halves = tuple[Tensor, Tensor]  # q and p, each (..., B, d)


class HamJEPAObjective(PenalizedObjective):
    r"""``L = L_pred + Σ weight · penalty`` [paper, eqs. 30–32].

    ``L_pred = ½ [ℓ(Φ_h(z_a), sg z_b) + ℓ(Φ_{−h}(z_b), sg z_a)]`` over the first two views, with

    - ``match="q"``: ``ℓ = mean (q̂ − q)² + p_weight · mean (p̂ − p)²``;
    - ``match="qp"``: ``ℓ`` = the mean over all ``2d`` coordinates of ``(ẑ − z)²``.

    The penalties (see `hamjepa_penalties`) act on all views. Everything runs in float32 or better.

    Args:
        predictor: the map ``Φ``; `HamiltonianPredictor`, or `ResidualMLPPredictor` for the ablation.
        match: ``"q"`` or ``"qp"``.
        p_weight: weight of the momentum match; with ``match="q"`` only.
        bidirectional: average both directions; otherwise only ``a → b``.
        backward: ``"reverse"`` runs the backward direction in reverse time (``−h``), ``"forward"`` in forward time.
        energy_weight: weight ``w_E`` of ``mean (H(Φ(z)) − sg H(z))²``; needs a predictor with a Hamiltonian.
        detach_target: stop the gradient at the matched state.
        penalties: named penalties, or ``None`` for the bare prediction loss.
        sync: statistics of the global batch when ``torch.distributed`` is initialised; ``False``: of the local one, in
            every penalty too.

    Raises:
        ValueError: for an unknown option, a negative weight, a weight that has no effect, or a learned step size
            (the loss is minimised by ``h → 0``).
        TypeError: if ``predictor`` is not a `Predictor`.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import Floors, HamiltonianPredictor, SeparableHamiltonian, hamjepa_penalties
        >>> predictor = HamiltonianPredictor(SeparableHamiltonian(16))
        >>> objective = HamJEPAObjective(predictor, penalties=hamjepa_penalties(q=Floors(), p=Floors()))
        >>> loss, terms = objective(torch.randn(2, 64, 32))
        >>> sorted(terms)[:3]
        ['budget_p', 'budget_q', 'mean']
    """

    _signs: Tensor  # of time, for the two views

    def __init__(
        self,
        predictor: Predictor,
        *,
        match: str = "q",
        p_weight: float = 0.0,
        bidirectional: bool = True,
        backward: str = "reverse",
        energy_weight: float = 0.0,
        detach_target: bool = True,
        penalties: Mapping[str, Penalty] | None = None,
        sync: bool = True,
    ) -> None:
        super().__init__(penalties, sync=sync)
        if not isinstance(predictor, Predictor):
            raise TypeError(f"predictor must be a Predictor, got {type(predictor).__name__}")
        if predictor.raw_dt is not None:
            raise ValueError("predictor must have a fixed dt, got learn_dt=True: dt -> 0 minimises the matching loss")
        self.predictor = predictor
        self.match = _checks.one_of("match", match, ("q", "qp"))
        self.p_weight = _checks.finite("p_weight", p_weight, minimum=0.0)
        if match == "qp" and p_weight:
            raise ValueError(f"p_weight must be 0 with match='qp', which matches p already, got {p_weight}")
        self.bidirectional = bidirectional
        self.backward = _checks.one_of("backward", backward, ("reverse", "forward"))
        self.energy_weight = _checks.finite("energy_weight", energy_weight, minimum=0.0)
        if energy_weight and not isinstance(predictor, HamiltonianPredictor):
            raise ValueError(
                f"energy_weight must be 0 for a predictor without a Hamiltonian, got {energy_weight} with "
                f"{type(predictor).__name__}"
            )
        self.detach_target = detach_target
        self.register_buffer("_signs", torch.tensor([1.0, -1.0])[:, None, None], persistent=False)

    @full_precision
    def forward(self, states: Tensor) -> ObjectiveOutput:
        """Loss of states ``(V, B, 2d)``; the first two views are matched, all are regularized.

        Returns:
            ``(loss, terms)``: terms ``"prediction"`` and one per penalty, unweighted.

        Raises:
            ValueError: if ``states`` is not ``(V ≥ 2, B, 2d)``.
        """
        check_states(states, views=2)
        parts = state_parts(states, {"q", "p"})
        return self._total(self._prediction(parts["q"][:2], parts["p"][:2]), parts)

    @full_precision
    def prediction_loss(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """``L_pred`` of two views' states, each ``(B, 2d)``.

        Raises:
            ValueError: if the views differ in shape.
            TypeError: if one is not floating.
        """
        if z_a.shape != z_b.shape:
            raise ValueError(f"z_a and z_b must have the same shape, got {tuple(z_a.shape)} and {tuple(z_b.shape)}")
        _checks.samples("z_a", z_a)
        _checks.samples("z_b", z_b)
        q, p = split_state(torch.stack((z_a, z_b.to(z_a.dtype))))
        return complete([self._prediction(q, p)], sync=self.sync)[0]

    def _prediction(self, q: Tensor, p: Tensor) -> Reduction:
        """Of two views, ``(2, B, d)`` each."""
        if not self.bidirectional:
            return mean_over_samples(self._match((q[0], p[0]), (q[1], p[1]), direction=1))
        target = q.flip(0), p.flip(0)
        if self.backward == "forward":
            return mean_over_samples(self._match((q, p), target, direction=1))
        if self.predictor.mixes_directions:  # half as many kernels, each with twice the rows
            return mean_over_samples(self._match((q, p), target, direction=self._signs))
        ways = [
            self._match((q[i], p[i]), (target[0][i], target[1][i]), direction=sign) for i, sign in ((0, 1), (1, -1))
        ]
        return mean_over_samples(torch.stack(ways))

    def _match(self, source: Halves, target: Halves, *, direction: int | Tensor) -> Tensor:
        """Loss of each sample, ``(..., B)``."""
        predicted = self.predictor.flow(*source, direction=direction)
        q_loss, p_loss = (
            (x - (y.detach() if self.detach_target else y)).square().mean(-1)
            for x, y in zip(predicted, target, strict=True)
        )
        loss = 0.5 * (q_loss + p_loss) if self.match == "qp" else q_loss
        if self.p_weight:
            loss = loss + self.p_weight * p_loss
        if self.energy_weight:
            drift = self._energy(*predicted) - self._energy(*source).detach()
            loss = loss + self.energy_weight * drift.square()
        return loss

    def _energy(self, q: Tensor, p: Tensor) -> Tensor:
        assert isinstance(self.predictor, HamiltonianPredictor)  # checked in __init__
        energy: Tensor = self.predictor.hamiltonian(q, p)
        return energy

"""Explicit symplectic integrators as coefficients of one kick–drift loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import at_full_precision
from symplectic_jepa.hamiltonians import AbstractSeparable
from symplectic_jepa.integrators._base import GRADIENTS, Gradient, Integrator, check_arguments
from symplectic_jepa.integrators.reversible import reversible_roll_out, roll_out


@dataclass(frozen=True)
class Splitting(Integrator):
    r"""An explicit symplectic integrator of a separable Hamiltonian, as a table of coefficients.

    One step of size ``h`` is kick k₀, drift d₀, kick k₁, …, drift dₙ₋₁, kick kₙ, with

        kick k:  ``p ← p + k h F(q)``,  ``F = −∇V``;      drift d:  ``q ← q + d h v(p)``,  ``v = ∇T``.

    Each is a shear, so it is exactly symplectic and inverted by ``−h``; so is their composition, whatever the
    coefficients, which only determine the order. Adjacent updates of the same kind, also across steps, are merged and
    zeros dropped, so the force is evaluated once per kick that remains.

    For a damped system (`DampedHamiltonian`) a kick is the exact flow of ``ṗ = F(q) − Γp`` over the time ``k h``:
    ``p ← e⁻ˣ p + k h F(q) (1 − e⁻ˣ)/x`` with ``x = k h Γ``. As the kicks' coefficients sum to 1, a step shrinks volume
    by exactly ``exp(−h Σᵢ Γᵢ)``. Adjacent kicks still merge, so every table keeps its order and its cost.

    If the table is not a palindrome (`symmetric` is False), a negative ``dt`` runs it backwards, so that it still
    inverts a positive one exactly. The sign then decides the order of the updates, so ``dt`` must be a float.

    Args:
        name: name in messages and ``print``.
        kicks: coefficients ``k₀ … kₙ``, summing to 1.
        drifts: coefficients ``d₀ … dₙ₋₁``, summing to 1.
        order: order of the global error in ``h``.
        reference: source of the coefficients.

    Raises:
        TypeError: if ``name`` or ``reference`` is not a string.
        ValueError: unless ``kicks`` and ``drifts`` are numbers, one more kick than drifts, and both sum to 1.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import QuadraticHamiltonian
        >>> lam = 0.1931833275037836  # the least error of its kind: McLachlan (1995), SIAM J. Sci. Comput. 16, 151
        >>> mclachlan = Splitting("McLachlan", kicks=(lam, 1 - 2 * lam, lam), drifts=(0.5, 0.5), order=2)
        >>> q, p = torch.randn(2, 8, 4, dtype=torch.float64)
        >>> forward = mclachlan(QuadraticHamiltonian(4), q, p, dt=0.1, steps=5)
        >>> back = mclachlan(QuadraticHamiltonian(4), *forward, dt=-0.1, steps=5)
        >>> torch.allclose(back[0], q), mclachlan.force_evaluations(steps=5)
        (True, 11)
    """

    name: str
    kicks: tuple[float, ...]
    drifts: tuple[float, ...]
    order: int
    reference: str = ""

    def __post_init__(self) -> None:
        _checks.instance("name", self.name, str)
        _checks.instance("reference", self.reference, str)
        for name, coefficients in (("kicks", self.kicks), ("drifts", self.drifts)):
            for coefficient in _checks.instance(name, coefficients, tuple):
                _checks.finite(f"each of {name}", coefficient)
        if len(self.kicks) != len(self.drifts) + 1 or not self.drifts:
            raise ValueError(
                f"kicks must have one more entry than drifts, got {len(self.kicks)} kicks and {len(self.drifts)} drifts"
            )
        for name, coefficients in (("kicks", self.kicks), ("drifts", self.drifts)):
            if not math.isclose(math.fsum(coefficients), 1.0, abs_tol=1e-12):
                raise ValueError(f"{name} must sum to 1 to be consistent, got {math.fsum(coefficients)!r}")
        _checks.positive_int("order", self.order)
        source = f", {self.reference}" if self.reference else ""
        text = (
            f"``{self.name}``: kicks {self.kicks}, drifts {self.drifts}, order {self.order}{source}; see `Splitting`."
        )
        object.__setattr__(self, "__doc__", text)

    @property
    def symmetric(self) -> bool:
        """Whether the step is its own adjoint, that is, the table is a palindrome."""
        return self.kicks == self.kicks[::-1] and self.drifts == self.drifts[::-1]

    def force_evaluations(self, steps: int = 1) -> int:
        """Number of evaluations of ``∇V`` in ``steps`` steps.

        Raises:
            ValueError: if ``steps < 1``.
        """
        return sum(is_kick for is_kick, _ in self._updates(_checks.positive_int("steps", steps)))

    def __call__(
        self,
        hamiltonian: AbstractSeparable,
        q: Tensor,
        p: Tensor,
        *,
        dt: float | Tensor,
        steps: int = 1,
        gradient: Gradient = "stored",
    ) -> tuple[Tensor, Tensor]:
        """``steps`` steps of size ``dt`` from ``(q, p)``, each ``(..., d)``; ``−dt`` is the exact inverse map.

        Half-precision states, and all states under autocast, are integrated in float32 and cast back; float64 stays
        float64.

        Args:
            hamiltonian: a separable Hamiltonian.
            q: positions, ``(..., d)``.
            p: momenta, ``(..., d)``.
            dt: step size ``h``: a float, a scalar tensor if it is learned, or one step size per state, ``(..., 1)``.
            steps: number of steps ``S``.
            gradient: ``"stored"`` keeps the activations of every force for the backward pass; ``"reversible"`` keeps
                only the final state, and the backward pass inverts the shears one by one. Its memory does not grow with
                ``S``, but every force is evaluated twice. It can be differentiated once, in eager mode. The states are
                recomputed up to rounding; `evaluation.reversibility_error` measures how accurately.

        Returns:
            ``(q, p)`` after ``S`` steps, with the inputs' shapes and dtypes.

        Raises:
            TypeError: if the Hamiltonian is not separable (the map would not be symplectic), a state is not
                floating-point, or ``dt`` is a tensor and the table not symmetric.
            ValueError: if ``q`` and ``p`` differ in shape, ``steps < 1``, ``dt`` is not finite or ``gradient`` unknown.
            RuntimeError: with ``"reversible"``, if the Hamiltonian draws random numbers (dropout) or changes its
                tensors (BatchNorm in train mode), because it is evaluated again in the backward pass; in the
                backward pass, if it uses a tensor that requires a gradient and is neither a parameter nor an attribute
                of its modules; and under ``torch.func``.
        """
        if not isinstance(hamiltonian, AbstractSeparable):
            raise TypeError(
                f"hamiltonian must be separable, H(q, p) = T(p) + V(q), got {_checks.kind(hamiltonian)}: an explicit "
                "kick-drift scheme is not symplectic on any other. Subclass AbstractSeparable, wrap a potential in "
                "PotentialHamiltonian, or integrate with implicit_midpoint."
            )
        check_arguments(q, p, dt, steps)
        run = roll_out if _checks.one_of("gradient", gradient, GRADIENTS) == "stored" else reversible_roll_out
        if isinstance(dt, Tensor) and not self.symmetric:
            raise TypeError("dt must be a float for an integrator that is not time-symmetric, got a tensor")
        updates = [(hamiltonian, *update) for update in self._updates(steps)]
        if not self.symmetric and dt < 0:
            updates.reverse()

        q, p = at_full_precision(lambda q, p: run(updates, q, p, dt), q, p)
        return q, p

    def _updates(self, steps: int) -> list[tuple[bool, float]]:
        """``(is_kick, coefficient)`` of the whole rollout: without zeros, adjacent updates of the same kind merged."""

        step = [(True, self.kicks[0])]
        for drift, kick in zip(self.drifts, self.kicks[1:], strict=True):
            step += [(False, drift), (True, kick)]
        updates: list[tuple[bool, float]] = []
        for is_kick, coefficient in step * steps:
            if not coefficient:
                continue
            if updates and updates[-1][0] == is_kick:
                updates[-1] = (is_kick, updates[-1][1] + coefficient)
            else:
                updates.append((is_kick, coefficient))
        return updates

"""A predictor that integrates a Hamiltonian."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians import Hamiltonian
from symplectic_jepa.integrators import Integrator, leapfrog
from symplectic_jepa.integrators._base import GRADIENTS, Gradient
from symplectic_jepa.predictors._stepped import SteppedPredictor


class HamiltonianPredictor(SteppedPredictor):
    r"""``ẑ = Φ_{±h}^S(z)`` by a symplectic integrator of a Hamiltonian [paper, eq. 28 and 29].

    ``predictor(predictor(z), direction=-1)`` returns ``z`` to rounding (with `implicit_midpoint`, to its solver's
    error). The dynamics run in float32 or better under any autocast, and float64 stays float64, with every integrator.

    ``predictor(z, control=u)`` integrates a `ControlledHamiltonian`, or a potential ``V(q, u)``, under the input ``u``,
    ``(..., m)``, constant over all steps. Without a control the former evolves freely, and the latter raises an error.

    Args:
        hamiltonian: the energy; separable for the default integrator.
        dt: step size ``h > 0``.
        steps: number of steps ``S``.
        integrator: `leapfrog` or another `Integrator`; that class describes how to write your own.
        learn_dt: see `SteppedPredictor`.
        gradient: ``"stored"``, or ``"reversible"`` for memory that does not grow with ``steps``; see `Splitting`.

    Raises:
        TypeError: if ``hamiltonian`` is not a `Hamiltonian`, or ``integrator`` cannot be called.
        ValueError: if ``dt`` is not positive and finite, ``steps < 1``, ``gradient`` is unknown, or it is
            ``"reversible"`` and the integrator has no ``gradient`` argument.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        *,
        dt: float = 0.05,
        steps: int = 2,
        integrator: Integrator | Callable[..., tuple[Tensor, Tensor]] = leapfrog,
        learn_dt: bool = False,
        gradient: Gradient = "stored",
    ) -> None:
        super().__init__(dt=dt, steps=steps, learn_dt=learn_dt)
        self.hamiltonian = _checks.instance("hamiltonian", hamiltonian, Hamiltonian)
        self.integrator = _checks.function("integrator", integrator)
        self.gradient = _checks.one_of("gradient", gradient, GRADIENTS)
        if gradient == "reversible" and "gradient" not in inspect.signature(integrator).parameters:
            raise ValueError(
                f"gradient must be 'stored' for an integrator without a gradient argument, got 'reversible' with "
                f"{getattr(integrator, 'name', getattr(integrator, '__name__', integrator))}"
            )

    @property
    def dt_per_state(self) -> bool:
        """True if the integrator is symmetric; otherwise the sign of ``dt`` decides the order of its updates."""
        return bool(getattr(self.integrator, "symmetric", False))

    @property
    def takes_control(self) -> bool:
        """Whether the Hamiltonian takes a control."""
        return self.hamiltonian.takes_control

    def roll_out(
        self, q: Tensor, p: Tensor, *, dt: float | Tensor, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Integrate ``steps`` steps; see `SteppedPredictor`."""
        options: dict[str, Any] = {} if self.gradient == "stored" else {"gradient": self.gradient}
        return self.integrator(self._system(control), q, p, dt=dt, steps=self.steps, **options)

    def energy(self, q: Tensor, p: Tensor, *, control: Tensor | None = None) -> Tensor:
        """The energy ``(...)`` of positions and momenta ``(..., d)``, conserved by the exact flow.

        The exact flow of a `DampedHamiltonian` lowers it, unless a control drives the system.

        Raises:
            TypeError: if a state or ``control`` is not a floating-point tensor, or a ``control`` is given to a
                Hamiltonian that takes none, or has no energy under it.
            ValueError: if ``q`` and ``p`` differ in shape.
        """
        _checks.states(q, p, control)
        energy: Tensor = self._system(control)(q, p)
        return energy

    def _system(self, control: Tensor | None) -> Hamiltonian:
        return self.hamiltonian if control is None else self.hamiltonian.with_control(control)

"""The flow of a Hamiltonian as a predictor."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians import ControlledHamiltonian, Hamiltonian
from symplectic_jepa.integrators import Integrator, leapfrog
from symplectic_jepa.integrators._base import GRADIENTS, at_full_precision
from symplectic_jepa.predictors._base import Predictor
from symplectic_jepa.state import join_state, split_state


class HamiltonianPredictor(Predictor):
    r"""``ẑ = Φ_{±h}^S(z)`` by a symplectic integrator of a Hamiltonian [paper, eq. 28 and 29].

    ``predictor(predictor(z), direction=-1)`` returns ``z`` to rounding (with `implicit_midpoint`, to its solver's
    error). The dynamics run in float32 or better under any autocast, float64 stays float64, whatever the integrator.

    Args:
        hamiltonian: the energy; the default integrator needs a separable one.
        dt: step size ``h > 0``.
        steps: number of steps ``S``.
        integrator: a function like `leapfrog`; see `Integrator` for one of your own.
        learn_dt: see `Predictor`.
        gradient: ``"stored"``, or ``"reversible"`` for memory that does not grow with ``steps``; see `Splitting`.

    Raises:
        TypeError: if ``hamiltonian`` is no `Hamiltonian`, or ``integrator`` cannot be called.
        ValueError: if ``dt`` is not positive and finite, ``steps < 1``, ``gradient`` is unknown, or it is
            ``"reversible"`` and the integrator has no such argument.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        *,
        dt: float = 0.05,
        steps: int = 2,
        integrator: Integrator = leapfrog,
        learn_dt: bool = False,
        gradient: str = "stored",
    ) -> None:
        super().__init__(dt=dt, steps=steps, learn_dt=learn_dt)
        if not isinstance(hamiltonian, Hamiltonian):
            raise TypeError(f"hamiltonian must be a Hamiltonian, got {type(hamiltonian).__name__}")
        if not callable(integrator):
            raise TypeError(f"integrator must be a function like leapfrog, got {integrator!r}")
        self.hamiltonian = hamiltonian
        self.integrator = integrator
        self.gradient = _checks.one_of("gradient", gradient, GRADIENTS)
        if gradient == "reversible" and "gradient" not in inspect.signature(integrator).parameters:
            raise ValueError(
                f"gradient must be 'stored' for an integrator without a reversible one, got 'reversible' with "
                f"{getattr(integrator, '__name__', integrator)}"
            )

    @property
    def mixes_directions(self) -> bool:
        """See `Predictor`; where the integrator is time-symmetric, so that the sign does not change its order."""
        return self.integrator is leapfrog or bool(getattr(self.integrator, "symmetric", False))

    def forward(self, z: Tensor, *, direction: int | Tensor = 1, control: Tensor | None = None) -> Tensor:
        """Integrate states ``(..., 2d)``, forward or in reverse time.

        Args:
            z: states ``(..., 2d)``.
            direction: 1 or −1, or a tensor of both, ``(..., 1)``, where `mixes_directions`.
            control: the input ``u`` of a `ControlledHamiltonian`, ``(..., m)``, held over all steps; without one the
                system runs free.

        Raises:
            ValueError: if ``direction`` is not 1 or −1, or ``z`` has an odd last dimension.
            TypeError: if ``z`` is not floating, or a ``control`` is given to a Hamiltonian that takes none.
        """
        return join_state(*self.flow(*split_state(z), direction=direction, control=control))

    def flow(
        self, q: Tensor, p: Tensor, *, direction: int | Tensor = 1, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same on the two halves of the state apart: ``(..., d)`` twice to ``(..., d)`` twice."""
        hamiltonian = self.hamiltonian
        if control is not None:
            if not isinstance(hamiltonian, ControlledHamiltonian):
                raise TypeError(f"control needs a ControlledHamiltonian, got {type(hamiltonian).__name__}")
            hamiltonian = hamiltonian.with_control(control)
        options: dict[str, Any] = {} if self.gradient == "stored" else {"gradient": self.gradient}

        def integrate(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            h = self._signed_dt(direction, q)
            return self.integrator(hamiltonian, q, p, dt=h, steps=self.steps, **options)

        return at_full_precision(integrate, q, p)

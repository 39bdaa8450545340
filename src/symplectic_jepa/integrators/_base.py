"""The interface of an integrator, and argument checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, get_args

from torch import Tensor

from symplectic_jepa import _checks

Gradient = Literal["stored", "reversible"]
GRADIENTS: tuple[str, ...] = get_args(Gradient)


class Integrator(ABC):
    """A map of ``(q, p)``; `Splitting` and `ImplicitMidpoint` implement it.

    A predictor only calls it, so a plain function with the same arguments also works. It uses ``hamiltonian.force(q)``
    and ``hamiltonian.velocity(p)`` of a separable Hamiltonian, or ``hamiltonian.gradient(q, p)`` of any. Neither
    includes damping, which ``hamiltonian.decay_rate(p)`` gives. Inside a `HamiltonianPredictor` it runs with autocast
    off, in float32 or better.

    Attributes:
        name: name in messages and ``print``.
        order: order of the global error in the step size.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import HamiltonianPredictor, QuadraticHamiltonian
        >>> def drift_kick_drift(hamiltonian, q, p, *, dt, steps=1):
        ...     for _ in range(steps):
        ...         q = q + 0.5 * dt * hamiltonian.velocity(p)
        ...         p = p + dt * hamiltonian.force(q)
        ...         q = q + 0.5 * dt * hamiltonian.velocity(p)
        ...     return q, p
        >>> predictor = HamiltonianPredictor(QuadraticHamiltonian(4), integrator=drift_kick_drift)
        >>> z = torch.randn(16, 8, dtype=torch.float64)
        >>> torch.allclose(predictor(predictor(z), direction=-1), z)
        True
    """

    name: str
    order: int

    @property
    @abstractmethod
    def symmetric(self) -> bool:
        """Whether the step is its own adjoint, so that its updates run in the same order for either sign of ``dt``."""

    @abstractmethod
    def __call__(
        self, hamiltonian: Any, q: Tensor, p: Tensor, *, dt: float | Tensor, steps: int = 1
    ) -> tuple[Tensor, Tensor]:
        """``steps`` steps of size ``dt`` from ``(q, p)``, each ``(..., d)``; a negative ``dt`` inverts a positive one.

        Half-precision states, and all states under autocast, are integrated in float32 and cast back; float64 stays
        float64.
        """


def check_arguments(q: Tensor, p: Tensor, dt: float | Tensor, steps: int) -> None:
    """Raise on arguments that are invalid for every integrator."""
    _checks.positive_int("steps", steps)
    _checks.states(q, p)
    if isinstance(dt, Tensor):
        if _checks.floating("dt", dt).ndim and (dt.shape[-1] != 1 or not _checks.broadcasts(dt.shape, q.shape)):
            raise ValueError(
                f"dt must be a float, a scalar tensor, or one step size per state, (..., 1) for states of shape "
                f"{tuple(q.shape)}, got shape {tuple(dt.shape)}"
            )
    else:
        _checks.finite("dt", dt)

"""The interface of an integrator, and what all of them share: argument checks and precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from symplectic_jepa import _checks

GRADIENTS = ("stored", "reversible")


class Integrator(Protocol):
    """A map of ``(q, p)``: all that a predictor asks of an integrator, so a function of your own is one too.

    It may offer ``gradient="reversible"``, see `Splitting`.

    It reads ``hamiltonian.force(q)`` and ``hamiltonian.velocity(p)`` of a separable Hamiltonian, or
    ``hamiltonian.gradient(q, p)`` of any; inside a `HamiltonianPredictor` it is run with autocast off, in float32 or
    better.

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

    def __call__(
        self, hamiltonian: Any, q: Tensor, p: Tensor, *, dt: float | Tensor, steps: int
    ) -> tuple[Tensor, Tensor]:
        """``steps`` steps of size ``dt`` from ``(q, p)``; a negative ``dt`` inverts a positive one."""


def check_arguments(q: Tensor, p: Tensor, dt: float | Tensor, steps: int) -> None:
    """Refuse what no integrator can run on."""
    _checks.positive_int("steps", steps)
    if q.shape != p.shape or q.ndim == 0:
        raise ValueError(f"q and p must share a shape (..., d), got {tuple(q.shape)} and {tuple(p.shape)}")
    if not (q.is_floating_point() and p.is_floating_point()):
        raise TypeError(f"q and p must be floating-point tensors, got {q.dtype} and {p.dtype}")
    if isinstance(dt, Tensor):
        if dt.ndim and (dt.shape[-1] != 1 or not _checks.broadcasts(dt.shape, q.shape)):
            raise ValueError(
                f"dt must be a float, a scalar tensor, or one step size per state, (..., 1) for states of shape "
                f"{tuple(q.shape)}, got shape {tuple(dt.shape)}"
            )
    else:
        _checks.finite("dt", dt)


def at_full_precision(
    flow: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], q: Tensor, p: Tensor
) -> tuple[Tensor, Tensor]:
    """Run ``flow(q, p)``, autocast off, in float32 (float64 if a state is); cast back to the inputs' dtypes.

    Raises:
        TypeError: if a state is not floating.
    """
    if not (q.is_floating_point() and p.is_floating_point()):
        raise TypeError(f"states must be floating-point tensors, got {q.dtype} and {p.dtype}")
    dtype = torch.promote_types(torch.promote_types(q.dtype, p.dtype), torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q_out, p_out = flow(q.to(dtype), p.to(dtype))
    return q_out.to(q.dtype), p_out.to(p.dtype)

"""Explicit symplectic integrators as coefficients of one kick–drift loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians import AbstractSeparable, Hamiltonian


class Integrator(Protocol):
    """What a predictor asks of an integrator; `leapfrog` is one, a user's function may be another."""

    def __call__(
        self, hamiltonian: Any, q: Tensor, p: Tensor, *, dt: float | Tensor, steps: int
    ) -> tuple[Tensor, Tensor]:
        """``steps`` steps of size ``dt`` from ``(q, p)``; a negative ``dt`` inverts a positive one."""


def leapfrog(
    hamiltonian: AbstractSeparable, q: Tensor, p: Tensor, *, dt: float | Tensor, steps: int = 1
) -> tuple[Tensor, Tensor]:
    r"""Leapfrog (kick–drift–kick, velocity Verlet), order 2 and time-symmetric [paper, eq. 27 and 28].

    ``p ← p + ½h F(q);  q ← q + h p;  p ← p + ½h F(q)`` with ``F = −∇V``, ``steps`` times. Adjacent half-kicks are
    merged, so ``S`` steps cost ``S + 1`` force evaluations. Half-precision states, and all states under autocast,
    are integrated in float32 and cast back; float64 stays float64.

    Args:
        hamiltonian: a separable Hamiltonian.
        q: positions, ``(..., d)``.
        p: momenta, ``(..., d)``.
        dt: step size ``h`` (a float, or a scalar tensor when it is learned); ``−h`` is the exact inverse map.
        steps: number of steps ``S``.

    Returns:
        ``(q, p)`` after ``S`` steps, with the inputs' shapes and dtypes.

    Raises:
        TypeError: if the Hamiltonian is not separable (the map would not be symplectic), or a state not floating.
        ValueError: if ``q`` and ``p`` differ in shape, ``steps < 1``, or ``dt`` is not finite.

    Example:
        >>> import torch
        >>> from symplectic_jepa import QuadraticHamiltonian
        >>> q, p = torch.randn(2, 8, 4, dtype=torch.float64)
        >>> forward = leapfrog(QuadraticHamiltonian(4), q, p, dt=0.1, steps=5)
        >>> back = leapfrog(QuadraticHamiltonian(4), *forward, dt=-0.1, steps=5)
        >>> torch.allclose(back[0], q)
        True
    """
    return _kick_drift(hamiltonian, q, p, dt=dt, steps=steps, kicks=(0.5, 0.5), drifts=(1.0,))


def symplectic_euler(
    hamiltonian: AbstractSeparable, q: Tensor, p: Tensor, *, dt: float, steps: int = 1
) -> tuple[Tensor, Tensor]:
    r"""Symplectic Euler, order 1: ``p ← p + h F(q);  q ← q + h p`` with ``F = −∇V``, ``steps`` times.

    The method is not time-symmetric: for a negative ``dt`` the two updates run in the opposite order, so that
    ``−h`` is the exact inverse of ``h``. That order follows from the sign, so ``dt`` must be a float here.

    Args:
        hamiltonian: a separable Hamiltonian.
        q: positions, ``(..., d)``.
        p: momenta, ``(..., d)``.
        dt: step size ``h``.
        steps: number of steps.

    Returns:
        ``(q, p)`` after ``steps`` steps, with the inputs' shapes and dtypes.

    Raises:
        TypeError: if the Hamiltonian is not separable, a state not floating, or ``dt`` a tensor.
        ValueError: if ``q`` and ``p`` differ in shape, ``steps < 1``, or ``dt`` is not finite.
    """
    return _kick_drift(hamiltonian, q, p, dt=dt, steps=steps, kicks=(1.0, 0.0), drifts=(1.0,))


def _kick_drift(
    hamiltonian: AbstractSeparable,
    q: Tensor,
    p: Tensor,
    *,
    dt: float | Tensor,
    steps: int,
    kicks: Sequence[float],
    drifts: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Run ``steps`` × (kick k₀, drift d₀, kick k₁, …, drift, kick kₙ), merging each last kick with the next first.

    Each kick ``(q, p + k h F(q))`` and drift ``(q + d h p, p)`` is a shear, hence exactly symplectic and inverted
    by ``−h``; running the coefficients backwards with ``−h`` inverts their composition.
    """
    _check_arguments(hamiltonian, q, p, dt, steps)
    if kicks != kicks[::-1] or drifts != drifts[::-1]:
        if isinstance(dt, Tensor):
            raise TypeError("dt must be a float for an integrator that is not time-symmetric, got a tensor")
        if dt < 0:
            kicks, drifts = kicks[::-1], drifts[::-1]
    sequence = [c for _ in range(steps) for c in zip(drifts, kicks[1:], strict=True)]
    last = len(drifts)

    q_dtype, p_dtype = q.dtype, p.dtype
    dtype = torch.promote_types(torch.promote_types(q_dtype, p_dtype), torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, p = q.to(dtype), p.to(dtype)
        if kicks[0]:
            p = p + (kicks[0] * dt) * hamiltonian.force(q)
        for i, (drift, kick) in enumerate(sequence, start=1):
            q = q + (drift * dt) * p
            merged = kick + kicks[0] if i % last == 0 and i < len(sequence) else kick
            if merged:
                p = p + (merged * dt) * hamiltonian.force(q)
    return q.to(q_dtype), p.to(p_dtype)


def _check_arguments(hamiltonian: Hamiltonian, q: Tensor, p: Tensor, dt: float | Tensor, steps: int) -> None:
    if not isinstance(hamiltonian, AbstractSeparable):
        raise TypeError(
            f"hamiltonian must be separable, H(q, p) = T(p) + V(q), got {type(hamiltonian).__name__}: an explicit "
            "kick-drift scheme is not symplectic on any other. Subclass AbstractSeparable, or wrap a potential in "
            "PotentialHamiltonian."
        )
    _checks.positive_int("steps", steps)
    if q.shape != p.shape or q.ndim == 0:
        raise ValueError(f"q and p must share a shape (..., d), got {tuple(q.shape)} and {tuple(p.shape)}")
    if not (q.is_floating_point() and p.is_floating_point()):
        raise TypeError(f"q and p must be floating-point tensors, got {q.dtype} and {p.dtype}")
    if isinstance(dt, Tensor):
        if dt.ndim:
            raise ValueError(f"dt must be a float or a scalar tensor, got shape {tuple(dt.shape)}")
    else:
        _checks.finite("dt", dt)

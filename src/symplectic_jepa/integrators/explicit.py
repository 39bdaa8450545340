"""The named explicit integrators: one table of coefficients each."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

from torch import Tensor

from symplectic_jepa.hamiltonians import AbstractSeparable
from symplectic_jepa.integrators.splitting import Splitting


def _verlet_composition(name: str, *weights: float, order: int, reference: str) -> Splitting:
    """Leapfrog steps of sizes ``wᵢ h`` one after the other, their touching half-kicks merged."""
    kicks = (weights[0] / 2, *((a + b) / 2 for a, b in pairwise(weights)), weights[-1] / 2)
    return Splitting(name, kicks=kicks, drifts=weights, order=order, reference=reference)


_symplectic_euler = Splitting(
    "symplectic_euler", kicks=(1.0, 0.0), drifts=(1.0,), order=1, reference="de Vogelaere (1956)"
)
_leapfrog = Splitting("leapfrog", kicks=(0.5, 0.5), drifts=(1.0,), order=2, reference="Verlet (1967), velocity form")

position_verlet = Splitting(
    "position_verlet", kicks=(0.0, 1.0, 0.0), drifts=(0.5, 0.5), order=2, reference="Verlet (1967), position form"
)

ruth3 = Splitting(
    "ruth3",
    kicks=(7 / 24, 3 / 4, -1 / 24, 0.0),
    drifts=(2 / 3, -2 / 3, 1.0),
    order=3,
    reference="Ruth (1983), IEEE Trans. Nucl. Sci. 30, 2669",
)

# Three leapfrogs w₁, w₀, w₁: the error terms of third order cancel for 2 w₁ + w₀ = 1, 2 w₁³ + w₀³ = 0.
_W1 = 1 / (2 - 2 ** (1 / 3))
yoshida4 = _verlet_composition(
    "yoshida4", _W1, 1 - 2 * _W1, _W1, order=4, reference="Yoshida (1990), Phys. Lett. A 150, 262; Forest & Ruth (1990)"
)

# Seven leapfrogs w₃, w₂, w₁, w₀, w₁, w₂, w₃, solution A of the three: the conditions have no closed solution.
_A1, _A2, _A3 = -1.17767998417887100695, 0.23557321335935813368, 0.78451361047755726382
_A0 = 1 - 2 * (_A1 + _A2 + _A3)
yoshida6 = _verlet_composition(
    "yoshida6", _A3, _A2, _A1, _A0, _A1, _A2, _A3, order=6,
    reference="Yoshida (1990), Phys. Lett. A 150, 262, solution A; digits of Hairer, Lubich & Wanner (2006), V.3.11",
)  # fmt: skip

SPLITTINGS: Mapping[str, Splitting] = MappingProxyType(
    {s.name: s for s in (_symplectic_euler, _leapfrog, position_verlet, ruth3, yoshida4, yoshida6)}
)
"""Every explicit integrator here by its name, as data."""


def leapfrog(
    hamiltonian: AbstractSeparable,
    q: Tensor,
    p: Tensor,
    *,
    dt: float | Tensor,
    steps: int = 1,
    gradient: str = "stored",
) -> tuple[Tensor, Tensor]:
    r"""Leapfrog (kick–drift–kick, velocity Verlet), order 2 and time-symmetric [paper, eq. 27 and 28].

    ``p ← p + ½h F(q);  q ← q + h p;  p ← p + ½h F(q)`` with ``F = −∇V``, ``steps`` times (with a mass, ``M⁻¹p``
    in the drift). Adjacent half-kicks are merged, so ``S`` steps cost ``S + 1`` force evaluations. Half-precision
    states, and all states under autocast, are integrated in float32 and cast back; float64 stays float64.

    Args:
        hamiltonian: a separable Hamiltonian.
        q: positions, ``(..., d)``.
        p: momenta, ``(..., d)``.
        dt: step size ``h`` (a float, or a scalar tensor when it is learned); ``−h`` is the exact inverse map.
        steps: number of steps ``S``.
        gradient: ``"stored"``, or ``"reversible"`` for memory that does not grow with ``S``; see `Splitting`.

    Returns:
        ``(q, p)`` after ``S`` steps, with the inputs' shapes and dtypes.

    Raises:
        TypeError: if the Hamiltonian is not separable (the map would not be symplectic), or a state not floating.
        ValueError: if ``q`` and ``p`` differ in shape, ``steps < 1``, ``dt`` is not finite or ``gradient`` unknown.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import QuadraticHamiltonian
        >>> q, p = torch.randn(2, 8, 4, dtype=torch.float64)
        >>> forward = leapfrog(QuadraticHamiltonian(4), q, p, dt=0.1, steps=5)
        >>> back = leapfrog(QuadraticHamiltonian(4), *forward, dt=-0.1, steps=5)
        >>> torch.allclose(back[0], q)
        True
    """
    return _leapfrog(hamiltonian, q, p, dt=dt, steps=steps, gradient=gradient)


def symplectic_euler(
    hamiltonian: AbstractSeparable,
    q: Tensor,
    p: Tensor,
    *,
    dt: float,
    steps: int = 1,
    gradient: str = "stored",
) -> tuple[Tensor, Tensor]:
    r"""Symplectic Euler, order 1: ``p ← p + h F(q);  q ← q + h p`` with ``F = −∇V``, ``steps`` times.

    The method [paper, appendix F.6] is not time-symmetric: for a negative ``dt`` the two updates run in the opposite
    order, so that ``−h`` is the exact inverse of ``h``. That order follows from the sign, so ``dt`` must be a float
    here.

    Args:
        hamiltonian: a separable Hamiltonian.
        q: positions, ``(..., d)``.
        p: momenta, ``(..., d)``.
        dt: step size ``h``.
        steps: number of steps.
        gradient: see `Splitting`.

    Returns:
        ``(q, p)`` after ``steps`` steps, with the inputs' shapes and dtypes.

    Raises:
        TypeError: if the Hamiltonian is not separable, a state not floating, or ``dt`` a tensor.
        ValueError: if ``q`` and ``p`` differ in shape, ``steps < 1``, ``dt`` is not finite or ``gradient`` unknown.
    """
    return _symplectic_euler(hamiltonian, q, p, dt=dt, steps=steps, gradient=gradient)

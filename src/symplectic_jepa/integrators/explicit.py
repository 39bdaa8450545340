"""The named explicit integrators, each a table of coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

from symplectic_jepa.integrators.splitting import Splitting


def _verlet_composition(name: str, *weights: float, order: int, reference: str) -> Splitting:
    """Successive leapfrog steps of sizes ``wᵢ h``, with adjacent half-kicks merged."""
    kicks = (weights[0] / 2, *((a + b) / 2 for a, b in pairwise(weights)), weights[-1] / 2)
    return Splitting(name, kicks=kicks, drifts=weights, order=order, reference=reference)


symplectic_euler = Splitting(
    "symplectic_euler", kicks=(1.0, 0.0), drifts=(1.0,), order=1, reference="de Vogelaere (1956) [paper, appendix F.6]"
)
r"""Symplectic Euler, order 1: ``p ← p + h F(q);  q ← q + h p`` with ``F = −∇V``, ``steps`` times.

The method [paper, appendix F.6] is not time-symmetric: for a negative ``dt`` the two updates run in the opposite
order, so that ``−h`` is the exact inverse of ``h``. The sign decides the order, so ``dt`` must be a float.
For arguments and errors see `Splitting`.
"""

leapfrog = Splitting(
    "leapfrog", kicks=(0.5, 0.5), drifts=(1.0,), order=2, reference="Verlet (1967) [paper, eq. 27 and 28]"
)
r"""Leapfrog (kick–drift–kick, velocity Verlet), order 2 and time-symmetric [paper, eq. 27 and 28].

``p ← p + ½h F(q);  q ← q + h p;  p ← p + ½h F(q)`` with ``F = −∇V``, ``steps`` times (with a mass, ``M⁻¹p`` in the
drift). Adjacent half-kicks are merged, so ``S`` steps cost ``S + 1`` force evaluations. ``−h`` is the exact inverse
map. For arguments and errors see `Splitting`.

Examples:
    >>> import torch
    >>> from symplectic_jepa import QuadraticHamiltonian, leapfrog
    >>> q, p = torch.randn(2, 8, 4, dtype=torch.float64)
    >>> forward = leapfrog(QuadraticHamiltonian(4), q, p, dt=0.1, steps=5)
    >>> back = leapfrog(QuadraticHamiltonian(4), *forward, dt=-0.1, steps=5)
    >>> torch.allclose(back[0], q)
    True
"""

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

# Three leapfrogs w₁, w₀, w₁: the third-order error terms cancel for 2 w₁ + w₀ = 1, 2 w₁³ + w₀³ = 0.
_W1 = 1 / (2 - 2 ** (1 / 3))
yoshida4 = _verlet_composition(
    "yoshida4", _W1, 1 - 2 * _W1, _W1, order=4, reference="Yoshida (1990), Phys. Lett. A 150, 262; Forest & Ruth (1990)"
)

# Seven leapfrogs w₃, w₂, w₁, w₀, w₁, w₂, w₃, solution A of three: the conditions have no closed-form solution.
_A1, _A2, _A3 = -1.17767998417887100695, 0.23557321335935813368, 0.78451361047755726382
_A0 = 1 - 2 * (_A1 + _A2 + _A3)
yoshida6 = _verlet_composition(
    "yoshida6", _A3, _A2, _A1, _A0, _A1, _A2, _A3, order=6,
    reference="Yoshida (1990), Phys. Lett. A 150, 262, solution A; digits of Hairer, Lubich & Wanner (2006), V.3.11",
)  # fmt: skip

SPLITTINGS: Mapping[str, Splitting] = MappingProxyType(
    {s.name: s for s in (symplectic_euler, leapfrog, position_verlet, ruth3, yoshida4, yoshida6)}
)
"""All explicit integrators by name."""

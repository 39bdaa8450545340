"""What a controlled and a damped system have in common: they wrap another one."""

from __future__ import annotations

from torch import Tensor

from symplectic_jepa.hamiltonians._base import AbstractSeparable


class Wrapper(AbstractSeparable):
    """Energies, forces and damping of another separable system, ``self.hamiltonian``."""

    hamiltonian: AbstractSeparable

    def potential(self, q: Tensor) -> Tensor:
        """``V(q)``: ``(..., d)`` to ``(...)``."""
        return self.hamiltonian.potential(q)

    def force(self, q: Tensor) -> Tensor:
        """``−∇V(q)``: ``(..., d)`` to ``(..., d)``."""
        return self.hamiltonian.force(q)

    def kinetic(self, p: Tensor) -> Tensor:
        """``T(p)``: ``(..., d)`` to ``(...)``."""
        return self.hamiltonian.kinetic(p)

    def velocity(self, p: Tensor) -> Tensor:
        """``∇T(p)``: ``(..., d)`` to ``(..., d)``."""
        return self.hamiltonian.velocity(p)

    def decay_rate(self, p: Tensor) -> Tensor | None:
        """The damping of the wrapped system; see `Hamiltonian.decay_rate`."""
        return self.hamiltonian.decay_rate(p)

"""What a Hamiltonian is, and what makes one separable."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Hamiltonian(nn.Module, ABC):
    """An energy ``H(q, p)``; subclasses implement ``forward``.

    Only the subclass `AbstractSeparable` may be given to the explicit integrators.
    """

    @abstractmethod
    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """Energies ``(...)`` of positions and momenta ``(..., d)``."""


class AbstractSeparable(Hamiltonian):
    r"""``H(q, p) = T(p) + V(q)`` with ``T(p) = ½‖p‖²`` [paper, eq. 26].

    The kinetic metric is fixed: a learnable one would let the encoder's scale constraints be met by
    rescaling it. To write a Hamiltonian of your own, subclass this and implement `potential` and `force`::

        class Pendulum(AbstractSeparable):
            def potential(self, q):
                return (1 - q.cos()).sum(-1)

            def force(self, q):
                return -q.sin()
    """

    @abstractmethod
    def potential(self, q: Tensor) -> Tensor:
        """``V(q)``: ``(..., d)`` to ``(...)``."""

    @abstractmethod
    def force(self, q: Tensor) -> Tensor:
        """``−∇V(q)``: ``(..., d)`` to ``(..., d)``."""

    def kinetic(self, p: Tensor) -> Tensor:
        """``T(p) = ½‖p‖²``: ``(..., d)`` to ``(...)``."""
        return 0.5 * p.square().sum(-1)

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """``H(q, p) = T(p) + V(q)``: ``(..., d)`` twice to ``(...)``."""
        return self.kinetic(p) + self.potential(q)

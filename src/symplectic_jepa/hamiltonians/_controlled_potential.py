"""A potential ``V(q, u)`` that may depend on an input."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians._base import AbstractSeparable


class ControlledPotential(AbstractSeparable):
    """``H(q, p, u) = T(p) + V(q, u)`` with an input ``u ∈ R^m``, ``m = control_dim``; ``m = 0`` for none."""

    control_dim: int

    @abstractmethod
    def potential(self, q: Tensor, control: Tensor | None = None) -> Tensor:
        """``V(q, u)``: ``(..., d)`` and ``(..., m)`` to ``(...)``."""

    @abstractmethod
    def force(self, q: Tensor, control: Tensor | None = None) -> Tensor:
        """``−∂V/∂q``: ``(..., d)`` and ``(..., m)`` to ``(..., d)``."""

    @property
    def takes_control(self) -> bool:
        """Whether the potential depends on a control."""
        return self.control_dim > 0

    def with_control(self, control: Tensor) -> AbstractSeparable:
        """``H(q, p, u)`` for a fixed ``u``, ``(..., m)``, whose leading dimensions broadcast to the state's.

        Raises:
            TypeError: if the potential depends on no control, or ``control`` is not a floating-point tensor.
        """
        if not self.takes_control:
            super().with_control(control)
        return _Bound(self, _checks.floating("control", control))

    def _control(self, control: Tensor | None, q: Tensor) -> Tensor | None:
        return _checks.control_or_none(control, self.control_dim, q, system=self)


class _Bound(AbstractSeparable):
    """A system with its input bound. The input is read at every call, so that it and the weights may be trained."""

    def __init__(self, system: ControlledPotential, control: Tensor) -> None:
        super().__init__()
        self.system = system
        self.control = control

    def potential(self, q: Tensor) -> Tensor:
        """``V(q, u)``: ``(..., d)`` to ``(...)``."""
        return self.system.potential(q, self.control)

    def force(self, q: Tensor) -> Tensor:
        """``−∂V/∂q``: ``(..., d)`` to ``(..., d)``."""
        return self.system.force(q, self.control)

    def kinetic(self, p: Tensor) -> Tensor:
        """``T(p)``: ``(..., d)`` to ``(...)``."""
        return self.system.kinetic(p)

    def velocity(self, p: Tensor) -> Tensor:
        """``∇T(p)``: ``(..., d)`` to ``(..., d)``."""
        return self.system.velocity(p)

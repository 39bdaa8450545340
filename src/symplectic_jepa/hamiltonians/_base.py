"""The interfaces of general and separable Hamiltonians."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._sharding import Gathering
from symplectic_jepa.hamiltonians._autograd import energy_gradient
from symplectic_jepa.pretrained import Pretrained


class Hamiltonian(Gathering, Pretrained, nn.Module, ABC):
    """An energy ``H(q, p)``; subclasses implement ``forward``, and `gradient` if they have a closed form.

    The explicit integrators accept only subclasses of `AbstractSeparable`; all others are integrated by
    `implicit_midpoint` [paper, equations 24 and 25]. To write your own, define its energy::

        class MagneticField(Hamiltonian):
            def forward(self, q, p):
                return 0.5 * (p - 0.3 * q.flip(-1)).square().sum(-1)
    """

    _gathers: ClassVar[tuple[str, ...]] = (
        "gradient", "potential", "force", "kinetic", "velocity", "decay_rate", "input_force",
    )  # fmt: skip

    @property
    def takes_control(self) -> bool:
        """Whether the system has a control input, which `with_control` binds."""
        return False

    def with_control(self, control: Tensor) -> Hamiltonian:
        """This system under a fixed input ``u``, ``(..., m)``, whose leading dimensions broadcast to the state's.

        Raises:
            TypeError: if the system takes no control, or ``control`` is not a floating-point tensor.
        """
        raise TypeError(
            f"control must be None for a {type(self).__name__}, which takes no control; wrap it in a "
            "ControlledHamiltonian"
        )

    def decay_rate(self, p: Tensor) -> Tensor | None:
        """The rates ``Γ`` of a damping ``ṗ = −∂H/∂q − Γp``, for momenta ``(..., d)``, in their dtype.

        Returns:
            ``(d,)`` in inverse units of time, or ``None`` without damping; see `DampedHamiltonian`.
        """
        return None

    @abstractmethod
    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """Energies ``(...)`` of positions and momenta ``(..., d)``."""

    def gradient(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """``(∂H/∂q, ∂H/∂p)``, each ``(..., d)``, through autograd unless a subclass has a closed form.

        Works in training (second derivatives flow through it), under ``no_grad`` and ``inference_mode``, and in a
        full graph of ``torch.compile``.

        Raises:
            TypeError: if a state is not floating-point.
            ValueError: if ``q`` and ``p`` differ in shape, or ``forward`` does not return one energy per state.
            RuntimeError: if the energy is not connected to ``q`` or ``p`` through autograd.
        """
        _checks.states(q, p)
        dq, dp = energy_gradient(type(self).__name__, self, q=q, p=p)
        return dq, dp

    def vector_field(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """The time derivatives ``(q̇, ṗ) = (∂H/∂p, −∂H/∂q − Γp)``, each ``(..., d)``.

        ``Γ`` is the damping of `decay_rate`. Fit this to observed derivatives to learn the energy: a Hamiltonian neural
        network [Greydanus et al. 2019, arXiv:1906.01563, eq. 3].

        Raises:
            TypeError: if a state is not floating-point.
            ValueError: if ``q`` and ``p`` differ in shape.
        """
        dq, dp = self.gradient(q, p)
        rate = self.decay_rate(p)
        return dp, -dq if rate is None else -dq - rate * p


class AbstractSeparable(Hamiltonian):
    r"""``H(q, p) = T(p) + V(q)``, by default with ``T(p) = ½‖p‖²`` [paper, eq. 26].

    The kinetic metric is fixed by default: if it were learnable, rescaling it could satisfy the constraints on the
    encoder's scale. To write your own Hamiltonian, subclass this and implement `potential` and `force`::

        class Pendulum(AbstractSeparable):
            def potential(self, q):
                return (1 - q.cos()).sum(-1)

            def force(self, q):
                return -q.sin()

    For another kinetic energy override `kinetic` and its gradient `velocity`.
    """

    @abstractmethod
    def potential(self, q: Tensor) -> Tensor:
        """``V(q)``: ``(..., d)`` to ``(...)``."""

    @abstractmethod
    def force(self, q: Tensor) -> Tensor:
        """``−∇V(q)``: ``(..., d)`` to ``(..., d)``."""

    def kinetic(self, p: Tensor) -> Tensor:
        """``T(p) = ½‖p‖²``: ``(..., d)`` to ``(...)``."""
        return 0.5 * _checks.floating("p", p).square().sum(-1)

    def velocity(self, p: Tensor) -> Tensor:
        """The drift velocity ``∇T(p) = p``: ``(..., d)`` to ``(..., d)``."""
        return p

    def gradient(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """``(∂H/∂q, ∂H/∂p) = (−force(q), velocity(p))``, each ``(..., d)``.

        Raises:
            TypeError: if a state is not floating-point.
            ValueError: if ``q`` and ``p`` differ in shape.
        """
        _checks.states(q, p)
        return -self.force(q), self.velocity(p)

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """``H(q, p) = T(p) + V(q)``: ``(..., d)`` twice to ``(...)``.

        Raises:
            TypeError: if a state is not floating-point.
            ValueError: if ``q`` and ``p`` differ in shape.
        """
        _checks.states(q, p)
        return self.kinetic(p) + self.potential(q)

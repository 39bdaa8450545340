"""A Hamiltonian with a control input, for action-conditioned world models."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import ExactBuffers
from symplectic_jepa.hamiltonians._base import AbstractSeparable, Hamiltonian
from symplectic_jepa.hamiltonians._wrapper import Wrapper


class ControlledHamiltonian(Hamiltonian, ExactBuffers):
    r"""``q̇ = ∂H/∂p,  ṗ = −∂H/∂q + B(q)u`` with a control input ``u ∈ R^m`` [Symplectic ODE-Net, arXiv:1909.12077].

    `with_control` binds one ``u`` (constant during the call, like an action during one frame);
    ``HamiltonianPredictor.forward(z, control=u)`` does this for you. Without a control this is the free system,
    ``u = 0``. If ``hamiltonian`` is separable, so is the controlled system, and every integrator takes it; if not, use
    `implicit_midpoint`. If ``hamiltonian`` takes a control itself, both take the same one.

    For a fixed ``u`` and a constant ``B`` the map is symplectic: the energy is ``H(q, p) − qᵀBu``. For a ``B(q)`` that
    depends on the position it is in general **not** symplectic, because ``B(q)u`` need not be a gradient (a potential
    ``V(q, u)`` is: ``SeparableHamiltonian(dim, control_dim=m)``). ``−h`` with the same ``u`` still inverts it, and the
    explicit integrators still preserve volume, because each kick is a shear.

    Args:
        hamiltonian: the free system.
        input_matrix: matrix ``B``: a ``(d, m)`` tensor (kept as a buffer), a ``(d, m)`` parameter (learned), or a
            module or callable from ``(..., d)`` to ``(..., d, m)``.

    Raises:
        TypeError: if ``hamiltonian`` is not a `Hamiltonian`, or ``input_matrix`` neither a floating-point tensor nor a
            module or function.
        ValueError: if a constant ``input_matrix`` is not ``(d, m)``.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import HamiltonianPredictor, QuadraticHamiltonian
        >>> system = ControlledHamiltonian(QuadraticHamiltonian(4), nn.Parameter(torch.randn(4, 2)))
        >>> predictor = HamiltonianPredictor(system)
        >>> z, actions = torch.randn(8, 8), torch.randn(5, 8, 2)
        >>> predictor.rollout(z, actions).shape  # a world model: one prediction per action
        torch.Size([5, 8, 8])
    """

    input_matrix: Tensor | Callable[[Tensor], Tensor]
    _exact = ("input_matrix",)

    def __init__(self, hamiltonian: Hamiltonian, input_matrix: Tensor | nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.hamiltonian = _checks.instance("hamiltonian", hamiltonian, Hamiltonian)
        if type(self) is ControlledHamiltonian and isinstance(hamiltonian, AbstractSeparable):
            self.__class__ = _ControlledSeparable  # not __new__, whose signature would hide that of __init__
        if not isinstance(input_matrix, Tensor):
            _checks.function("input_matrix", input_matrix, expected="a tensor, a module or a function")
        elif _checks.floating("input_matrix", input_matrix).ndim != 2 or 0 in input_matrix.shape:
            raise ValueError(f"input_matrix must have shape (d, m), got {tuple(input_matrix.shape)}")
        if isinstance(input_matrix, Tensor) and not isinstance(input_matrix, nn.Parameter):
            self.register_buffer("input_matrix", input_matrix.detach().clone())
        else:
            self.input_matrix = input_matrix

    @property
    def takes_control(self) -> bool:
        """True."""
        return True

    def with_control(self, control: Tensor) -> Hamiltonian:
        """This system under a fixed input ``u``, ``(..., m)``, whose leading dimensions broadcast to the state's.

        Raises:
            TypeError: if ``control`` is not a floating-point tensor.
            ValueError: if it has no last dimension.
        """
        _checks.floating("control", control)
        free = self.hamiltonian.with_control(control) if self.hamiltonian.takes_control else self.hamiltonian
        return (_DrivenSeparable if isinstance(free, AbstractSeparable) else _Driven)(self, free, control)

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """``H(q, p)`` of the free system: ``(..., d)`` twice to ``(...)``."""
        energy: Tensor = self.hamiltonian(q, p)
        return energy

    def gradient(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """``(∂H/∂q, ∂H/∂p)`` of the free system, each ``(..., d)``."""
        return self.hamiltonian.gradient(q, p)

    def input_force(self, q: Tensor, control: Tensor) -> Tensor:
        """``B(q)u`` in the dtype of ``q``: ``(..., d)`` and ``(..., m)`` to ``(..., d)``.

        Raises:
            TypeError: if ``q`` or ``control`` is not a floating-point tensor.
            ValueError: if the shape of ``B`` or ``control`` does not match ``q``, or they are on different devices.
        """
        _checks.same_device(q=_checks.floating("q", q), control=_checks.floating("control", control))
        matrix = self.input_matrix if isinstance(self.input_matrix, Tensor) else self.input_matrix(q)
        fits = matrix.ndim >= 2 and matrix.shape[:-1] in (q.shape, q.shape[-1:])
        if not fits:
            raise ValueError(
                f"input_matrix must be (d, m) or (..., d, m) for q of shape {tuple(q.shape)}, got {tuple(matrix.shape)}"
            )
        u = _checks.control(control, matrix.shape[-1], q)
        force: Tensor = (matrix.to(q.dtype) @ u.unsqueeze(-1)).squeeze(-1)
        return force


class _ControlledSeparable(ControlledHamiltonian, Wrapper):
    """What `ControlledHamiltonian` makes of a separable Hamiltonian."""

    hamiltonian: AbstractSeparable
    _saved_as: ClassVar[type] = ControlledHamiltonian

    def _get_name(self) -> str:
        return "ControlledHamiltonian"


class _Driven(Hamiltonian):
    """A controlled system with its input bound, also in ``hamiltonian``, the system without ``B``, if it has one."""

    def __init__(self, system: ControlledHamiltonian, hamiltonian: Hamiltonian, control: Tensor) -> None:
        super().__init__()
        if control.ndim == 0 or control.shape[-1] == 0:
            raise ValueError(f"control must have shape (..., m >= 1), got {tuple(control.shape)}")
        self.system = system
        self.hamiltonian = hamiltonian
        self.control = control

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """``H(q, p) − qᵀBu`` for a constant ``B``: ``(..., d)`` twice to ``(...)``.

        Raises:
            TypeError: if ``B`` depends on the position, because the force then has no potential in general.
        """
        energy: Tensor = self.hamiltonian(q, p)
        return energy + self._input_potential(q)

    def gradient(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """``(∂H/∂q − B(q)u, ∂H/∂p)``, each ``(..., d)``; for a ``B(q)`` not the gradient of an energy."""
        dq, dp = self.hamiltonian.gradient(q, p)
        return dq - self.system.input_force(q, self.control), dp

    def _input_potential(self, q: Tensor) -> Tensor:
        """``−qᵀBu``: ``(..., d)`` to ``(...)``."""
        if not isinstance(self.system.input_matrix, Tensor):
            raise TypeError("a system under control has an energy only for a constant input_matrix, got B(q)")
        return -(q * self.system.input_force(q, self.control)).sum(-1)


class _DrivenSeparable(_Driven, Wrapper):
    """Force ``−∇V(q) + B(q)u``."""

    hamiltonian: AbstractSeparable

    def potential(self, q: Tensor) -> Tensor:
        """``V(q) − qᵀBu`` for a constant ``B``: ``(..., d)`` to ``(...)``."""
        return self.hamiltonian.potential(q) + self._input_potential(q)

    def force(self, q: Tensor) -> Tensor:
        """``−∇V(q) + B(q)u``: ``(..., d)`` to ``(..., d)``."""
        return self.hamiltonian.force(q) + self.system.input_force(q, self.control)

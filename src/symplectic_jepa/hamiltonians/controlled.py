"""A Hamiltonian with a control input, for action-conditioned world models."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import ExactBuffers
from symplectic_jepa.hamiltonians._base import AbstractSeparable


class ControlledHamiltonian(AbstractSeparable, ExactBuffers):
    r"""``q̇ = ∇T(p),  ṗ = −(∇V(q) − B(q)u)`` with a control input ``u ∈ R^m`` [Symplectic ODE-Net, arXiv:1909.12077].

    `with_control` binds one ``u`` (constant during the call, like an action during one frame) and returns a separable
    Hamiltonian that every integrator takes; ``HamiltonianPredictor.forward(z, control=u)`` does this for you. Without a
    control this is the free system, ``u = 0``.

    For a fixed ``u`` and a constant ``B`` the map is symplectic: the force has the potential ``V(q) − qᵀBu``. For a
    ``B(q)`` that depends on the position it is in general **not** symplectic, because ``B(q)u`` need not be a
    gradient. It still preserves volume (each kick is a shear), and ``−h`` with the same ``u`` still inverts it exactly.

    Args:
        hamiltonian: the free system, separable.
        input_matrix: matrix ``B``: a ``(d, m)`` tensor (kept as a buffer), a ``(d, m)`` parameter (learned), or a
            module or callable from ``(..., d)`` to ``(..., d, m)``.

    Raises:
        TypeError: if ``hamiltonian`` is not separable, or ``input_matrix`` neither a floating-point tensor nor a
            module or function.
        ValueError: if a constant ``input_matrix`` is not ``(d, m)``.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import HamiltonianPredictor, QuadraticHamiltonian
        >>> system = ControlledHamiltonian(QuadraticHamiltonian(4), nn.Parameter(torch.randn(4, 2)))
        >>> predictor = HamiltonianPredictor(system)
        >>> z, actions = torch.randn(8, 8), torch.randn(5, 8, 2)
        >>> for action in actions:  # a world model: one prediction per action
        ...     z = predictor(z, control=action)
    """

    input_matrix: Tensor | Callable[[Tensor], Tensor]
    _exact = ("input_matrix",)

    def __init__(
        self, hamiltonian: AbstractSeparable, input_matrix: Tensor | nn.Module | Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.hamiltonian = _checks.instance("hamiltonian", hamiltonian, AbstractSeparable)
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

    def with_control(self, control: Tensor) -> AbstractSeparable:
        """This system under a fixed input ``u``, ``(..., m)``, whose leading dimensions broadcast to the state's.

        Raises:
            TypeError: if ``control`` is not a floating-point tensor.
            ValueError: if it has no last dimension.
        """
        return _Driven(self, control)

    def potential(self, q: Tensor) -> Tensor:
        """``V(q)`` of the free system: ``(..., d)`` to ``(...)``."""
        return self.hamiltonian.potential(q)

    def force(self, q: Tensor) -> Tensor:
        """``−∇V(q)`` of the free system: ``(..., d)`` to ``(..., d)``."""
        return self.hamiltonian.force(q)

    def kinetic(self, p: Tensor) -> Tensor:
        """``T(p)``: ``(..., d)`` to ``(...)``."""
        return self.hamiltonian.kinetic(p)

    def velocity(self, p: Tensor) -> Tensor:
        """``∇T(p)``: ``(..., d)`` to ``(..., d)``."""
        return self.hamiltonian.velocity(p)

    def decay_rate(self, p: Tensor) -> Tensor | None:
        """The damping of the free system; see `Hamiltonian.decay_rate`."""
        return self.hamiltonian.decay_rate(p)

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
        inputs, batch = matrix.shape[-1], q.shape[:-1]
        if control.shape[-1:] != (inputs,) or not _checks.broadcasts(control.shape[:-1], batch):
            raise ValueError(
                f"control must have shape (..., {inputs}) with leading dimensions that broadcast to {tuple(batch)}, "
                f"got {tuple(control.shape)}"
            )
        force: Tensor = (matrix.to(q.dtype) @ control.to(q.dtype).unsqueeze(-1)).squeeze(-1)
        return force


class _Driven(AbstractSeparable):
    """A controlled system with its input bound: force ``−∇V(q) + B(q)u``."""

    def __init__(self, system: ControlledHamiltonian, control: Tensor) -> None:
        super().__init__()
        if _checks.floating("control", control).ndim == 0 or control.shape[-1] == 0:
            raise ValueError(f"control must have shape (..., m >= 1), got {tuple(control.shape)}")
        self.system = system
        self.control = control

    def potential(self, q: Tensor) -> Tensor:
        """``V(q) − qᵀBu`` for a constant ``B``: ``(..., d)`` to ``(...)``.

        Raises:
            TypeError: if ``B`` depends on the position, because the force then has no potential in general.
        """
        if not isinstance(self.system.input_matrix, Tensor):
            raise TypeError("a system under control has an energy only for a constant input_matrix, got B(q)")
        return self.system.potential(q) - (q * self.system.input_force(q, self.control)).sum(-1)

    def force(self, q: Tensor) -> Tensor:
        """``−∇V(q) + B(q)u``: ``(..., d)`` to ``(..., d)``."""
        return self.system.force(q) + self.system.input_force(q, self.control)

    def kinetic(self, p: Tensor) -> Tensor:
        """``T(p)``: ``(..., d)`` to ``(...)``."""
        return self.system.kinetic(p)

    def velocity(self, p: Tensor) -> Tensor:
        """``∇T(p)``: ``(..., d)`` to ``(..., d)``."""
        return self.system.velocity(p)

    def decay_rate(self, p: Tensor) -> Tensor | None:
        """The damping of the free system; see `Hamiltonian.decay_rate`."""
        return self.system.decay_rate(p)

"""A user-written potential, with its force through autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians._autograd import check_energy, energy_gradient
from symplectic_jepa.hamiltonians._controlled_potential import ControlledPotential


class PotentialHamiltonian(ControlledPotential):
    r"""``H(q, p) = ½‖p‖² + V(q)`` for a user-written ``V``; the force ``−∇V`` comes from autograd [paper, eq. 26].

    Works in training (second derivatives flow through the force), under ``no_grad`` and ``inference_mode``, and in
    a full graph of ``torch.compile``, where it uses ``torch.func.grad`` (so a compiled potential must not contain
    BatchNorm in train mode; in eager mode it may).

    With ``control_dim=m`` the potential is ``V(q, u)``, called with an input ``u``, ``(..., m)``, that has the leading
    dimensions of ``q``. `with_control` binds ``u``; ``HamiltonianPredictor.forward(z, control=u)`` does this for you.

    Args:
        potential: module or callable from ``(..., d)`` to ``(...)``; each output may depend only on its own row.
            A module becomes a submodule.
        control_dim: dimension ``m`` of the input ``u``; 0 for a potential ``V(q)``.

    Raises:
        TypeError: if ``potential`` is neither a module nor a function.
        ValueError: if ``control_dim`` is not an int of at least 0.

    Examples:
        >>> import torch
        >>> pendulum = PotentialHamiltonian(lambda q: (1 - q.cos()).sum(-1))
        >>> pendulum.force(torch.zeros(3, 1)).shape
        torch.Size([3, 1])
    """

    def __init__(self, potential: nn.Module | Callable[..., Tensor], *, control_dim: int = 0) -> None:
        super().__init__()
        self.potential_fn = _checks.function("potential", potential)
        self.control_dim = _checks.integer("control_dim", control_dim, maximum=2**31 - 1)

    def config(self) -> dict[str, Any]:
        """See `Pretrained.config`; the argument is stored as ``potential_fn``, since ``potential`` is a method."""
        return {"potential": self.potential_fn, "control_dim": self.control_dim}

    def potential(self, q: Tensor, control: Tensor | None = None) -> Tensor:
        """``V(q)``, or ``V(q, u)``: ``(..., d)`` and ``(..., control_dim)`` to ``(...)``.

        Raises:
            TypeError: if ``q`` is not a floating-point tensor, or a ``control`` is given although ``control_dim`` is 0.
            ValueError: if the user's potential does not return one energy per state, or ``control`` is missing or has
                another shape.
        """
        inputs = self._inputs(control, _checks.floating("q", q))
        return check_energy("potential", self.potential_fn(q, *inputs), q=q)

    def force(self, q: Tensor, control: Tensor | None = None) -> Tensor:
        """``−∂V/∂q`` through autograd: ``(..., d)`` and ``(..., control_dim)`` to ``(..., d)``.

        Raises:
            TypeError: as `potential`.
            ValueError: as `potential`.
            RuntimeError: if the potential is not connected to ``q`` through autograd.
        """
        inputs = self._inputs(control, _checks.floating("q", q))
        (gradient,) = energy_gradient("potential", self.potential_fn, *inputs, q=q)
        return -gradient

    def _inputs(self, control: Tensor | None, q: Tensor) -> list[Tensor]:
        u = self._control(control, q)
        return [] if u is None else [u.expand(*q.shape[:-1], self.control_dim)]

"""A user-written potential, with its force through autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians._autograd import check_energy, energy_gradient
from symplectic_jepa.hamiltonians._base import AbstractSeparable


class PotentialHamiltonian(AbstractSeparable):
    r"""``H(q, p) = ½‖p‖² + V(q)`` for a user-written ``V``; the force ``−∇V`` comes from autograd [paper, eq. 26].

    Works in training (second derivatives flow through the force), under ``no_grad`` and ``inference_mode``, and in
    a full graph of ``torch.compile``, where it uses ``torch.func.grad`` (so a compiled potential must not contain
    BatchNorm in train mode; in eager mode it may).

    Args:
        potential: module or callable from ``(..., d)`` to ``(...)``; each output may depend only on its own row.
            A module becomes a submodule.

    Raises:
        TypeError: if ``potential`` is neither a module nor a function.

    Examples:
        >>> import torch
        >>> pendulum = PotentialHamiltonian(lambda q: (1 - q.cos()).sum(-1))
        >>> pendulum.force(torch.zeros(3, 1)).shape
        torch.Size([3, 1])
    """

    def __init__(self, potential: nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.potential_fn = _checks.function("potential", potential)

    def config(self) -> dict[str, Any]:
        """See `Pretrained.config`; the argument is stored as ``potential_fn``, since ``potential`` is a method."""
        return {"potential": self.potential_fn}

    def potential(self, q: Tensor) -> Tensor:
        """``V(q)``: ``(..., d)`` to ``(...)``.

        Raises:
            TypeError: if ``q`` is not a floating-point tensor.
            ValueError: if the user's potential does not return one energy per state.
        """
        return check_energy("potential", self.potential_fn(_checks.floating("q", q)), q=q)

    def force(self, q: Tensor) -> Tensor:
        """``−∇V(q)`` through autograd: ``(..., d)`` to ``(..., d)``.

        Raises:
            TypeError: if ``q`` is not a floating-point tensor.
            ValueError: if the user's potential does not return one energy per state.
            RuntimeError: if the potential is not connected to ``q`` through autograd.
        """
        (gradient,) = energy_gradient("potential", self.potential_fn, q=_checks.floating("q", q))
        return -gradient

"""Any potential the user can write, its force through autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from symplectic_jepa.hamiltonians._base import AbstractSeparable


class PotentialHamiltonian(AbstractSeparable):
    r"""``H(q, p) = ½‖p‖² + V(q)`` for a user-written ``V``; the force ``−∇V`` comes from autograd.

    Works in training (second derivatives flow through the force), under ``no_grad`` and ``inference_mode``, and in
    a full graph of ``torch.compile``, where it uses ``torch.func.grad`` (so a compiled potential must not hold
    train-mode BatchNorm; eagerly it may).

    Args:
        potential: module or callable from ``(..., d)`` to ``(...)``, each output depending on its own row only.
            A module's parameters become parameters of this one.

    Raises:
        TypeError: if ``potential`` is not callable.

    Example:
        >>> import torch
        >>> pendulum = PotentialHamiltonian(lambda q: (1 - q.cos()).sum(-1))
        >>> pendulum.force(torch.zeros(3, 1)).shape
        torch.Size([3, 1])
    """

    def __init__(self, potential: nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(potential):
            raise TypeError(f"potential must be a module or callable, got {type(potential).__name__}")
        self.potential_fn = potential

    def potential(self, q: Tensor) -> Tensor:
        """``V(q)``: ``(..., d)`` to ``(...)``.

        Raises:
            ValueError: if the user's potential does not return one energy per state.
        """
        energy: Tensor = self.potential_fn(q)
        if energy.shape != q.shape[:-1]:
            raise ValueError(
                f"potential must map (..., d) to (...): for q of shape {tuple(q.shape)} expected "
                f"{tuple(q.shape[:-1])}, got {tuple(energy.shape)}"
            )
        return energy

    def force(self, q: Tensor) -> Tensor:
        """``−∇V(q)`` through autograd: ``(..., d)`` to ``(..., d)``.

        Raises:
            RuntimeError: if the potential is not connected to ``q`` through autograd.
        """
        if torch.compiler.is_compiling():
            # torch.autograd.grad(create_graph=True) cannot be traced with a double backward; func.grad can.
            gradient: Tensor = torch.func.grad(lambda x: self.potential(x).sum())(q)
            return -gradient
        training = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            # A leaf of its own unless the caller differentiates through q; a clone, if made in inference mode.
            x = q if training and q.requires_grad else (q.clone() if q.is_inference() else q.detach())
            if not x.requires_grad:
                x.requires_grad_()
            energy = self.potential(x).sum()
            if not energy.requires_grad:
                raise RuntimeError("potential(q) must depend on q through autograd; it returned a constant")
            (grad,) = torch.autograd.grad(energy, x, create_graph=training)
        return -grad

"""The interface of a geometry: a symmetric positive definite operator ``H``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from symplectic_jepa.pretrained import Pretrained


class Geometry(Pretrained, nn.Module, ABC):
    """``H`` on vectors ``(..., D)``; `HamSIGReg` needs nothing else, so your own geometry is two methods."""

    @abstractmethod
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``H^{1/2} z``, the symmetric square root: ``(..., D)`` to ``(..., D)``, in float32 or better."""

    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Every eigenvalue of ``H``; one that all channels and both halves share is listed once."""

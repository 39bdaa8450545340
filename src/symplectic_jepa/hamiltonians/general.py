"""A learned energy of position and momentum together."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians.mlp import Activation, MLPHamiltonian


class GeneralHamiltonian(MLPHamiltonian):
    r"""``H(q, p) = ½ c (‖q‖² + ‖p‖²) + s · f([q, p])`` with an MLP ``f`` and a closed-form gradient.

    The learnable, non-separable form of [paper, appendix F.5]: ``f`` couples ``q`` and ``p``. Explicit kick–drift
    schemes such as `leapfrog` would not be symplectic, so they raise an error. Use `implicit_midpoint`.

    Args:
        dim: dimension ``d`` of ``q`` (and of ``p``).
        hidden_dim: width of the hidden layers.
        depth: number of hidden layers.
        activation: ``"gelu"``, ``"silu"``, ``"tanh"`` or ``"softplus"``.
        base_coeff: coefficient ``c``; 1 as in the paper. With ``c = 0`` and ``s = 1`` all of the energy is learned.
        residual_scale: scale ``s`` of ``f``; stored in a buffer, see `set_residual_scale`.

    Raises:
        ValueError: for a size below 1, an unknown activation or a coefficient that is not finite.

    Examples:
        >>> from symplectic_jepa import HamiltonianPredictor
        >>> from symplectic_jepa.integrators import implicit_midpoint
        >>> predictor = HamiltonianPredictor(GeneralHamiltonian(4), integrator=implicit_midpoint)
        >>> predictor(torch.randn(8, 8)).shape
        torch.Size([8, 8])
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden_dim: int = 256,
        depth: int = 2,
        activation: Activation = "gelu",
        base_coeff: float = 1.0,
        residual_scale: float = 0.02,
    ) -> None:
        super().__init__(
            2 * _checks.positive_int("dim", dim),
            hidden_dim=hidden_dim,
            depth=depth,
            activation=activation,
            residual_scale=residual_scale,
        )
        self.dim = dim
        self.base_coeff = _checks.finite("base_coeff", base_coeff)

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """``H(q, p)``: ``(..., dim)`` twice to ``(...)``.

        Raises:
            TypeError: if a state is not floating-point.
            ValueError: if ``q`` and ``p`` are not both ``(..., dim)``.
        """
        z = self._join(q, p)
        return 0.5 * self.base_coeff * z.square().sum(-1) + self._residual(z)

    def gradient(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """``(∂H/∂q, ∂H/∂p) = c [q, p] + s ∇f([q, p])`` in closed form, each ``(..., dim)``.

        It reads the layers' weights, and refuses layers as `SeparableHamiltonian.force` does.
        """
        z = self._join(q, p)
        dq, dp = torch.add(self._residual_gradient(z), z, alpha=self.base_coeff).chunk(2, dim=-1)
        return dq, dp

    def _join(self, q: Tensor, p: Tensor) -> Tensor:
        _checks.states(_checks.coordinates("q", q, self.dim), _checks.coordinates("p", p, self.dim))
        return torch.cat((q, p), dim=-1)

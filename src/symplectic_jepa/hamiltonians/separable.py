"""HamJEPA's learned potential, with a closed-form force."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians._controlled_potential import ControlledPotential
from symplectic_jepa.hamiltonians.mlp import Activation, MLPHamiltonian


class SeparableHamiltonian(MLPHamiltonian, ControlledPotential):
    r"""``H(q, p) = ½‖p‖² + ½ c ‖q‖² + s · f(q)`` with an MLP ``f`` [paper, eq. 26 and appendix F.5].

    With layers ``a_l = W_l h_{l−1} + b_l``, ``h_l = φ(a_l)``, ``h_0 = q`` and ``f = w · h_depth``, the force is
    ``−∇V(q) = −c q − s W_1ᵀ(φ'(a_1) ⊙ W_2ᵀ(φ'(a_2) ⊙ … w))``: one forward and one transposed pass over the same
    weights. It does not call autograd, so training needs no double backward. Weights are cast to the dtype of the
    state, so float64 states are integrated in float64. The layers' ``forward`` is never called; see `force`.

    With ``control_dim=m`` the potential depends on an input ``u ∈ R^m``, such as an action: ``f([q, u])``, and the
    force is ``−∂V(q, u)/∂q``. For every fixed ``u`` the system is Hamiltonian, so its maps are symplectic, whatever
    ``f`` is. `with_control` binds ``u``; ``HamiltonianPredictor.forward(z, control=u)`` does this for you. There is no
    free system: an input is needed, because ``u = 0`` need not mean "no action".

    Args:
        dim: dimension ``d`` of ``q`` (and of ``p``).
        hidden_dim: width of the hidden layers.
        depth: number of hidden layers.
        activation: ``"gelu"``, ``"silu"``, ``"tanh"`` or ``"softplus"``.
        base_coeff: coefficient ``c``; keeps the dynamics active when ``f`` learns a constant.
        residual_scale: scale ``s`` of ``f``, a buffer, so that a warm-up (`set_residual_scale`) neither recompiles nor
            breaks a captured graph.
        learn_mass: learn a diagonal mass, ``T(p) = ½ pᵀM⁻¹p`` with ``M = diag(softplus(θ))``, starting at the
            identity. Off by default, as in the paper (section 4.2): a fixed ``T`` stabilizes training, and rescaling a
            learnable kinetic metric could satisfy the constraints on the scale of the states. Use it for given
            dynamics, such as observed trajectories.
        control_dim: dimension ``m`` of the input ``u``; 0 for a potential ``V(q)``.

    Raises:
        ValueError: for a size below 1, a ``control_dim`` below 0, an unknown activation or a coefficient that is not
            finite.

    Examples:
        >>> from symplectic_jepa import HamiltonianPredictor
        >>> predictor = HamiltonianPredictor(SeparableHamiltonian(4, control_dim=2))
        >>> predictor(torch.randn(8, 8), control=torch.randn(8, 2)).shape
        torch.Size([8, 8])
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden_dim: int = 256,
        depth: int = 2,
        activation: Activation = "gelu",
        base_coeff: float = 0.1,
        residual_scale: float = 0.02,
        learn_mass: bool = False,
        control_dim: int = 0,
    ) -> None:
        super().__init__(
            _checks.positive_int("dim", dim) + _checks.integer("control_dim", control_dim, maximum=2**31 - 1),
            hidden_dim=hidden_dim,
            depth=depth,
            activation=activation,
            residual_scale=residual_scale,
        )
        self.dim = dim
        self.control_dim = control_dim
        self.base_coeff = _checks.finite("base_coeff", base_coeff)
        # softplus⁻¹(1) = log(e − 1)
        unit = torch.full((dim,), math.log(math.expm1(1.0)))
        self.raw_mass = nn.Parameter(unit) if _checks.boolean("learn_mass", learn_mass) else None

    @property
    def learn_mass(self) -> bool:
        """Whether the mass is learned."""
        return self.raw_mass is not None

    @property
    def mass(self) -> Tensor | None:
        """The positive diagonal ``(dim,)`` of ``M`` if it is learned, otherwise ``None`` (identity)."""
        return None if self.raw_mass is None else F.softplus(self.raw_mass)

    def potential(self, q: Tensor, control: Tensor | None = None) -> Tensor:
        """``V(q) = ½ c ‖q‖² + s f(q)``, or ``V(q, u)``: ``(..., dim)`` and ``(..., control_dim)`` to ``(...)``.

        Raises:
            TypeError: if a tensor is not floating-point, or a ``control`` is given although ``control_dim`` is 0.
            ValueError: if a shape does not fit, or ``control`` is missing.
        """
        _checks.coordinates("q", q, self.dim)
        return 0.5 * self.base_coeff * q.square().sum(-1) + self._residual(q, self._control(control, q))

    def force(self, q: Tensor, control: Tensor | None = None) -> Tensor:
        """``−∂V/∂q`` in closed form: ``(..., dim)`` and ``(..., control_dim)`` to ``(..., dim)``.

        It reads the layers' weights. Layers with ``torch.nn.utils.parametrizations`` are exact; what works through a
        layer's ``forward`` is refused: hooks (old-style weight and spectral norm, pruning), LoRA and quantised layers,
        FSDP2 units inside the predictor.

        Raises:
            TypeError: if ``q`` is not floating-point, or a layer is refused; the message names it, as ``hidden.0``; and
                as `potential`.
            ValueError: if reading a weight changes it, as ``spectral_norm`` does in train mode; and as `potential`.
        """
        _checks.coordinates("q", q, self.dim)
        return torch.add(self._residual_gradient(q, self._control(control, q), factor=-1.0), q, alpha=-self.base_coeff)

    def kinetic(self, p: Tensor) -> Tensor:
        """``T(p) = ½ pᵀM⁻¹p``: ``(..., dim)`` to ``(...)``; ``½‖p‖²`` without a learned mass."""
        return 0.5 * (_checks.floating("p", p) * self.velocity(p)).sum(-1)

    def velocity(self, p: Tensor) -> Tensor:
        """``∇T(p) = M⁻¹p``: ``(..., dim)`` to ``(..., dim)``; ``p`` itself without a learned mass."""
        if self.raw_mass is None:
            return p
        _checks.coordinates("p", p, self.dim)
        return p / F.softplus(self.raw_mass.to(p.dtype))

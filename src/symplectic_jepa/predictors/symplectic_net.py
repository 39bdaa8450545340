"""A symplectic network: learned kicks and drifts in turn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians import AbstractSeparable
from symplectic_jepa.hamiltonians.mlp import Activation, ScalarMLP
from symplectic_jepa.integrators._base import GRADIENTS, Gradient
from symplectic_jepa.integrators.reversible import reversible_roll_out, roll_out
from symplectic_jepa.predictors._stepped import SteppedPredictor


class _Energy(ScalarMLP):
    """``½ c ‖x‖² + f(x, u)``, and its gradient with respect to ``x``."""

    def __init__(self, dim: int, control_dim: int, *, coefficient: float, **options: Any) -> None:
        super().__init__(dim + control_dim, **options)
        self.coefficient = coefficient

    def forward(self, x: Tensor, control: Tensor | None) -> Tensor:
        """``(..., dim)`` and ``(..., m)`` to ``(...)``."""
        return 0.5 * self.coefficient * x.square().sum(-1) + self._mlp(x, control).squeeze(-1)

    def gradient(self, x: Tensor, control: Tensor | None, *, factor: float = 1.0) -> Tensor:
        """``factor · ∇_x``, in closed form: ``(..., dim)`` and ``(..., m)`` to ``(..., dim)``."""
        return torch.add(self._mlp_gradient(x, control, factor=factor), x, alpha=factor * self.coefficient)


class _Layer(AbstractSeparable):
    """``H_i(q, p; u) = T_i(p) + V_i(q, u)``: its kick and its drift are one layer."""

    def __init__(self, kick: _Energy, drift: _Energy, control: Tensor | None = None) -> None:
        super().__init__()
        self.kick = kick
        self.drift = drift
        self.control = control  # an attribute, so that the reversible gradient finds it

    def potential(self, q: Tensor) -> Tensor:
        energy: Tensor = self.kick(q, self.control)
        return energy

    def force(self, q: Tensor) -> Tensor:
        return self.kick.gradient(q, self.control, factor=-1.0)

    def kinetic(self, p: Tensor) -> Tensor:
        energy: Tensor = self.drift(p, None)
        return energy

    def velocity(self, p: Tensor) -> Tensor:
        return self.drift.gradient(p, None)


class SymplecticNetPredictor(SteppedPredictor):
    r"""A symplectic network: kicks and drifts of learned energies in turn [G-SympNets, arXiv:2001.03750].

    For each layer ``i = 1 … L``

        ``p ← p − (h/L) ∇V_i(q, u)``,  ``V_i(q, u) = ½ c ‖q‖² + f_i(q, u)``,
        ``q ← q + (h/L) ∇T_i(p)``,    ``T_i(p) = ½ ‖p‖² + g_i(p)``,

    with MLPs ``f_i``, ``g_i`` and their gradients in closed form (as in `SeparableHamiltonian`, which also describes
    the layers that are refused). Each update is a shear, so the map is symplectic for every fixed control ``u``,
    whatever the weights. ``direction=-1`` runs the layers backwards with ``−h``, which inverts the map to rounding.

    With enough layers and hidden units it approximates any symplectic map on a bounded set [arXiv:2001.03750]. The step
    of a separable Hamiltonian does not: with ``T = ½ ‖p‖²`` its force cannot depend on the velocity, as it must for a
    pendulum whose angle is encoded as ``(cos, sin)``, or in a magnetic field. In return no single energy is conserved,
    since every layer has its own.

    The fixed quadratic terms make the untrained map close to harmonic motion over a time ``h``, for any ``L``: momenta
    move positions from the first training step. They do not restrict what can be learned, because an MLP can cancel
    them on a bounded set. If all layers have the same energies, this is `symplectic_euler` with ``L`` steps. The map is
    not time-symmetric, so mixed directions take one call each. It runs in float32 or better. The kinetic energies are
    learned, which the paper avoids when it matches views (section 4.2; see ``learn_mass`` of `SeparableHamiltonian`).

    Args:
        dim: half the dimension of a state, ``d``.
        layers: number of layers ``L``, each a kick and a drift.
        hidden_dim: width of the hidden layers of every MLP.
        depth: number of hidden layers of every MLP.
        control_dim: dimension ``m`` of the control ``u``, which the kicks read; 0 for a map without one.
        dt: time ``h > 0`` of the whole map. The default equals that of `HamiltonianPredictor`, two steps of 0.05.
        activation: ``"gelu"``, ``"silu"``, ``"tanh"`` or ``"softplus"``.
        base_coeff: coefficient ``c``.
        gradient: ``"stored"``, or ``"reversible"`` for memory that does not grow with ``layers``; see `Splitting`.

    Raises:
        ValueError: for a size below 1, a negative ``control_dim``, a ``dt`` that is not positive and finite, a
            coefficient that is not finite, or an unknown ``activation`` or ``gradient``.

    Examples:
        >>> import torch
        >>> predictor = SymplecticNetPredictor(4, control_dim=2).double()
        >>> z, u = torch.randn(16, 8).double(), torch.randn(16, 2).double()
        >>> back = predictor(predictor(z, control=u), direction=-1, control=u)
        >>> torch.allclose(back, z)
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int = 3,
        hidden_dim: int = 128,
        depth: int = 2,
        control_dim: int = 0,
        dt: float = 0.1,
        activation: Activation = "gelu",
        base_coeff: float = 0.1,
        gradient: Gradient = "stored",
    ) -> None:
        super().__init__(dt=dt, steps=1)
        self.dim = _checks.positive_int("dim", dim)
        self.layers = _checks.positive_int("layers", layers, maximum=1000)
        self.hidden_dim = hidden_dim
        self.depth = depth
        self.control_dim = _checks.integer("control_dim", control_dim, maximum=2**31 - 1)
        self.activation = activation
        self.base_coeff = _checks.finite("base_coeff", base_coeff)
        self.gradient = _checks.one_of("gradient", gradient, GRADIENTS)
        options = {"hidden_dim": hidden_dim, "depth": depth, "activation": activation}
        self.hamiltonians = nn.ModuleList(
            _Layer(
                _Energy(dim, self.control_dim, coefficient=self.base_coeff, **options),
                _Energy(dim, 0, coefficient=1.0, **options),
            )
            for _ in range(layers)
        )

    @property
    def takes_control(self) -> bool:
        """Whether the kicks read a control."""
        return self.control_dim > 0

    def roll_out(
        self, q: Tensor, p: Tensor, *, dt: float | Tensor, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Apply the layers, in reverse order if ``dt < 0``; see `SteppedPredictor`.

        Raises:
            ValueError: if the states are not ``(..., dim)``, or a ``control`` is missing or not ``(..., control_dim)``
                with leading dimensions that broadcast to the state's.
            TypeError: if a ``control`` is not floating-point, or given to a map without one.
            RuntimeError: in the backward pass of ``gradient="reversible"``, under ``torch.func`` and for second
                derivatives.
        """
        _checks.states(_checks.coordinates("q", q, self.dim), _checks.coordinates("p", p, self.dim))
        updates = [(layer, kick, 1 / self.layers) for layer in self._under(control, q) for kick in (True, False)]
        if dt < 0:
            updates.reverse()
        run = roll_out if self.gradient == "stored" else reversible_roll_out
        return run(updates, q, p, dt)

    def _under(self, control: Tensor | None, q: Tensor) -> list[_Layer]:
        """The layers under a fixed input."""
        u = _checks.control_or_none(control, self.control_dim, q, system=self)
        return [_Layer(layer.kick, layer.drift, u) for layer in self.hamiltonians if isinstance(layer, _Layer)]

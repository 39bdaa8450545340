"""The learned term of an energy: an MLP with a closed-form gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import ExactBuffers, exact_scalar
from symplectic_jepa.hamiltonians._base import Hamiltonian
from symplectic_jepa.hamiltonians._layers import read_linear


def _softplus(a: Tensor) -> Tensor:
    # Not F.softplus: above its threshold it is the identity, so its derivative is not the sigmoid.
    return torch.logaddexp(a, torch.zeros_like(a))


def _silu_backward(g: Tensor, a: Tensor) -> Tensor:
    s = torch.sigmoid(a)
    return g * (s * (1 + a * (1 - s)))


Activation = Literal["gelu", "silu", "tanh", "softplus"]

# φ and its pull-back g ↦ g ⊙ φ'(a). Where PyTorch's backward kernel is differentiable, we use it: one pass instead of
# ten. Smooth activations only: the force of a ReLU potential is piecewise constant and learns nothing from q.
_ACTIVATIONS: dict[Activation, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "gelu": (F.gelu, torch.ops.aten.gelu_backward),
    "silu": (F.silu, _silu_backward),
    "tanh": (torch.tanh, lambda g, a: torch.ops.aten.tanh_backward(g, torch.tanh(a))),
    "softplus": (_softplus, lambda g, a: g * torch.sigmoid(a)),
}


class ScalarMLP(nn.Module):
    r"""A scalar function ``f(x)``, or ``f(x, u)`` of a control too, with a closed-form gradient with respect to ``x``.

    With layers ``a_l = W_l h_{l−1} + b_l``, ``h_l = φ(a_l)``, ``h_0 = x`` and ``f = w · h_depth``, the gradient is
    ``∇f(x) = W_1ᵀ(φ'(a_1) ⊙ W_2ᵀ(φ'(a_2) ⊙ … w))``: one forward and one transposed pass over the same weights. It
    does not call autograd, so training needs no double backward. Weights are cast to the dtype of the state.

    The layers' ``forward`` is never called. Layers with parametrizations from ``torch.nn.utils.parametrizations`` are
    exact, because reading a weight evaluates them. Anything that works through ``forward`` raises a TypeError that
    names the layer: hooks (old-style ``weight_norm``, ``spectral_norm``, pruning), LoRA and quantised layers, and units
    of FSDP2.

    Args:
        inputs: dimension of ``x``, plus that of ``u``.
        hidden_dim: width of the hidden layers.
        depth: number of hidden layers.
        activation: ``"gelu"``, ``"silu"``, ``"tanh"`` or ``"softplus"``.

    Raises:
        ValueError: for a size below 1 or an unknown activation.
    """

    def __init__(self, inputs: int, *, hidden_dim: int, depth: int, activation: Activation) -> None:
        super().__init__()
        _checks.positive_int("hidden_dim", hidden_dim)
        _checks.positive_int("depth", depth, maximum=1000)
        self.activation = _checks.one_of("activation", activation, _ACTIVATIONS)
        widths = [inputs] + [hidden_dim] * depth
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        # No output bias: it would add a constant to the energy and never get a gradient.
        self.output = nn.Linear(hidden_dim, 1, bias=False)

    @property
    def hidden_dim(self) -> int:
        """Width of the hidden layers."""
        return self.output.in_features

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.hidden)

    def _mlp(self, x: Tensor, control: Tensor | None = None) -> Tensor:
        """``f(x)``, or ``f([x, u])``: ``(..., inputs)`` and ``(..., m)`` to ``(..., 1)``."""
        act, _ = _ACTIVATIONS[self.activation]
        h = x
        for weight, bias in self._hidden(x.dtype, control):
            h = act(_affine(h, weight, bias))
        weight, _ = read_linear("output", self.output, h.dtype)
        return F.linear(h, weight)

    def _mlp_gradient(self, x: Tensor, control: Tensor | None = None, *, factor: float | Tensor) -> Tensor:
        """``factor · ∇_x f``, in the shape of ``x``; the factor costs no extra pass over states."""
        act, pull_back = _ACTIVATIONS[self.activation]
        h = x
        passed: list[tuple[Tensor, Tensor]] = []
        for i, (weight, bias) in enumerate(self._hidden(x.dtype, control), start=1):
            a = _affine(h, weight, bias)
            passed.append((weight, a))
            if i < len(self.hidden):
                h = act(a)
        weight, _ = read_linear("output", self.output, x.dtype)
        grad = (factor * weight.squeeze(0)).expand_as(a)
        for weight, a in reversed(passed):
            grad = pull_back(grad, a) @ weight
        return grad

    def _hidden(self, dtype: torch.dtype, control: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Weight and bias of every layer; an input is part of the first bias, ``W_u u + b``."""
        for i, layer in enumerate(self.hidden):
            weight, bias = read_linear(f"hidden.{i}", layer, dtype)
            if i == 0 and control is not None:
                inputs = weight.shape[1] - control.shape[-1]
                bias = F.linear(control, weight[:, inputs:], bias)
                weight = weight[:, :inputs]
            yield weight, bias


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``W x + b``, with one ``b`` for all states or one for each."""
    if bias is None or bias.ndim == 1:
        return F.linear(x, weight, bias)
    return F.linear(x, weight) + bias


class MLPHamiltonian(Hamiltonian, ScalarMLP, ExactBuffers):
    r"""An energy with a learned term ``s · f(x)``; subclasses define ``x`` and add the other terms.

    `ScalarMLP` describes ``f``, its gradient, the arguments and the layers that are refused.

    Args:
        inputs: dimension of ``x``.
        hidden_dim: width of the hidden layers.
        depth: number of hidden layers.
        activation: ``"gelu"``, ``"silu"``, ``"tanh"`` or ``"softplus"``.
        residual_scale: scale ``s`` of ``f``, a float64 buffer, so that a warm-up (`set_residual_scale`) neither
            recompiles nor breaks a captured graph, and dtype changes do not round it.

    Raises:
        ValueError: for a size below 1, an unknown activation or a scale that is not finite.
    """

    residual_scale: Tensor
    _exact = ("residual_scale",)

    def __init__(
        self, inputs: int, *, hidden_dim: int, depth: int, activation: Activation, residual_scale: float
    ) -> None:
        super().__init__(inputs, hidden_dim=hidden_dim, depth=depth, activation=activation)
        scale = _checks.finite("residual_scale", residual_scale)
        self.register_buffer("residual_scale", exact_scalar(scale))

    def config(self) -> dict[str, Any]:
        """See `Pretrained.config`; ``residual_scale`` is given as a number."""
        scale = self.residual_scale if self.residual_scale.is_meta else self.residual_scale.item()
        return {key: scale if key == "residual_scale" else value for key, value in super().config().items()}

    def set_residual_scale(self, scale: float) -> None:
        """Set ``s`` in place, without host synchronisation.

        Raises:
            ValueError: if ``scale`` is not finite.
        """
        self.residual_scale.fill_(_checks.finite("scale", scale))

    def _residual(self, x: Tensor, control: Tensor | None = None) -> Tensor:
        """``s f(x)``, or ``s f([x, u])``: ``(..., inputs)`` and ``(..., m)`` to ``(...)``."""
        return (self.residual_scale.to(x.dtype) * self._mlp(x, control)).squeeze(-1)

    def _residual_gradient(self, x: Tensor, control: Tensor | None = None, *, factor: float = 1.0) -> Tensor:
        """``factor · s ∇_x f``, in the shape of ``x``."""
        return self._mlp_gradient(x, control, factor=factor * self.residual_scale.to(x.dtype))

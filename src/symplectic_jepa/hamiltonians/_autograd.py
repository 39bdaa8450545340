"""The gradient of an energy through autograd: in training, without gradients, and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from symplectic_jepa._derivatives import transforming


def check_energy(name: str, energy: Tensor, **states: Tensor) -> Tensor:
    """Return ``energy`` if it holds one value per state, ``(...)`` for states ``(..., d)``."""
    shape = next(iter(states.values())).shape
    if energy.shape != shape[:-1]:
        raise ValueError(
            f"{name} must map (..., d) to (...): for {', '.join(states)} of shape {tuple(shape)} expected "
            f"{tuple(shape[:-1])}, got {tuple(energy.shape)}"
        )
    return energy


def energy_gradient(name: str, energy: Callable[..., Tensor], *fixed: Tensor, **states: Tensor) -> tuple[Tensor, ...]:
    """The partial derivatives of the energies ``(...)`` of ``states``, each ``(..., d)``, one per state.

    In training they carry a graph of their own (second derivatives), if a state or anything else that the energy reads
    requires a gradient; under ``no_grad`` and ``inference_mode`` they are still computed, without a graph; in a full
    graph of ``torch.compile`` and under the transforms of ``torch.func`` they come from ``torch.func.grad``.

    Args:
        name: name of the energy in error messages.
        energy: function of the states and of what is ``fixed``; each energy may depend only on its own row.
        *fixed: further arguments of the energy, after the states.
        **states: the arguments, by name and in order.

    Raises:
        ValueError: if the energy does not return one value per state.
        RuntimeError: if it is not connected to its arguments through autograd.
    """

    def total(*inputs: Tensor) -> Tensor:
        return check_energy(name, energy(*inputs, *fixed), **dict(zip(states, inputs, strict=True))).sum()

    if torch.compiler.is_compiling() or transforming():
        # torch.autograd.grad(create_graph=True) cannot be traced with a double backward, or transformed; func.grad can.
        compiled: tuple[Tensor, ...] = torch.func.grad(total, argnums=tuple(range(len(states))))(*states.values())
        return compiled
    training = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [_leaf(x, training) for x in states.values()]
        fixed = tuple(x.clone() if x.is_inference() else x for x in fixed)
        value = total(*leaves)
        if not value.requires_grad:
            raise RuntimeError(
                f"{name}({', '.join(states)}) must depend on {' or '.join(states)} through autograd; "
                "it returned a constant"
            )
        # Otherwise a rollout of a fixed energy would keep the graph of every step.
        differentiable = training and (
            any(x.requires_grad for x in states.values()) or unknown_leaf(value, leaves) is not None
        )
        return torch.autograd.grad(value, leaves, create_graph=differentiable, materialize_grads=True)


def unknown_leaf(value: Tensor, known: Sequence[Tensor]) -> Tensor | None:
    """A leaf that ``value`` depends on through autograd and that is not in ``known``, such as a weight."""
    leaves = {id(x) for x in known}
    todo, seen = [value.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable: Tensor | None = getattr(node, "variable", None)  # set on nodes that accumulate a leaf's gradient
        if variable is not None and id(variable) not in leaves:
            return variable
        todo += [following for following, _ in node.next_functions]
    return None


def _leaf(x: Tensor, training: bool) -> Tensor:
    """A tensor to differentiate with respect to, connected to the caller's graph if that needs gradients."""
    if training and x.requires_grad:
        # An alias, because the states of a rollout depend on each other: a derivative with respect to q itself would
        # include the path from q through an earlier kick to p, making it total instead of partial.
        return x.view_as(x)
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()

"""The gradient of a rollout that stores no states: each shear is undone exactly on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from symplectic_jepa.hamiltonians import AbstractSeparable

Updates = Sequence[tuple[bool, float]]  # whether a kick, and its coefficient of the step size


def push(x: Tensor, direction: Tensor, size: float | Tensor) -> Tensor:
    """``x + size · direction`` in one pass over memory."""
    if isinstance(size, Tensor):
        return torch.addcmul(x, direction, size.to(x.dtype))
    return torch.add(x, direction, alpha=size)


def roll_out(
    hamiltonian: AbstractSeparable, updates: Updates, q: Tensor, p: Tensor, dt: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The kick–drift loop of every explicit integrator."""
    for is_kick, coefficient in updates:
        if is_kick:
            p = push(p, hamiltonian.force(q), coefficient * dt)
        else:
            q = push(q, hamiltonian.velocity(p), coefficient * dt)
    return q, p


def reversible_roll_out(
    hamiltonian: AbstractSeparable, updates: Updates, q: Tensor, p: Tensor, dt: float | Tensor
) -> tuple[Tensor, Tensor]:
    """`roll_out`, with a backward pass that needs the final state alone."""
    q, p = _Reversible.apply(hamiltonian, updates, dt, q, p, *_differentiable(hamiltonian))
    return q, p


def _differentiable(hamiltonian: AbstractSeparable) -> list[Tensor]:
    """Parameters, and tensors that modules hold as attributes, a bound control for one; those that need a gradient."""
    held = [x for m in hamiltonian.modules() for x in vars(m).values() if isinstance(x, Tensor)]
    return [x for x in (*hamiltonian.parameters(), *hamiltonian.buffers(), *held) if x.requires_grad]


class _Reversible(torch.autograd.Function):
    """A shear ``p' = p + s(q)`` is undone by ``p = p' − s(q)``, and pulls a cotangent back to ``g_q + s'(q)ᵀ g_p``."""

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        hamiltonian: AbstractSeparable,
        updates: Updates,
        dt: float | Tensor,
        q: Tensor,
        p: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        q, p = roll_out(hamiltonian, updates, q, p, dt)
        ctx.hamiltonian, ctx.updates, ctx.dt, ctx.tensors = hamiltonian, updates, dt, tensors
        # The tensors go along so that PyTorch refuses a backward pass after one was changed in place.
        ctx.save_for_backward(q, p, *tensors)
        return q, p

    @staticmethod
    def backward(ctx: Any, grad_q: Tensor, grad_p: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True; PyTorch's once_differentiable may stay silent
            raise RuntimeError("gradient='reversible' can be differentiated once; use gradient='stored'")
        q, p, *_ = ctx.saved_tensors
        state, grad = {True: p, False: q}, {True: grad_p, False: grad_q}  # by what moves it: a kick, or a drift
        others = [*([ctx.dt] if ctx.needs_input_grad[2] else []), *ctx.tensors]
        totals: list[Tensor | None] = [None] * len(others)
        for is_kick, coefficient in reversed(ctx.updates):
            with torch.enable_grad(), torch.autocast(q.device.type, enabled=False):
                x = state[not is_kick].detach().requires_grad_()
                field = ctx.hamiltonian.force(x) if is_kick else ctx.hamiltonian.velocity(x)
                pushed = coefficient * ctx.dt * field
                _refuse_unseen(pushed, [x, *others])
                grad_x, *grads = torch.autograd.grad(pushed, [x, *others], grad[is_kick], allow_unused=True)
            state[is_kick] = state[is_kick] - pushed.detach()
            if grad_x is not None:
                grad[not is_kick] = grad[not is_kick] + grad_x
            totals = [b if a is None else a if b is None else a + b for a, b in zip(totals, grads, strict=True)]
        grad_dt = totals.pop(0) if ctx.needs_input_grad[2] else None
        return None, None, grad_dt, grad[False], grad[True], *totals


def _refuse_unseen(output: Tensor, known: Sequence[Tensor]) -> None:
    """Refuse a force that depends on a tensor which would silently go without its gradient."""
    roots = {x.grad_fn for x in known if x.grad_fn is not None}
    leaves = {id(x) for x in known if x.is_leaf}
    todo, seen = [output.grad_fn], set(roots)
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in leaves:
            raise RuntimeError(
                f"gradient='reversible' cannot see a tensor of shape {tuple(variable.shape)} that the Hamiltonian "
                "reads and that requires a gradient: make it a parameter of the Hamiltonian (wrap the function in an "
                "nn.Module), or use gradient='stored'"
            )
        todo += [parent for parent, _ in node.next_functions]

"""The gradient of a rollout without stored states: the backward pass inverts each shear exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from symplectic_jepa._derivatives import transforming
from symplectic_jepa._precision import autocast_off
from symplectic_jepa.hamiltonians import AbstractSeparable
from symplectic_jepa.hamiltonians._autograd import unknown_leaf

Updates = Sequence[tuple[AbstractSeparable, bool, float]]  # (whose field, is_kick, coefficient of the step size)


def push(x: Tensor, direction: Tensor, size: float | Tensor) -> Tensor:
    """``x + size · direction`` in one pass over memory."""
    if isinstance(size, Tensor):
        return torch.addcmul(x, direction, size.to(x.dtype))
    return torch.add(x, direction, alpha=size)


def roll_out(updates: Updates, q: Tensor, p: Tensor, dt: float | Tensor) -> tuple[Tensor, Tensor]:
    """The kick–drift loop of every explicit integrator."""
    for hamiltonian, is_kick, coefficient in updates:
        if is_kick:
            p = push(p, hamiltonian.force(q), coefficient * dt)
        else:
            q = push(q, hamiltonian.velocity(p), coefficient * dt)
    return q, p


class _Slot(NamedTuple):
    """Where a module holds a tensor: ``values[name]``."""

    values: dict[str, Any]
    name: str
    tensor: Tensor


def reversible_roll_out(updates: Updates, q: Tensor, p: Tensor, dt: float | Tensor) -> tuple[Tensor, Tensor]:
    """`roll_out`, with a backward pass that needs only the final state."""
    if transforming():
        raise RuntimeError(
            "gradient='reversible' has a backward pass of its own, which torch.func cannot transform; use "
            "gradient='stored'"
        )
    slots = [
        _Slot(values, name, x)
        for hamiltonian in dict.fromkeys(hamiltonian for hamiltonian, _, _ in updates)
        for module in hamiltonian.modules()  # parameters, buffers and plain attributes, such as a control
        for values in (module._parameters, module._buffers, vars(module))
        for name, x in values.items()
        if isinstance(x, Tensor)
    ]
    held = [slot.tensor for slot in slots] + ([dt] if isinstance(dt, Tensor) else [])
    unique = {id(x): x for x in held}.values()  # a shared tensor gets its gradient once
    q, p = _Reversible.apply(updates, dt, slots, q, p, *unique)
    return q, p


@contextmanager
def _filled(slots: Sequence[_Slot], tensors: dict[int, Tensor]) -> Iterator[None]:
    """Fill every slot with the stand-in for its tensor, even if another tensor has been put there since."""
    before = [slot.values.get(slot.name) for slot in slots]
    try:
        for slot in slots:
            slot.values[slot.name] = tensors[id(slot.tensor)]
        yield
    finally:
        for slot, x in zip(slots, before, strict=True):
            slot.values[slot.name] = x


class _Reversible(torch.autograd.Function):
    """A shear ``p' = p + s(q)`` is inverted by ``p = p' − s(q)``, and pulls a cotangent back to ``g_q + s'(q)ᵀ g_p``.

    Each shear is recomputed on leaves that replace the Hamiltonians' tensors, so that its graph ends there, no matter
    how those tensors were computed.
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        updates: Updates,
        dt: float | Tensor,
        slots: Sequence[_Slot],
        q: Tensor,
        p: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        q, p = roll_out(updates, q, p, dt)
        ctx.updates, ctx.dt, ctx.slots, ctx.tensors = updates, dt, slots, tensors
        # Saving the tensors makes PyTorch refuse a backward pass after an in-place change.
        ctx.save_for_backward(q, p, *tensors)
        return q, p

    @staticmethod
    def backward(ctx: Any, grad_q: Tensor, grad_p: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True; once_differentiable may not raise
            raise RuntimeError("gradient='reversible' can be differentiated once; use gradient='stored'")
        q, p, *_ = ctx.saved_tensors
        state, grad = {True: p, False: q}, {True: grad_p, False: grad_q}  # keyed by is_kick: a kick moves p, a drift q
        leaves = {id(x): x.detach().requires_grad_(x.requires_grad) for x in ctx.tensors}
        dt = leaves.get(id(ctx.dt), ctx.dt)
        learned = [x for x in leaves.values() if x.requires_grad]
        totals: dict[int, Tensor] = {}
        for hamiltonian, is_kick, coefficient in reversed(ctx.updates):
            with torch.enable_grad(), autocast_off(q.device), _filled(ctx.slots, leaves):
                x = state[not is_kick].detach().requires_grad_()
                field = hamiltonian.force(x) if is_kick else hamiltonian.velocity(x)
                pushed = coefficient * dt * field
                state[is_kick] = state[is_kick] - pushed.detach()
                if not pushed.requires_grad:  # a constant field
                    continue
                inputs = [x, *learned]
                _refuse_unseen(pushed, inputs)
                grad_x, *grads = torch.autograd.grad(pushed, inputs, grad[is_kick], allow_unused=True)
            if grad_x is not None:
                grad[not is_kick] = grad[not is_kick] + grad_x
            for leaf, g in zip(learned, grads, strict=True):
                if g is not None:
                    totals[id(leaf)] = totals[id(leaf)] + g if id(leaf) in totals else g
        return None, None, None, grad[False], grad[True], *(totals.get(id(leaf)) for leaf in leaves.values())


def _refuse_unseen(output: Tensor, known: Sequence[Tensor]) -> None:
    """Raise if a force depends on a tensor that would silently get no gradient."""
    variable = unknown_leaf(output, known)
    if variable is not None:
        raise RuntimeError(
            f"gradient='reversible' cannot see a tensor of shape {tuple(variable.shape)} that the Hamiltonian "
            "uses and that requires a gradient: make it a parameter of the Hamiltonian (wrap the function in an "
            "nn.Module), or use gradient='stored'"
        )

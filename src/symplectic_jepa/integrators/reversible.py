"""The gradient of a rollout without stored states: the backward pass inverts each shear exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from symplectic_jepa._derivatives import transforming
from symplectic_jepa._precision import autocast_off
from symplectic_jepa._sharding import sharded
from symplectic_jepa.hamiltonians import AbstractSeparable
from symplectic_jepa.hamiltonians._autograd import unknown_leaf

Updates = Sequence[tuple[AbstractSeparable, bool, float]]  # (whose field, is_kick, coefficient of the step size)


def push(x: Tensor, direction: Tensor, size: float | Tensor, rate: Tensor | None = None) -> Tensor:
    """The exact flow of ``ẋ = direction − rate · x`` over the time ``size``; without a rate in one pass over memory."""
    if rate is not None:
        decay = (rate * size).to(x.dtype)
        x, direction = x * torch.exp(-decay), direction * _mean_decay(decay)
    if isinstance(size, Tensor):
        return torch.addcmul(x, direction, size.to(x.dtype))
    return torch.add(x, direction, alpha=size)


def _mean_decay(x: Tensor) -> Tensor:
    """``(1 − e⁻ˣ)/x``, the mean of ``e⁻ˢ`` for ``0 ≤ s ≤ x``; exactly 1 at 0, where the quotient would be NaN."""
    limit = 0.1  # below it the derivative of the quotient loses digits; above it the series would
    t = x.clamp(-limit, limit)
    one = series = torch.ones_like(t)
    for n in range(11, 1, -1):  # 1 − t/2 (1 − t/3 (1 − …)), to rounding in float64
        series = torch.addcmul(one, t, series, value=-1 / n)
    small = x.abs() < limit
    x = x.where(~small, limit)
    return series.where(small, -torch.expm1(-x) / x)


def roll_out(updates: Updates, q: Tensor, p: Tensor, dt: float | Tensor) -> tuple[Tensor, Tensor]:
    """The kick–drift loop of every explicit integrator."""
    rates = {system: system.decay_rate(p) for system in _systems(updates)}
    for hamiltonian, is_kick, coefficient in updates:
        if is_kick:
            p = push(p, hamiltonian.force(q), coefficient * dt, rates[hamiltonian])
        else:
            q = push(q, hamiltonian.velocity(p), coefficient * dt)
    return q, p


def _systems(updates: Updates) -> list[AbstractSeparable]:
    return list(dict.fromkeys(system for system, _, _ in updates))


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
        for hamiltonian in _systems(updates)
        for module in hamiltonian.modules()  # parameters, buffers and plain attributes, such as a control
        for values in (module._parameters, module._buffers, vars(module))
        for name, x in values.items()
        if isinstance(x, Tensor)
    ]
    if any(sharded(slot.tensor) for slot in slots):
        raise TypeError(
            "gradient='reversible' needs the Hamiltonian's weights during the whole rollout, got a sharded one: call "
            "fully_shard on the predictor, not on the Hamiltonian, or use gradient='stored'"
        )
    held = [slot.tensor for slot in slots] + ([dt] if isinstance(dt, Tensor) else [])
    unique = {id(x): x for x in held}.values()  # a shared tensor gets its gradient once
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in (q, p, *unique))):
        return roll_out(updates, q, p, dt)  # nothing will be recomputed
    apply: Any = _Reversible.apply
    if torch.compiler.is_compiling():  # a graph can neither replace tensors nor watch operations
        apply = torch.compiler.disable(apply)  # type: ignore[no-untyped-call]
    q, p = apply(updates, dt, slots, q, p, *unique)
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

    A damped kick ``p' = e p + s(q)`` is inverted by the same flow over the negative time. Each update is recomputed on
    leaves that replace the Hamiltonians' tensors, so that its graph ends there, no matter how those were computed.
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
        systems = _systems(updates)
        buffers, versions = _buffers(systems), [x._version for x in tensors]
        # Only the first kick and drift of a system are watched; all others run the same code.
        watched = 2 * len(systems)
        with _Refuse():  # type: ignore[no-untyped-call]
            q, p = roll_out(updates[:watched], q, p, dt)
        q, p = roll_out(updates[watched:], q, p, dt)
        after = _buffers(systems)
        if any(after.get(name) is not x for name, x in buffers.items()) or versions != [x._version for x in tensors]:
            _refuse(_STATISTICS)
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
                x, after = state[not is_kick].detach().requires_grad_(), state[is_kick]
                field = hamiltonian.force(x) if is_kick else hamiltonian.velocity(x)
                rate = hamiltonian.decay_rate(after) if is_kick else None
                size = coefficient * dt
                with torch.no_grad():
                    before = state[is_kick] = push(after, field, -size, rate)
                image = push(before.requires_grad_(), field, size, rate)
                inputs = [x, before, *learned]
                _refuse_unseen(image, inputs)
                grad_x, grad[is_kick], *grads = torch.autograd.grad(image, inputs, grad[is_kick], allow_unused=True)
            if grad_x is not None:
                grad[not is_kick] = grad[not is_kick] + grad_x
            for leaf, g in zip(learned, grads, strict=True):
                if g is not None:
                    totals[id(leaf)] = totals[id(leaf)] + g if id(leaf) in totals else g
        return None, None, None, grad[False], grad[True], *(totals.get(id(leaf)) for leaf in leaves.values())


def _buffers(systems: Sequence[AbstractSeparable]) -> dict[tuple[int, str], Tensor]:
    return {(i, name): x for i, system in enumerate(systems) for name, x in system.named_buffers()}


class _Refuse(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raise on operations that draw random numbers or update running statistics, without waiting for the device.

    Random numbers may come from any generator, and a batch norm does not change the version of its statistics.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        names = [argument.name for argument in func._schema.arguments]
        if torch.Tag.nondeterministic_seeded in func.tags or "running_mean" in names:
            given = {a.name: a.default_value for a in func._schema.arguments} | dict(zip(names, args, strict=False))
            given |= kwargs
            training = given.get("training", given.get("train", given.get("use_input_stats", False)))
            if given.get("running_mean") is not None and training:
                _refuse(_STATISTICS)
            # Attention and recurrent layers have the tag even if their dropout is off.
            off = any(given.get(name, 1) == 0 for name in ("dropout_p", "dropout", "train", "training"))
            if torch.Tag.nondeterministic_seeded in func.tags and not off:
                _refuse(f"draws random numbers ({func}), such as those of dropout")
        return func(*args, **kwargs)


_STATISTICS = "changes its tensors, such as the running statistics of BatchNorm"


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(
        f"gradient='reversible' evaluates the Hamiltonian again in the backward pass, but a forward pass {what}: the "
        "second evaluation would differ; call eval() on that part of the Hamiltonian, or use gradient='stored'"
    )


def _refuse_unseen(output: Tensor, known: Sequence[Tensor]) -> None:
    """Raise if a force depends on a tensor that would silently get no gradient."""
    variable = unknown_leaf(output, known)
    if variable is not None:
        raise RuntimeError(
            f"gradient='reversible' cannot see a tensor of shape {tuple(variable.shape)} that the Hamiltonian "
            "uses and that requires a gradient: make it a parameter of the Hamiltonian (wrap the function in an "
            "nn.Module), or use gradient='stored'"
        )

"""Does the learned part of the energy act on the states, and does it move during training?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import symplectic_jepa as sj
from examples.model.build import JEPA

STATES = 1000  # the first of the evaluated images


def predictor_weights(model: JEPA) -> list[Tensor]:
    """A copy of the predictor's parameters; empty if the method has no predictor."""
    predictor = getattr(model.objective, "predictor", None)
    return [] if predictor is None else [w.detach().clone() for w in predictor.parameters()]


@torch.no_grad()
def learned_force(model: JEPA, initial: Sequence[Tensor], z: Tensor) -> dict[str, float]:
    """Numbers about the predictor on states ``z``, ``(N, 2d)``; {} without a predictor.

    All norms are root mean squares over the states.

    Args:
        model: the model, after any number of steps.
        initial: `predictor_weights` before the first step.
        z: states of unaugmented images.

    Returns:
        ``displacement``, ``‖q̂ − q‖ / ‖q‖`` of the map; ``movement``, ``‖θ − θ₀‖ / ‖θ₀‖`` of the predictor's parameters
        if it has any; and for ``H = ½‖p‖² + ½ c ‖q‖² + s f(q)`` both parts of the force, ``base_force``, ``‖c q‖``, and
        ``learned_force``, ``‖s ∇f(q)‖``.
    """
    predictor = getattr(model.objective, "predictor", None)
    if predictor is None:
        return {}
    z = z[:STATES]
    q, _ = sj.split_state(z)
    numbers = {"displacement": _norm(sj.split_state(predictor(z))[0] - q) / _norm(q)}
    if initial:
        moved = sum((w - w0).double().square().sum() for w, w0 in zip(predictor.parameters(), initial, strict=True))
        size = sum(w.double().square().sum() for w in initial)
        numbers["movement"] = torch.as_tensor(moved / size).sqrt().item()
    hamiltonian = getattr(predictor, "hamiltonian", None)
    if isinstance(hamiltonian, sj.SeparableHamiltonian):
        q = q.double()  # the learned force may be a millionth of the base force, from which it is subtracted
        base = hamiltonian.base_coeff * q
        numbers |= {"base_force": _norm(base), "learned_force": _norm(hamiltonian.force(q) + base)}
    return numbers


def _norm(x: Tensor) -> float:
    return x.square().sum(-1).mean().sqrt().item()

"""Does a map preserve the structure of phase space? Symplectic form, reversibility and energy drift of any callable."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa._precision import at_least_float32, autocast_off
from symplectic_jepa.evaluation._inputs import row_norms
from symplectic_jepa.state import split_state

Map = Callable[[Tensor], Tensor]


def symplecticity_defect(step: Map, z: Array) -> Tensor:
    """``‖JᵀΩJ - Ω‖`` (Frobenius) of the map's Jacobian ``J`` at each state, ``Ω = [[0, I], [-I, 0]]``.

    Exactly 0 for a symplectic map [paper, theorem A.2]; in practice the rounding error of the state's dtype, so use
    float64. For the scaling ``z -> a z`` it is ``|a² - 1| √(2d)``; for a step ``h`` with the same damping rate ``Γ`` in
    every coordinate it is ``(1 - exp(-Γh)) √(2d)``.

    It takes one backward pass per state: the state is repeated 2d times, and each copy is pulled back along one output
    coordinate. The map must therefore treat the rows of a batch independently (put BatchNorm in eval mode). The map may
    call ``torch.autograd.grad`` itself, with ``create_graph=True`` (otherwise the Jacobian would miss a term). It also
    works under ``no_grad`` and ``inference_mode``.

    Args:
        step: the map, ``(n, 2d) -> (n, 2d)`` on states laid out ``[q | p]``.
        z: states ``(..., 2d)``, a tensor or a numpy array.

    Returns:
        The defect of each state, ``(...)``.

    Raises:
        TypeError: if z is not floating, or a map is neither a module nor a function.
        ValueError: if the last dimension is odd, z is not finite, or the map changes the shape or does not depend
            differentiably on its input.
    """
    _checks.function("step", step)
    z = _states(z)
    with torch.inference_mode(False), autocast_off(z.device):
        identity = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        omega = _pulled_back_form(identity)
        jacobians = (_jacobian(step, state, identity) for state in z.reshape(-1, z.shape[-1]))
        defects = [torch.linalg.matrix_norm(_pulled_back_form(jacobian) - omega) for jacobian in jacobians]
        return torch.stack(defects).reshape(z.shape[:-1]) if defects else z.new_zeros(z.shape[:-1])


def reversibility_error(forward: Map, backward: Map, z: Array) -> Tensor:
    """Relative round-trip error ``‖backward(forward(z)) - z‖ / ‖z‖`` of each state (a ratio of RMS values).

    Rounding error for a reversible predictor run with ``h`` and then ``-h`` [paper, corollary A.5]. At ``z = 0`` the
    error is 0 if the round trip ends there too.

    Args:
        forward: the map, ``(..., 2d) -> (..., 2d)``.
        backward: the map that should undo it.
        z: states ``(..., 2d)``, a tensor or a numpy array.

    Returns:
        The error of each state, ``(...)``; ``.max()`` gives the worst.

    Raises:
        TypeError: if z is not floating, or a map is neither a module nor a function.
        ValueError: if the last dimension is odd, z is not finite, or a map changes the shape.
    """
    _checks.function("forward", forward)
    _checks.function("backward", backward)
    z = _states(z)
    back = _evaluate(backward, _evaluate(forward, z))
    size = row_norms(z)
    error = row_norms(at_least_float32(back) - z)
    return (error / size.where(size > 0, torch.finfo(size.dtype).tiny)).squeeze(-1).to(z.dtype)


def energy_drift(hamiltonian: Callable[[Tensor, Tensor], Tensor], step: Map, z: Array, *, steps: int) -> Tensor:
    """Energy error along a rollout, ``H(z_n) - H(z_0)`` with ``z_{n+1} = step(z_n)``, ``n = 0 … steps``.

    It stays bounded over very long times for a symplectic step of the same Hamiltonian [paper, theorem A.8], and grows
    for explicit Euler.

    Args:
        hamiltonian: energies ``(q, p) -> (...)`` of positions and momenta ``(..., d)``.
        step: the map, ``(..., 2d) -> (..., 2d)``.
        z: initial states ``(..., 2d)``, a tensor or a numpy array.
        steps: number of steps.

    Returns:
        ``(steps + 1, ...)`` in the units of the Hamiltonian; the first entry is 0.

    Raises:
        TypeError: if z is not floating, or a map is neither a module nor a function.
        ValueError: if the last dimension is odd, z is not finite, the map changes the shape, the Hamiltonian does not
            return one energy per state, or ``steps < 1``.
    """
    _checks.function("hamiltonian", hamiltonian)
    _checks.function("step", step)
    z = _states(z)
    _checks.positive_int("steps", steps)
    state = z
    energies = [_energy(hamiltonian, state)]
    for _ in range(steps):
        state = _evaluate(step, state)
        energies.append(_energy(hamiltonian, state))
    trajectory = torch.stack(energies)
    return trajectory - trajectory[0]


def _states(z: Array) -> Tensor:
    """Return ``z``, detached, as a tensor if it holds finite floating states ``[q | p]``."""
    z = _checks.floating("z", _checks.array("z", z)).detach()
    split_state(z)
    if not z.isfinite().all():
        raise ValueError("z must be finite, got NaN or infinity")
    return z


def _jacobian(step: Map, state: Tensor, identity: Tensor) -> Tensor:
    """``J[i, k] = ∂step(z)_i / ∂z_k`` of one state ``(2d,)``; copy ``i`` has the cotangent ``e_i``."""
    with torch.enable_grad():
        copies = state.detach().expand_as(identity).clone().requires_grad_()
        image = _same_shape(step(copies), copies)
        if not image.requires_grad:
            raise ValueError("step must depend differentiably on its input, got an output without a gradient")
        (jacobian,) = torch.autograd.grad(image, copies, identity.to(image.dtype), allow_unused=True)
    if jacobian is None:
        raise ValueError("step must depend differentiably on its input, got an output that ignores it")
    return jacobian


def _pulled_back_form(jacobian: Tensor) -> Tensor:
    """``JᵀΩJ = AᵀB - BᵀA`` for ``J = [A; B]``, A the rows of q and B those of p; exactly antisymmetric."""
    q_rows, p_rows = split_state(jacobian.mT)
    product = q_rows @ p_rows.mT
    return product - product.mT


def _evaluate(step: Map, z: Tensor) -> Tensor:
    """``step(z)`` without a graph, in a context where the step may differentiate its own energy."""
    with torch.inference_mode(False), torch.enable_grad():
        return _same_shape(step(z.detach().clone().requires_grad_()), z).detach()


def _energy(hamiltonian: Callable[[Tensor, Tensor], Tensor], z: Tensor) -> Tensor:
    """One energy per state."""
    with torch.no_grad():
        energy = hamiltonian(*split_state(z))
    if energy.shape != z.shape[:-1]:
        raise ValueError(
            f"hamiltonian must return one energy per state, shape {tuple(z.shape[:-1])}, got {tuple(energy.shape)}"
        )
    return energy


def _same_shape(image: Tensor, z: Tensor) -> Tensor:
    """Return the image of ``z`` under a map if it is a state again."""
    if image.shape != z.shape:
        raise ValueError(f"the map must keep the shape {tuple(z.shape)} of its states, got {tuple(image.shape)}")
    return image

"""The oracle covariance as position marginal of a Gibbs distribution on phase space, and the flow that preserves it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from symplectic_jepa._checks import Array
from symplectic_jepa.theory._inputs import scalar, spd, symplectic_defect
from symplectic_jepa.theory.geometry import minimax_covariance, minimax_value


class QuadraticLift(NamedTuple):
    """Independent centred Gaussians: ``q`` with ``position_cov``, ``p`` with ``momentum_cov``, both ``(..., d, d)``."""

    position_cov: Tensor
    momentum_cov: Tensor


def quadratic_lift(H: Array, budget: float | Array) -> QuadraticLift:
    r"""Gibbs distribution ``∝ exp(−β(½qᵀHq + ½‖p‖²))`` at ``β = d/c`` [paper, proposition 3.6].

    ``q ~ N(0, (c/d) H⁻¹)`` is the `maximum_entropy_distribution`; ``p ~ N(0, (c/d) I)`` is independent of it. Position
    and momentum carry the energy ``c/2`` each.

    Args:
        H: geometry ``(..., d, d)``.
        budget: ``c > 0``.

    Returns:
        The covariances of ``q`` and of ``p``.

    Raises:
        ValueError: if ``H`` is not symmetric positive definite, or the budget not positive.
    """
    position = minimax_covariance(H, budget)
    eye = torch.eye(position.shape[-1], dtype=position.dtype, device=position.device)
    momentum = minimax_value(H, budget)[..., None, None] * eye
    return QuadraticLift(position, momentum.expand_as(position))


def quadratic_flow(H: Array, time: float | Array) -> Tensor:
    r"""``exp(t [[0, I], [−H, 0]])``: the exact flow of ``q̇ = p``, ``ṗ = −Hq`` [paper, equation 22].

    It is symplectic and leaves `quadratic_lift` invariant. `QuadraticHamiltonian` with an integrator approximates it.

    Args:
        H: geometry ``(..., d, d)``.
        time: ``t``, a number or ``(...)``; may be negative.

    Returns:
        ``(..., 2d, 2d)``, which acts on columns ``[q; p]``.

    Raises:
        ValueError: if ``H`` is not symmetric positive definite, the time not finite, or ``t √λ_max(H)`` so large that
            no digit of the flow is left in float64.
    """
    H = spd("H", H)
    zero = torch.zeros_like(H)
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device).expand_as(H)
    generator = torch.cat((torch.cat((zero, eye), -1), torch.cat((-H, zero), -1)), -2)
    flow: Tensor = torch.linalg.matrix_exp(scalar("time", time, like=H)[..., None, None] * generator)
    defect, unit = symplectic_defect(flow.nan_to_num())
    if not (flow.isfinite().all() and (defect <= 1e-6 * unit).all()):
        raise ValueError(f"exp(t [[0, I], [-H, 0]]) must be within reach of float64, got t = {time!r}: too many turns")
    return flow

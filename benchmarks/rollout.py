"""A long rollout: the cost of its gradient, stored and reversible."""

from __future__ import annotations

import torch
from torch import Tensor

import symplectic_jepa as sj
from benchmarks.measure import Function, peak_bytes
from benchmarks.workloads import Target, Work, gradient_of, installed


def long_rollout(device: torch.device, *, smoke: bool = False) -> Work:
    """``S`` leapfrog steps and their gradient."""
    batch, dim, hidden, steps = (8, 8, 8, 8) if smoke else (512, 256, 256, 64)
    torch.manual_seed(0)
    hamiltonian = sj.SeparableHamiltonian(dim, hidden_dim=hidden).to(device)
    q, p = torch.randn(2, batch, dim, device=device).requires_grad_().unbind()
    q, p = q.detach().requires_grad_(), p.detach().requires_grad_()
    inputs = [q, p, *hamiltonian.parameters()]

    def loss(gradient: str, steps: int) -> Function:
        return gradient_of(
            lambda: _square(sj.leapfrog(hamiltonian, q, p, dt=0.05, steps=steps, gradient=gradient)), *inputs
        )

    variants = {"stored": loss("stored", steps), "reversible": loss("reversible", steps)}
    notes: dict[str, float | str] = {
        f"{gradient}, S = {s}, MiB": peak_bytes(loss(gradient, s), device) / 2**20
        for gradient in variants
        for s in (steps // 16 or 1, steps // 4, steps)
    }
    notes |= _accuracy(hamiltonian, q, p, steps)
    if installed("torchdiffeq"):
        from torchdiffeq import odeint, odeint_adjoint  # noqa: PLC0415

        times = torch.linspace(0, 0.05 * steps, steps + 1, device=device)
        field = _Field(hamiltonian)

        def peer(solve: object) -> Function:
            # Midpoint: order 2 like leapfrog, but two forces per step instead of one, and not symplectic.
            return gradient_of(
                lambda: _square(solve(field, torch.cat((q, p), -1), times, method="midpoint")[-1].chunk(2, -1)),
                *inputs,
            )

        variants["torchdiffeq, midpoint"] = peer(odeint)
        variants["torchdiffeq, adjoint midpoint"] = peer(odeint_adjoint)
    else:
        notes["torchdiffeq"] = "not installed"
    return Work(
        f"rollout and gradient, B = {batch}, d = {dim}, hidden {hidden}, S = {steps}",
        variants,
        [Target("reversible", "stored", 0.2, at_least=False, of="bytes")],
        notes,
    )


class _Field(torch.nn.Module):
    def __init__(self, hamiltonian: sj.SeparableHamiltonian) -> None:
        super().__init__()
        self.hamiltonian = hamiltonian

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        q, p = z.chunk(2, -1)
        return torch.cat((p, self.hamiltonian.force(q)), -1)


def _square(end: tuple[Tensor, ...]) -> Tensor:
    return torch.stack(end).square().sum()


def _accuracy(hamiltonian: sj.SeparableHamiltonian, q: Tensor, p: Tensor, steps: int) -> dict[str, float | str]:
    """How accurately states are recomputed and gradients agree, in float64."""
    q, p = (x.detach().double().requires_grad_() for x in (q, p))
    inputs = [q, p, *hamiltonian.parameters()]
    stored, reversible = (
        gradient_of(lambda g=g: _square(sj.leapfrog(hamiltonian, q, p, dt=0.05, steps=steps, gradient=g)), *inputs)()
        for g in ("stored", "reversible")
    )
    # Gradients of the states only: those of the parameters are cast to float32.
    pairs = list(zip(stored, reversible, strict=True))[:2]
    phi = sj.HamiltonianPredictor(hamiltonian, steps=steps)
    z = torch.cat((q, p), -1).detach()
    errors = {
        str(dtype).removeprefix("torch."): sj.evaluation.reversibility_error(
            phi, lambda z: phi(z, direction=-1), z.to(dtype)
        ).max().item()
        for dtype in (torch.float64, torch.float32)
    }  # fmt: skip
    return {
        "relative difference of the gradients, float64": max(((a - b).norm() / a.norm()).item() for a, b in pairs),
        **{f"relative reconstruction error, {name}": error for name, error in errors.items()},
    }

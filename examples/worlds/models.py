"""The encoder, the predictors and the regularizers that are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import symplectic_jepa as sj
from examples.worlds.transformer import CausalTransformer, TeacherForced
from symplectic_jepa.integrators import implicit_midpoint
from symplectic_jepa.objectives import Objective

PREDICTORS = (
    "separable",  # T(p) + V(q) − qᵀBu
    "separable damped",
    "potential",  # T(p) + V(q, u)
    "potential damped",
    "general",  # H(q, p) − qᵀBu, by the implicit midpoint rule
    "symplectic net",
    "residual MLP",
    "transformer",
)
REGULARIZERS = ("floors", "SIGReg", "VICReg")
HORIZON = 8  # frames predicted in training
PAST = 2  # frames that an encoder's momentum reads


class WorldModel(nn.Module):
    """An encoder of frames, a predictor of states, and the loss that trains both.

    Args:
        predictor: one of `PREDICTORS`.
        regularizer: one of `REGULARIZERS`.
        dim: dimension ``d`` of q.
        width: width of the predictor's hidden layers.
    """

    def __init__(self, predictor: str, regularizer: str, *, dim: int = 16, width: int = 128) -> None:
        super().__init__()
        self.encoder = sj.PhaseSpaceCausalEncoder(backbone(), features=128, dim=dim, frames=PAST)
        self.objective = _objective(_predictor(predictor, dim, width), _penalties(regularizer, dim))

    def encode(self, frames: Tensor) -> Tensor:
        """Frames ``(T, B, size, size)`` in uint8 to states ``(T − 1, B, 2d)``, the first that of the second frame."""
        z: Tensor = self.encoder(frames[:, :, None].float() / 255)
        return z

    def imagine(self, states: Tensor, actions: Tensor) -> Tensor:
        """Continue states ``(C, B, 2d)`` under actions ``(C − 1 + T, B, m)`` of past and future: ``(T, B, 2d)``."""
        predictor = self.objective.prediction.predictor
        if isinstance(predictor, CausalTransformer):
            return predictor.rollout(states, actions)
        assert isinstance(predictor, sj.predictors.Predictor)
        return predictor.rollout(states[-1], actions[len(states) - 1 :])


def backbone() -> nn.Module:
    """A small convolutional network, ``(N, 1, 32, 32)`` to ``(N, 128)``."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 8, stride=4, padding=2),
        nn.GELU(),
        nn.Conv2d(32, 32, 4, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 128),
        nn.GELU(),
    )


def _predictor(name: str, dim: int, width: int) -> sj.predictors.Predictor | CausalTransformer:
    control_dim = 1
    if name == "transformer":
        return CausalTransformer(dim, control_dim=control_dim)
    if name == "residual MLP":
        return sj.ResidualMLPPredictor(dim, hidden_dim=width, dt=0.5, steps=1, control_dim=control_dim)
    if name == "symplectic net":
        return sj.SymplecticNetPredictor(dim, hidden_dim=width, dt=0.5, control_dim=control_dim)
    matrix = nn.Parameter(0.1 * torch.randn(dim, control_dim))
    if name == "general":
        energy = sj.GeneralHamiltonian(dim, hidden_dim=width, residual_scale=1.0)
        system = sj.ControlledHamiltonian(energy, matrix)
        return sj.HamiltonianPredictor(system, dt=0.5, steps=1, integrator=implicit_midpoint)
    kind, _, damped = name.partition(" ")
    hamiltonian: sj.hamiltonians.AbstractSeparable = sj.SeparableHamiltonian(
        dim, hidden_dim=width, residual_scale=1.0, control_dim=control_dim if kind == "potential" else 0
    )
    if kind == "separable":
        controlled = sj.ControlledHamiltonian(hamiltonian, matrix)
        assert isinstance(controlled, sj.hamiltonians.AbstractSeparable)
        hamiltonian = controlled
    if damped:
        hamiltonian = sj.DampedHamiltonian(hamiltonian, torch.full((dim,), 0.1), learn=True)
    return sj.HamiltonianPredictor(hamiltonian, dt=0.25, steps=2)


def _penalties(name: str, dim: int) -> dict[str, sj.Penalty]:
    if name == "floors":
        floors = sj.Floors(energy=1.0, std=0.5, log_det=-1.5, participation=0.2, proj_dim=min(dim, 8))
        return sj.hamjepa_penalties(q=floors, p=floors)
    if name == "SIGReg":
        return sj.sigreg_penalties(weight=0.1, views="stacked")
    return {"vicreg": sj.Penalty(sj.VICReg(), weight=2 / 25)}


def _objective(predictor: sj.predictors.Predictor | CausalTransformer, penalties: dict[str, sj.Penalty]) -> Objective:
    if isinstance(predictor, CausalTransformer):
        return Objective(TeacherForced(predictor), penalties)
    return sj.TrajectoryObjective(predictor, horizon=HORIZON, match="qp", detach_target=False, penalties=penalties)

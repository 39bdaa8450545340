"""One of every predictor that takes a control, in float64, with states and inputs."""

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.hamiltonians import AbstractSeparable
from tests.helpers.systems import Coupled

D, M = 3, 2
F64 = {"dtype": torch.float64}
MATRIX = torch.tensor([[0.5, -1.0], [0.3, 0.8], [-0.7, 0.2]], **F64)
midpoint = sj.integrators.ImplicitMidpoint(iterations=20)


class Wells(nn.Module):
    """A user's ``V(q, u)``, with its force by hand."""

    def __init__(self):
        super().__init__()
        self.depth = nn.Parameter(torch.tensor(0.7))

    def forward(self, q, u):
        joined = torch.cat((q, u), -1)
        return self.depth * (joined.sum(-1).cos() + (q.square() * u[..., :1]).sum(-1))

    def force(self, q, u):
        slope = -torch.cat((q, u), -1).sum(-1, keepdim=True).sin() + 2 * q * u[..., :1]
        return -self.depth * slope


class Turning(nn.Module):
    """A ``B(q)`` with ``B(q)u`` far from a gradient."""

    def forward(self, q):
        x, y, z = q.unbind(-1)
        return torch.stack((torch.stack((y, -x, z.sin()), -1), torch.stack((z, x * y, -y), -1)), -1)


def by_action(**options):
    return sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=5.0, control_dim=M, **options)


SEPARABLE = {
    "V(q, u)": by_action,
    "V(q, u), learned mass": lambda: by_action(learn_mass=True),
    "user V(q, u)": lambda: sj.PotentialHamiltonian(Wells(), control_dim=M),
    "V(q) and B": lambda: sj.ControlledHamiltonian(
        sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=1.0), MATRIX
    ),
    "V(q, u) and B": lambda: sj.ControlledHamiltonian(by_action(), nn.Parameter(MATRIX.clone())),
}
GENERAL = {
    "H(q, p) and B": lambda: sj.ControlledHamiltonian(
        sj.GeneralHamiltonian(D, hidden_dim=8, residual_scale=1.0), MATRIX
    ),
    "user H(q, p) and B": lambda: sj.ControlledHamiltonian(Coupled(), nn.Parameter(MATRIX.clone())),
}
TURNING = {
    "V(q) and B(q)": lambda: sj.ControlledHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=8), Turning()),
    "H(q, p) and B(q)": lambda: sj.ControlledHamiltonian(Coupled(), Turning()),
}
EXPLICIT = list(sj.integrators.SPLITTINGS.values())


def build(make, *, integrator=None, **options):
    torch.manual_seed(0)
    system = make().double()
    default = sj.leapfrog if isinstance(system, AbstractSeparable) else midpoint
    return sj.HamiltonianPredictor(system, integrator=integrator or default, **({"dt": 0.1, "steps": 3} | options))


def residual_mlp(**options):
    torch.manual_seed(0)
    return sj.ResidualMLPPredictor(D, hidden_dim=8, control_dim=M, dt=0.1, **options).double()


PREDICTORS = {name: lambda make=make: build(make) for name, make in {**SEPARABLE, **GENERAL, **TURNING}.items()}
PREDICTORS["residual MLP"] = residual_mlp
every = pytest.mark.parametrize("make", PREDICTORS.values(), ids=PREDICTORS)


def inputs(*shape, frames=None):
    torch.manual_seed(1)
    u = shape if frames is None else (frames, *shape)
    return torch.randn(*shape, 2 * D, **F64), torch.randn(*u, M, **F64)

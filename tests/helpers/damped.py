"""Systems with a learned mass that are damped, or damped and controlled."""

import torch
from torch import nn

import symplectic_jepa as sj

D, M = 3, 2  # coordinates, inputs
GAMMA = torch.tensor([0.0, 0.4, 1.3], dtype=torch.float64)


def learned(*, learn_mass=True):
    h = sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=2.0, learn_mass=learn_mass).double()
    if learn_mass:
        h.raw_mass.data = torch.tensor([-0.5, 0.3, 2.0], dtype=torch.float64)
    return h


def controlled(hamiltonian):
    return sj.ControlledHamiltonian(hamiltonian, nn.Parameter(torch.randn(D, M, dtype=torch.float64)))


NESTINGS = {
    "damped controlled": lambda h, gamma, **kw: sj.DampedHamiltonian(controlled(h), gamma, **kw),
    "controlled damped": lambda h, gamma, **kw: controlled(sj.DampedHamiltonian(h, gamma, **kw)),
}


def jacobian(splitting, hamiltonian, z, **kwargs):
    def step(z):
        return torch.cat(splitting(hamiltonian, *z.chunk(2), **kwargs))

    return torch.autograd.functional.jacobian(step, z)

"""Systems of mechanics whose motion is known, written by hand."""

import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.hamiltonians import AbstractSeparable, GeneralHamiltonian, Hamiltonian


class Pendulum(AbstractSeparable):
    def potential(self, q):
        return (1 - q.cos()).sum(-1)

    def force(self, q):
        return -q.sin()


class Kepler(AbstractSeparable):
    def potential(self, q):
        return -1 / q.norm(dim=-1)

    def force(self, q):
        return -q / q.norm(dim=-1, keepdim=True) ** 3


class HenonHeiles(AbstractSeparable):
    def potential(self, q):
        x, y = q.unbind(-1)
        return 0.5 * q.square().sum(-1) + x * x * y - y**3 / 3

    def force(self, q):
        x, y = q.unbind(-1)
        return -torch.stack((x + 2 * x * y, y + x * x - y * y), -1)


class Well(nn.Module):
    """A user's potential, with a parameter."""

    def __init__(self):
        super().__init__()
        self.depth = nn.Parameter(torch.tensor(0.7))

    def forward(self, q):
        return (self.depth * q.cos()).sum(-1)


class Counting(AbstractSeparable):
    """An oscillator that counts its evaluations."""

    def __init__(self):
        super().__init__()
        self.forces = self.velocities = 0

    def potential(self, q):
        return 0.5 * q.square().sum(-1)

    def force(self, q):
        self.forces += 1
        return -q

    def velocity(self, p):
        self.velocities += 1
        return p


class Coupled(Hamiltonian):
    """A user's own energy: no closed form, a parameter, q and p multiplied."""

    def __init__(self):
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, q, p):
        return (0.5 * p.square() * (1 + self.strength * q.square()) + 1 - q.cos()).sum(-1)

    def by_hand(self, q, p):
        return self.strength * q * p.square() + q.sin(), p * (1 + self.strength * q.square())


def general(dim=3, scale=1.0, **kwargs):
    return GeneralHamiltonian(dim, hidden_dim=8, residual_scale=scale, **kwargs).double()


def small_predictor(dim=4, scale=0.5, dt=0.1, **kwargs):
    h = sj.SeparableHamiltonian(dim, hidden_dim=8, residual_scale=scale).double()
    return sj.HamiltonianPredictor(h, dt=dt, steps=2, **kwargs)


class _Call(nn.Module):
    def __init__(self, part, function):
        super().__init__()
        self.part, self.function = part, function

    def forward(self, *inputs):
        return self.function(self.part, *inputs)


def by_weights(part, function):
    """``function(part, *inputs)`` as a function of the inputs and then the part's weights, and those weights."""
    names = [f"part.{name}" for name, _ in part.named_parameters()]
    call = _Call(part, function)

    def run(*leaves):
        inputs, weights = leaves[: -len(names)], leaves[-len(names) :]
        return torch.func.functional_call(call, dict(zip(names, weights, strict=True)), inputs)

    return run, [w.detach().clone().requires_grad_() for w in part.parameters()]


def omega(dim):
    """The symplectic form of ``dim`` positions and momenta."""
    zero, eye = torch.zeros(dim, dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)
    return torch.cat((torch.cat((zero, eye), 1), torch.cat((-eye, zero), 1)))

"""Three systems with a known energy, and how they are observed: tasks 1, 2 and 4 of arXiv:1906.01563.

Sizes, times and noise are those of the paper. Where its text and its published code differ, these follow the code,
because only the code fits the published numbers: the energy of the spring and of the pendulum has ``p²`` without ½, the
pendulum's range [1.3, 2.3] is that of ``√(q² + p²)``, and [0.5, 1.5] is that of each coordinate of the first body.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Generator, Tensor

import symplectic_jepa as sj


class System(sj.hamiltonians.AbstractSeparable):
    """An energy ``H(q, p) = T(p) + V(q)`` with its forces, and the settings of its observation."""

    name: str
    dim: int
    duration: float  # of a trajectory
    frames: int  # observations of a trajectory, the first at time 0
    train: int  # number of trajectories
    test: int
    noise: float  # standard deviation in every coordinate of an observation

    @abstractmethod
    def starts(self, count: int, generator: Generator) -> Tensor:
        """Random first states, ``(count, 2d)``, in float64."""

    def observe(self, count: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """First states ``(N, 2d)``; noisy states and the exact time derivatives, each ``(frames * N, 2d)``."""
        start = self.starts(count, generator)
        z = trajectory(self, start, duration=self.duration, frames=self.frames).flatten(0, 1)
        derivative = sj.join_state(*self.vector_field(*sj.split_state(z)))
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        return start, z + self.noise * noise, derivative


class MassSpring(System):
    """``H = q² + p²``."""

    name, dim, duration, frames, train, test, noise = "mass-spring", 1, 3.0, 30, 25, 25, 0.1

    def potential(self, q: Tensor) -> Tensor:
        return q.square().sum(-1)

    def force(self, q: Tensor) -> Tensor:
        return -2 * q

    def kinetic(self, p: Tensor) -> Tensor:
        return p.square().sum(-1)

    def velocity(self, p: Tensor) -> Tensor:
        return 2 * p

    def starts(self, count: int, generator: Generator) -> Tensor:
        energy = uniform(0.2, 1.0, count, generator)
        return on_circle(energy.sqrt(), generator)


class Pendulum(MassSpring):
    """``H = g (1 − cos q) + a p²/2``, by default ``3 (1 − cos q) + p²``; it hangs at ``q = 0``."""

    name, frames = "pendulum", 45

    def __init__(self, gravity: float = 3.0, inverse_mass: float = 2.0) -> None:
        super().__init__()
        self.gravity, self.inverse_mass = gravity, inverse_mass

    def potential(self, q: Tensor) -> Tensor:
        return self.gravity * (1 - q.cos()).sum(-1)

    def force(self, q: Tensor) -> Tensor:
        return -self.gravity * q.sin()

    def kinetic(self, p: Tensor) -> Tensor:
        return 0.5 * self.inverse_mass * p.square().sum(-1)

    def velocity(self, p: Tensor) -> Tensor:
        return self.inverse_mass * p

    def starts(self, count: int, generator: Generator) -> Tensor:
        return on_circle(uniform(1.3, 2.3, count, generator), generator)


class TwoBodies(System):
    """``H = ½‖p‖² − 1/‖r₁ − r₂‖`` of two unit masses in a plane, ``q = [r₁ | r₂]``."""

    name, dim, duration, frames, train, test, noise = "two bodies", 4, 20.0, 50, 800, 200, 0.0

    def potential(self, q: Tensor) -> Tensor:
        return -1 / self.separation(q).norm(dim=-1)

    def force(self, q: Tensor) -> Tensor:
        r = self.separation(q)
        pull = r / r.norm(dim=-1, keepdim=True) ** 3  # on the second body
        return torch.cat((-pull, pull), -1)

    @staticmethod
    def separation(q: Tensor) -> Tensor:
        return q[..., :2] - q[..., 2:]

    def starts(self, count: int, generator: Generator) -> Tensor:
        """Circular orbits about the origin, with speeds changed by about 5 %."""
        r = uniform(0.5, 1.5, (count, 2), generator)
        speed = 1 / (2 * r.norm(dim=-1, keepdim=True).sqrt())  # v² / r = 1 / (2r)²
        speed = speed * (1 + 0.05 * torch.randn(count, 1, generator=generator, dtype=r.dtype))
        x, y = (speed * r / r.norm(dim=-1, keepdim=True)).unbind(-1)
        v = torch.stack((-y, x), -1)
        return torch.cat((r, -r, v, -v), -1)


SYSTEMS = (MassSpring(), Pendulum(), TwoBodies())


def trajectory(system: System, start: Tensor, *, duration: float, frames: int, steps: int = 25) -> Tensor:
    """Reference states at ``frames`` equally spaced times from 0 to ``duration``: ``(N, 2d)`` to ``(frames, N, 2d)``.

    The sixth-order integrator takes ``steps`` steps between two frames.
    """
    dt = duration / (frames - 1) / steps
    flow = sj.HamiltonianPredictor(system, integrator=sj.yoshida6, dt=dt, steps=steps)
    return torch.cat((start[None], flow.rollout(start, steps=frames - 1)))


def uniform(low: float, high: float, size: int | tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform random numbers in float64."""
    size = (size,) if isinstance(size, int) else size
    return low + (high - low) * torch.rand(size, generator=generator, dtype=torch.float64)


def on_circle(radius: Tensor, generator: Generator) -> Tensor:
    """States ``(N, 2)`` with ``√(q² + p²) = radius`` in random directions."""
    angle = uniform(0.0, 2 * math.pi, len(radius), generator)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1)

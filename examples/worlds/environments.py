"""Gymnasium's classic control tasks, their dynamics written for whole batches.

Data, planning and the tests for surprise need many trajectories, some of them under another gravity. So the equations
of motion are written here again, for tensors; a test compares their steps with gymnasium's. Frames are gymnasium's own.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

PI = math.pi


class Environment(ABC):
    """A task whose state is ``(B, n)`` and whose action, ``(B, 1)``, lies in ``[-1, 1]``; episodes never end."""

    name: ClassVar[str]
    gym_id: ClassVar[str]
    frame_skip: ClassVar[int] = 1  # steps of gymnasium between two frames
    crop: ClassVar[tuple[int, int]]  # height and width of the middle of the picture that is kept
    quantities: ClassVar[tuple[str, ...]]  # what `observe` returns
    positions: ClassVar[int]  # number of quantities, from the first, that a single frame shows

    def __init__(self) -> None:
        self._renderer: Any = None

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Initial states, spread over all that the task can reach."""

    @abstractmethod
    def step(self, state: Tensor, action: Tensor, *, gravity: float = 1.0) -> Tensor:
        """One step of gymnasium; ``gravity`` multiplies its own."""

    @abstractmethod
    def observe(self, state: Tensor) -> Tensor:
        """The physical quantities ``(..., len(quantities))``, angles as cosine and sine."""

    @abstractmethod
    def energy(self, observed: Tensor) -> Tensor:
        """Mechanical energy of `observe`'s quantities, ``(...)``, in the units of the task."""

    @abstractmethod
    def pump(self, state: Tensor) -> Tensor:
        """The action that adds most energy, ``(B, 1)``."""

    def frame(self, state: Tensor, action: Tensor, *, gravity: float = 1.0) -> Tensor:
        """The state one frame later, under one action."""
        for _ in range(self.frame_skip):
            state = self.step(state, action, gravity=gravity)
        return state

    def render(self, states: Tensor, size: int) -> Tensor:
        """Pictures of states ``(N, n)``: grey ``(N, size, size)`` in uint8, bright on black."""
        if self._renderer is None:
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no screen is needed
            import gymnasium  # noqa: PLC0415

            self._renderer = gymnasium.make(self.gym_id, render_mode="rgb_array").unwrapped
            self._renderer.reset()
        turns = (states[:, : states.shape[1] // 2] * (2048 / PI)).round()  # near positions share one picture
        different, index = torch.unique(turns, dim=0, return_inverse=True)
        chosen = torch.zeros(len(different), dtype=torch.long).scatter_(0, index, torch.arange(len(states)))
        pictures = torch.stack([self._draw(state, size) for state in states[chosen].double()])
        return pictures[index]

    def _draw(self, state: Tensor, size: int) -> Tensor:
        height, width = self.crop
        self._renderer.state = state.numpy()
        whole = np.asarray(self._renderer.render())
        top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
        red, green, blue = (whole[top : top + height, left : left + width, i] for i in range(3))
        grey = torch.from_numpy(255 - np.minimum(np.minimum(red, green), blue)).float()
        small = torch.nn.functional.interpolate(grey[None, None], (size, size), mode="area")
        return small[0, 0].round().to(torch.uint8)


class Pendulum(Environment):
    """``Pendulum-v1``: state (θ, θ̇), upright at 0; 0.05 s a frame, clipped at 8 rad/s."""

    name, gym_id, crop = "pendulum", "Pendulum-v1", (260, 260)
    quantities, positions = ("cos θ", "sin θ", "θ̇"), 2

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        u = 2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1
        return u * torch.tensor([PI, 6.0])

    def step(self, state: Tensor, action: Tensor, *, gravity: float = 1.0) -> Tensor:
        theta, speed = state.unbind(-1)
        torque = 2 * action[..., 0].clamp(-1, 1)
        speed = (speed + 0.05 * (15 * gravity * theta.sin() + 3 * torque)).clamp(-8, 8)
        return torch.stack((theta + 0.05 * speed, speed), -1)

    def observe(self, state: Tensor) -> Tensor:
        theta, speed = state.unbind(-1)
        return torch.stack((theta.cos(), theta.sin(), speed), -1)

    def energy(self, observed: Tensor) -> Tensor:
        return observed[..., 2].square() / 6 + 5 * observed[..., 0]

    def pump(self, state: Tensor) -> Tensor:
        return state[:, 1:].sign()


class Acrobot(Environment):
    """``Acrobot-v1``: state (θ1, θ2, θ̇1, θ̇2), hanging at 0; 0.2 s a frame by one step of RK4."""

    name, gym_id, crop = "acrobot", "Acrobot-v1", (500, 500)
    quantities, positions = ("cos θ1", "sin θ1", "cos θ2", "sin θ2", "θ̇1", "θ̇2"), 4

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        u = 2 * torch.rand(count, 4, generator=generator, dtype=torch.float64) - 1
        return u * torch.tensor([PI, PI, 2.0, 3.0])

    def step(self, state: Tensor, action: Tensor, *, gravity: float = 1.0) -> Tensor:
        torque = action[..., 0].clamp(-1, 1)
        h = 0.2
        k1 = self._rate(state, torque, gravity)
        k2 = self._rate(state + h / 2 * k1, torque, gravity)
        k3 = self._rate(state + h / 2 * k2, torque, gravity)
        k4 = self._rate(state + h * k3, torque, gravity)
        angles, speeds = (state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)).split(2, -1)
        limit = speeds.new_tensor([4 * PI, 9 * PI])
        return torch.cat(((angles + PI).remainder(2 * PI) - PI, speeds.clamp(-limit, limit)), -1)

    @staticmethod
    def _rate(state: Tensor, torque: Tensor, gravity: float) -> Tensor:
        """The equations of motion of two unit rods whose moments of inertia are 1 [Sutton and Barto, 2018]."""
        a, b, da, db = state.unbind(-1)
        g, cos = 9.8 * gravity, b.cos()
        m11, m12, m22 = 3.5 + cos, 1.25 + 0.5 * cos, 1.25
        pull2 = 0.5 * g * (a + b).sin()
        pull1 = -0.5 * b.sin() * (db.square() + 2 * db * da) + 1.5 * g * a.sin() + pull2
        ddb = (torque + m12 / m11 * pull1 - 0.5 * da.square() * b.sin() - pull2) / (m22 - m12.square() / m11)
        return torch.stack((da, db, -(m12 * ddb + pull1) / m11, ddb), -1)

    def observe(self, state: Tensor) -> Tensor:
        a, b, da, db = state.unbind(-1)
        return torch.stack((a.cos(), a.sin(), b.cos(), b.sin(), da, db), -1)

    def energy(self, observed: Tensor) -> Tensor:
        ca, sa, cb, sb, da, db = observed.unbind(-1)
        kinetic = 0.5 * (3.5 + cb) * da.square() + (1.25 + 0.5 * cb) * da * db + 0.625 * db.square()
        return kinetic - 9.8 * (1.5 * ca + 0.5 * (ca * cb - sa * sb))

    def pump(self, state: Tensor) -> Tensor:
        return state[:, 3:].sign()


class MountainCar(Environment):
    """``MountainCarContinuous-v0``: state (x, v); a frame takes 4 steps, and a wall on the left stops the car."""

    name, gym_id, frame_skip, crop = "mountain_car", "MountainCarContinuous-v0", 4, (400, 600)
    quantities, positions = ("x", "10 v"), 1

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        return u * torch.tensor([1.6, 0.08]) - torch.tensor([1.15, 0.04])

    def step(self, state: Tensor, action: Tensor, *, gravity: float = 1.0) -> Tensor:
        x, v = state.unbind(-1)
        v = v + 0.0015 * action[..., 0].clamp(-1, 1) - 0.0025 * gravity * (3 * x).cos()
        v = v.clamp(-0.07, 0.07)
        x = (x + v).clamp(-1.2, 0.6)
        return torch.stack((x, torch.where((x == -1.2) & (v < 0), 0.0, v)), -1)

    def observe(self, state: Tensor) -> Tensor:
        return state * state.new_tensor([1.0, 10.0])

    def energy(self, observed: Tensor) -> Tensor:
        x, v = observed.unbind(-1)
        return (0.5 * (v / 10).square() + 0.0025 * (3 * x).sin() / 3) * 1000

    def pump(self, state: Tensor) -> Tensor:
        return state[:, 1:].sign()


ENVIRONMENTS: dict[str, type[Environment]] = {e.name: e for e in (Pendulum, Acrobot, MountainCar)}

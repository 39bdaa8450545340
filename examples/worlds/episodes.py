"""Rendered episodes, made once and kept in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from examples.system.files import load_checkpoint, save_atomically
from examples.worlds.environments import ENVIRONMENTS, Environment

SIZE = 32  # pixels
FRAMES = 10  # of a training episode
TEST_EPISODES, TEST_FRAMES = 256, 66  # 64 frames can be predicted from the second
GRAVITIES = (0.5, 2.0)  # relative to the task's own


@dataclass(frozen=True)
class Episodes:
    """Frames ``(T, B, size, size)`` in uint8, states ``(T, B, n)``, actions ``(T − 1, B, 1)`` in ``[-1, 1]``."""

    frames: Tensor
    states: Tensor
    actions: Tensor

    def first(self, count: int) -> Episodes:
        """The first ``count`` episodes."""
        return Episodes(self.frames[:, :count], self.states[:, :count], self.actions[:, :count])


@dataclass(frozen=True)
class Data:
    """The data of one task."""

    train: Episodes
    validation: Episodes  # for every choice that is made
    test: Episodes
    gravity: tuple[Episodes, ...]  # under another gravity, `GRAVITIES`


def load_data(name: str, *, folder: Path, episodes: int) -> Data:
    """The first ``episodes`` training episodes of a task, and all others; made if the file is not there."""
    path = folder / f"{name}-{episodes}.pt"
    environment = ENVIRONMENTS[name]()
    if not path.is_file():
        made = {
            "train": simulate(environment, episodes, FRAMES, seed=0),
            "validation": simulate(environment, TEST_EPISODES // 2, TEST_FRAMES, seed=1),
            "test": simulate(environment, TEST_EPISODES, TEST_FRAMES, seed=2),
        } | {f"gravity {g}": simulate(environment, TEST_EPISODES // 2, FRAMES, seed=3, gravity=g) for g in GRAVITIES}
        folder.mkdir(parents=True, exist_ok=True)
        save_atomically(path, {name: vars(part) for name, part in made.items()})
    parts = {name: Episodes(**tensors) for name, tensors in load_checkpoint(path, torch.device("cpu")).items()}
    gravity = tuple(parts[f"gravity {g}"] for g in GRAVITIES)
    return Data(parts["train"], parts["validation"], parts["test"], gravity)


def simulate(environment: Environment, count: int, frames: int, *, seed: int, gravity: float = 1.0) -> Episodes:
    """Half of the episodes act at random; in the other half most actions add energy, so that fast motion is seen, too.

    A random action holds for two frames on average.
    """
    generator = torch.Generator().manual_seed(seed)
    states, actions = [environment.sample(count, generator)], []
    pumping = torch.arange(count)[:, None] % 2 == 1
    held = 2 * torch.rand(count, 1, generator=generator, dtype=torch.float64) - 1
    for _ in range(frames - 1):
        fresh = 2 * torch.rand(count, 1, generator=generator, dtype=torch.float64) - 1
        held = torch.where(torch.rand(count, 1, generator=generator) < 0.5, fresh, held)
        pump = pumping & (torch.rand(count, 1, generator=generator) < 0.7)
        actions.append(torch.where(pump, environment.pump(states[-1]), held))
        states.append(environment.frame(states[-1], actions[-1], gravity=gravity))
    path = torch.stack(states)
    pictures = environment.render(path.flatten(0, 1), SIZE).unflatten(0, path.shape[:2])
    return Episodes(pictures, path.float(), torch.stack(actions).float())

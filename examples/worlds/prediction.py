"""What a trained world model predicts: errors in physical units, long rollouts, surprise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from examples.worlds.environments import Environment
from examples.worlds.episodes import Data, Episodes
from examples.worlds.models import PAST, WorldModel
from examples.worlds.probes import Probe

HORIZONS = (1, 4, 8, 16, 32, 64)
FREE = (10, 100, 1000)  # frames of a rollout without actions


@dataclass(frozen=True)
class OpenLoop:
    """Root mean square errors of positions and velocities, ``(64,)`` each, and those of standing still."""

    position: Tensor
    velocity: Tensor
    still_position: Tensor
    still_velocity: Tensor


@torch.no_grad()
def open_loop(model: WorldModel, probe: Probe, environment: Environment, episodes: Episodes) -> OpenLoop:
    """Predict from the first states on, under the episodes' actions, and read the predictions through a probe."""
    states = model.encode(episodes.frames[:PAST])
    truth = environment.observe(episodes.states)[PAST - 1 :]
    predicted = probe(model.imagine(states, episodes.actions[PAST - 1 :]))
    n = environment.positions
    errors = [_rms((x - truth[1:])[..., half]) for x in (predicted, truth[:1]) for half in (slice(n), slice(n, None))]
    return OpenLoop(*errors)


@dataclass(frozen=True)
class FreeRollout:
    """Medians over rollouts without actions, after `FREE` frames."""

    distance: list[float]  # to the nearest encoded state, in units of the same distance of unseen encoded states
    energy: list[float]  # |energy − energy at the start|, decoded, in units of the data's standard deviation
    true_energy: list[float]  # the same of the simulator


@torch.no_grad()
def free_rollout(model: WorldModel, probe: Probe, environment: Environment, data: Data) -> FreeRollout:
    """Roll out `FREE` frames from the test episodes' first states. An overflow counts as infinitely far."""
    bank = model.encode(data.train.frames).flatten(0, 1)
    bank = bank[torch.randperm(len(bank), generator=torch.Generator().manual_seed(0))[:8192]]
    start = model.encode(data.test.frames[:PAST])
    unit = torch.cdist(start[-1], bank).amin(-1).median()
    actions = data.test.actions.new_zeros(FREE[-1], start.shape[1], 1)
    path = model.imagine(start, actions)
    observed = environment.observe(data.test.states[PAST - 1])
    spread = environment.energy(environment.observe(data.train.states)).std()
    first, truth = environment.energy(probe(start[-1])), data.test.states[PAST - 1].double()
    distance, energy, true_energy = [], [], []
    for frame in range(1, FREE[-1] + 1):
        truth = environment.frame(truth, actions[0].double())
        if frame not in FREE:
            continue
        z = path[frame - 1]
        distance.append(_median(torch.cdist(z, bank).amin(-1) / unit))
        energy.append(_median((environment.energy(probe(z)) - first).abs() / spread))
        change = environment.energy(environment.observe(truth)) - environment.energy(observed)
        true_energy.append(_median(change.abs() / spread))
    return FreeRollout(distance, energy, true_energy)


@torch.no_grad()
def surprise(model: WorldModel, data: Data) -> dict[str, float]:
    """AUC of telling changed frames from normal ones by the error of a prediction from one frame to the next.

    ``teleport``: the next two frames are another episode's. ``gravity``: half of it, and twice. ``reversed time``: all
    frames and actions in reverse order; a motion without friction looks as natural as before.
    """
    test = data.test
    normal = _errors(model, test.frames[:12], test.actions[:11])
    jumped = torch.cat((test.frames[:6], test.frames[6:12].roll(1, dims=1)))
    changed = {
        "teleport": _errors(model, jumped, test.actions[:11])[5 - PAST + 1],
        "reversed time": _errors(model, test.frames[:12].flip(0), test.actions[:11].flip(0)),
    }
    for name, episodes in zip(("half gravity", "double gravity"), data.gravity, strict=True):
        changed[name] = _errors(model, episodes.frames, episodes.actions)
    return {name: auc(normal.flatten(), x.flatten()) for name, x in changed.items()}


def auc(normal: Tensor, changed: Tensor) -> float:
    """Probability that a changed score is above a normal one; a tie counts as one half."""
    ordered = normal.sort().values
    below, not_above = (torch.searchsorted(ordered, changed, right=right) for right in (False, True))
    return float((below + not_above).double().mean() / (2 * len(normal)))


def _errors(model: WorldModel, frames: Tensor, actions: Tensor) -> Tensor:
    """Squared one-frame errors of every frame with a past, ``(T − 2, B)``."""
    z = model.encode(frames)
    u = actions[PAST - 1 :]
    predicted = torch.stack([model.imagine(z[: t + 1], u[: t + 1])[0] for t in range(len(u))])
    return (predicted - z[1:]).square().mean(-1).nan_to_num(nan=torch.inf)


def _rms(errors: Tensor) -> Tensor:
    """``(T, B, n)`` to ``(T,)``."""
    return errors.square().sum(-1).mean(-1).sqrt()


def _median(x: Tensor) -> float:
    return float(x.nan_to_num(nan=torch.inf).median())

"""Planning in latent space to a goal image: by the cross-entropy method, and by gradients through the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from examples.worlds.environments import Environment
from examples.worlds.episodes import Episodes
from examples.worlds.models import PAST, WorldModel

EPISODES, FRAMES = 50, 16  # of a task: from the second frame of a test episode to a frame that it reaches 16 later
SAMPLES, ELITES, ROUNDS = 128, 16, 5
DESCENTS = 40  # steps of Adam on the actions
TOLERANCE = 0.2  # distance of the positions (cosines and sines, or units of length) that counts as a success

Cost = Callable[[Tensor], Tensor]  # actions (T, N, E, 1) to costs (N, E)


@dataclass(frozen=True)
class Planning:
    """Shares of episodes that end at the goal, and seconds per plan."""

    success: float
    gradient: float  # planning by gradients through the rollout instead
    simulator: float  # the same planner on the true dynamics
    random: float  # actions at random
    seconds: float


@torch.no_grad()
def plan_to_goals(model: WorldModel, environment: Environment, episodes: Episodes) -> Planning:
    """Plan once for every test episode, execute the plan, and compare its end with the goal."""
    some = episodes.first(EPISODES)
    n, start = environment.positions, some.states[PAST - 1].double()
    count = len(start)
    goal = environment.observe(some.states[PAST - 1 + FRAMES])[..., :n]
    target = model.encode(some.frames[[PAST - 1 + FRAMES] * PAST])[0, :, : model.encoder.dim]  # q: one image is enough
    states = model.encode(some.frames[:PAST])

    def imagined(actions: Tensor) -> Tensor:
        samples = actions.shape[1]
        repeated = states.repeat(1, samples, 1)
        end = model.imagine(repeated, actions.flatten(1, 2))[-1].unflatten(0, (samples, -1))
        return (end[..., : model.encoder.dim] - target).square().sum(-1).nan_to_num(nan=torch.inf)

    def true_ends(actions: Tensor) -> Tensor:
        state = start.expand(actions.shape[1], *start.shape)
        for action in actions.double():
            state = environment.frame(state.flatten(0, 1), action.flatten(0, 1)).unflatten(0, actions.shape[1:3])
        return environment.observe(state)[..., :n]

    def truly(actions: Tensor) -> Tensor:
        return (true_ends(actions) - goal).square().sum(-1)

    def success(actions: Tensor) -> float:
        return float((truly(actions[:, None])[0].sqrt() < TOLERANCE).double().mean())

    began = time.perf_counter()
    plan = cross_entropy(imagined, count)
    seconds = (time.perf_counter() - began) / count
    random = 2 * torch.rand(FRAMES, count, 1, generator=torch.Generator().manual_seed(1)) - 1
    return Planning(
        success(plan),
        success(descend(imagined, count)),
        success(cross_entropy(truly, count)),
        success(random),
        seconds,
    )


def cross_entropy(cost: Cost, episodes: int, *, seed: int = 0) -> Tensor:
    """Actions ``(FRAMES, E, 1)`` in ``[-1, 1]``: a Gaussian, fitted again and again to its best samples."""
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.zeros(FRAMES, 1, episodes, 1), torch.ones(FRAMES, 1, episodes, 1)
    for _ in range(ROUNDS):
        noise = torch.randn(FRAMES, SAMPLES, episodes, 1, generator=generator)
        actions = (mean + std * noise).clamp(-1, 1)
        best = cost(actions).argsort(0)[:ELITES]  # (ELITES, E)
        elite = actions.gather(1, best[None, :, :, None].expand(FRAMES, -1, -1, 1))
        mean, std = elite.mean(1, keepdim=True), elite.std(1, keepdim=True)
    return mean[:, 0]


def descend(cost: Cost, episodes: int, *, lr: float = 0.1) -> Tensor:
    """Actions ``(FRAMES, E, 1)`` in ``[-1, 1]``, from zero along the gradient of their cost; the best of all steps."""
    free = torch.zeros(FRAMES, 1, episodes, 1, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=lr)
    best, least = torch.zeros(FRAMES, episodes, 1), torch.full((episodes,), torch.inf)
    with torch.enable_grad():
        for _ in range(DESCENTS):
            actions = free.tanh()
            values = cost(actions)[0]
            better = values.detach() < least
            best[:, better], least[better] = actions.detach()[:, 0, better], values.detach()[better]
            (gradient,) = torch.autograd.grad(values.sum(), free)
            free.grad = gradient.nan_to_num()
            optimizer.step()
    return best

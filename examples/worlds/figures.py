"""Figures of the world models of one group of cells: frames, errors, phase portraits, energies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from examples.worlds.cells import Cell, probes
from examples.worlds.environments import ENVIRONMENTS, Environment
from examples.worlds.episodes import SIZE, Data
from examples.worlds.models import PAST, WorldModel
from examples.worlds.prediction import open_loop
from examples.worlds.probes import Probe, regress

SHOWN = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # frames ahead
FREE_FRAMES = 300
PATHS = 6  # rollouts in the phase portraits


def draw(cells: Sequence[Cell], data: Data, out: Path, path: Path) -> None:
    """Draw finished cells of one group, one per predictor."""
    environment = ENVIRONMENTS[cells[0].environment]()
    models = {cell.predictor: cell.load(out) for cell in cells}
    read = {cell.predictor: probes(models[cell.predictor], data, cell)[1] for cell in cells}
    rows = len(cells) + 1
    figure = Figure(figsize=(13, rows + 6), layout="constrained", dpi=130)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[rows, 3, 3])
    top.suptitle("Frames, and predictions from the first two, decoded from q", fontsize=10)
    _frames(top, models, data)
    errors, energies = middle.subplots(1, 2)
    _errors(errors, models, read, environment, data)
    portraits = bottom.subplots(1, rows, sharex=True, sharey=True)
    known = environment.observe(data.train.states)
    paths = _free_paths(models, read, environment, data)
    _portraits(portraits, paths, environment, known)
    _energies(energies, paths, environment, known)
    figure.savefig(path)


def _frames(area: Any, models: dict[str, WorldModel], data: Data) -> None:
    axes = area.subplots(len(models) + 1, len(SHOWN))
    episode = data.test.first(1)
    rows = {"true": [episode.frames[PAST - 1 + k, 0].float() / 255 for k in SHOWN]}
    for name, model in models.items():
        decoder = fit_decoder(model, data)
        with torch.no_grad():
            path = model.imagine(model.encode(episode.frames[:PAST]), episode.actions[PAST - 1 :])
            rows[name] = [decoder(path[k - 1, :, : model.encoder.dim])[0].clamp(0, 1) for k in SHOWN]
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
        for axis, picture, k in zip(row, pictures, SHOWN, strict=True):
            axis.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            if name == "true":
                axis.set_title(f"{k} ahead", fontsize=8)


def _errors(
    axis: Any, models: dict[str, WorldModel], read: dict[str, Probe], environment: Environment, data: Data
) -> None:
    for name, model in models.items():
        errors = open_loop(model, read[name], environment, data.test)
        axis.plot(range(1, len(errors.position) + 1), errors.position, label=name)
    axis.plot(range(1, len(errors.position) + 1), errors.still_position, "k:", label="standing still")
    axis.set(xscale="log", yscale="log", xlabel="frames ahead", title="Error of the decoded positions")
    axis.title.set_fontsize(10)
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.legend(fontsize=7, loc="lower right")


@torch.no_grad()
def _free_paths(
    models: dict[str, WorldModel], read: dict[str, Probe], environment: Environment, data: Data
) -> dict[str, Tensor]:
    """Rollouts without actions ``(T, PATHS, n)``, true and read by the probes."""
    episodes = data.test.first(PATHS)
    none = episodes.actions.new_zeros(FREE_FRAMES, PATHS, 1)
    state = episodes.states[PAST - 1].double()
    truth = [state := environment.frame(state, none[0].double()) for _ in range(FREE_FRAMES)]
    paths = {"true": environment.observe(torch.stack(truth)).float()}
    for name, model in models.items():
        paths[name] = read[name](model.imagine(model.encode(episodes.frames[:PAST]), none))
    return paths


def _portraits(portraits: Sequence[Any], paths: dict[str, Tensor], environment: Environment, known: Tensor) -> None:
    for axis, (name, path) in zip(portraits, paths.items(), strict=True):
        axis.scatter(*_portrait(path, environment), s=0.6, linewidths=0)
        axis.set_title(name, fontsize=9)
    portraits[0].set_ylabel(environment.quantities[environment.positions])
    limits = _portrait(known, environment)
    portraits[0].set(xlim=(limits[0].min(), limits[0].max()), ylim=(limits[1].min(), limits[1].max()))


def _energies(axis: Any, paths: dict[str, Tensor], environment: Environment, known: Tensor) -> None:
    for name, path in paths.items():
        style = {"color": "k", "linestyle": ":"} if name == "true" else {}
        axis.plot(environment.energy(path[:, 0]), label=name, linewidth=1, **style)
    energy = environment.energy(known)
    axis.set(ylim=(energy.min(), energy.max()), xlabel="frames without actions", title="Decoded energy, one episode")
    axis.title.set_fontsize(10)
    axis.grid(alpha=0.25, linewidth=0.5)


def _portrait(path: Tensor, environment: Environment) -> tuple[Tensor, Tensor]:
    """First position, as an angle where it is one, and its velocity, flat."""
    flat = path.flatten(0, 1)
    velocity = flat[:, environment.positions]
    return (torch.atan2(flat[:, 1], flat[:, 0]) if environment.positions > 1 else flat[:, 0]), velocity


def fit_decoder(model: WorldModel, data: Data, *, steps: int = 400, batch: int = 128) -> nn.Module:
    """A decoder from q ``(N, d)`` to frames ``(N, size, size)`` in [0, 1]; for pictures only."""
    with torch.no_grad():
        q = model.encode(data.train.frames).flatten(0, 1)[:, : model.encoder.dim]
    frames = data.train.frames[PAST - 1 :].flatten(0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = nn.Sequential(
            nn.Linear(model.encoder.dim, 256),
            nn.GELU(),
            nn.Linear(256, 256),
            nn.GELU(),
            nn.Linear(256, SIZE * SIZE),
            nn.Unflatten(-1, (SIZE, SIZE)),
        )
        regress(decoder, q, lambda index: frames[index].float() / 255, steps=steps, batch=batch, lr=2e-3)
    return decoder

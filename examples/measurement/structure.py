"""Does the trained predictor preserve the structure of phase space? Long rollouts, compared with maps that do not.

Rollouts apply a predictor many times in float64, starting from encoded test images. A symplectic predictor keeps the
energy error bounded, preserves the area of every loop, and can be reversed. Explicit Euler and the residual MLP do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import symplectic_jepa as sj
from examples.images.datasets import ImageData
from examples.measurement.features import encode, run_recipe
from examples.model.build import build_model, explicit_euler
from examples.system.checkpoint import load_run, restore
from examples.system.files import save_atomically
from examples.system.sharded import last_checkpoint
from symplectic_jepa.evaluation import reversibility_error, symplecticity_defect
from symplectic_jepa.hamiltonians import Hamiltonian
from symplectic_jepa.predictors import Predictor

FILE = "structure.pt"
ROLLOUT = 400  # predictor applications
STATES, LOOP, FRAMES = 128, 64, 101
SLICES = 3  # one-dimensional projections
JACOBIANS, WAYS = 1, 16  # numbers of states; a Jacobian costs 2d backward passes
Map = Callable[[Tensor], Tensor]


def measure_structure(run: Path, data: ImageData) -> dict[str, dict[str, float]]:
    """Numbers by map for a finished run's predictor, {} without one; the figures' arrays go to ``structure.pt``."""
    recipe = run_recipe(run)
    if recipe.method == "sigreg":
        return {}
    device = torch.device("cpu")  # float64 is slow on some devices, and this is small
    model = build_model(recipe, data.train_images.shape[1:])
    path = last_checkpoint(run)
    restore(path, load_run(path, device), model)
    images = data.test_images
    few = images[:STATES] if isinstance(images, Tensor) else images.subset(torch.arange(min(STATES, len(images))))
    features = encode(model, replace(data, train_images=few, test_images=few).to(device))
    z = torch.cat([features[half][1] for half in ("q", "p")], -1).double()
    predictor = model.objective.predictor.double()
    results = {name: roll(maps, z) for name, maps in compared(predictor, recipe.predictor.integrator).items()}
    save_atomically(run / FILE, {name: arrays for name, (_, arrays) in results.items()})
    return {name: numbers for name, (numbers, _) in results.items()}


def compared(predictor: Predictor, name: str) -> dict[str, tuple[Map, Map, Hamiltonian | None]]:
    """The predictor's map, inverse and energy; if it has an energy, also those of explicit Euler."""

    def maps(phi: Predictor, hamiltonian: Hamiltonian | None) -> tuple[Map, Map, Hamiltonian | None]:
        return phi, lambda z: phi(z, direction=-1), hamiltonian

    if not isinstance(predictor, sj.HamiltonianPredictor):
        return {"residual MLP": maps(predictor, None)}
    h = predictor.hamiltonian
    euler = sj.HamiltonianPredictor(h, dt=predictor.dt, steps=predictor.steps, integrator=explicit_euler)
    return {name.replace("_", " "): maps(predictor, h), "explicit euler": maps(euler, h)}


def roll(maps: tuple[Map, Map, Hamiltonian | None], z: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Numbers and arrays of one map from states ``(N, 2d)``."""
    forward, backward, hamiltonian = maps
    energy = hamiltonian if hamiltonian is not None else lambda q, p: 0.5 * (q.square() + p.square()).sum(-1)
    way_back = torch.stack(
        [reversibility_error(times(forward, n), times(backward, n), z[:WAYS]).max() for n in (1, 10, 100)]
    )
    states = rollout(forward, z)
    energies = energy(*sj.split_state(states)).detach()
    drift = ((energies - energies[0]) / energies[0]).abs()
    plane = spread_plane(z)
    areas = loop_area(rollout(forward, loop(z, plane)))
    q, p = sj.split_state(states)
    covariance = states.var(1).sum(-1)
    directions = torch.randn(z.shape[-1], SLICES, generator=torch.Generator().manual_seed(0), dtype=z.dtype)
    slices = states[[0, FRAMES // 2, -1]] @ torch.nn.functional.normalize(directions, dim=0)
    numbers = {
        "symplecticity_defect": symplecticity_defect(forward, z[:JACOBIANS]).max().item(),
        "round_trip_error": way_back[0].item(),
        "round_trip_error_100": way_back[2].item(),
        "energy_drift_max": drift.max().item(),
        "energy_drift_end": drift[-1].mean().item(),
        "area_ratio": (areas[-1] / areas[0]).item(),
        "variance_ratio": (covariance[-1] / covariance[0]).item(),
    }
    arrays = {
        "drift": drift.mean(1), "way_back": way_back, "areas": areas / areas[0], "variance": covariance / covariance[0],
        "slices": slices, "portrait": torch.stack([q[..., plane], p[..., plane]], -1)[:, :64],
    }  # fmt: skip
    return numbers, {name: x.detach().float().contiguous() for name, x in arrays.items()}


def times(step: Map, n: int) -> Map:
    """``step`` applied ``n`` times."""

    def repeated(z: Tensor) -> Tensor:
        for _ in range(n):
            z = step(z)
        return z

    return repeated


@torch.no_grad()
def rollout(step: Map, z: Tensor) -> Tensor:
    """``(FRAMES, N, 2d)``: states at equal intervals during the rollout."""
    frames = [z]
    for n in range(1, ROLLOUT + 1):
        z = step(z)
        if n % (ROLLOUT // (FRAMES - 1)) == 0:
            frames.append(z)
    return torch.stack(frames)


def spread_plane(z: Tensor) -> int:
    """The coordinate whose ``(q_i, p_i)`` has the largest variance."""
    q, p = sj.split_state(z.var(0))
    return int((q + p).argmax())


def loop(z: Tensor, plane: int) -> Tensor:
    """A circle of ``LOOP`` states around the mean, in the plane ``(q_i, p_i)``."""
    angle = torch.arange(LOOP, dtype=z.dtype) * (2 * math.pi / LOOP)
    q, p = (half.repeat(LOOP, 1) for half in sj.split_state(z.mean(0)))
    q[:, plane] += angle.cos()
    p[:, plane] += angle.sin()
    return sj.join_state(q, p)


def loop_area(loops: Tensor) -> Tensor:
    """``½ Σ (q_k p_{k+1} − p_k q_{k+1})``, summed over all planes, of closed polygons of states ``(..., LOOP, 2d)``.

    This approximates the action ``∮ p dq``, which a symplectic map preserves for every loop.
    """
    q, p = sj.split_state(loops)
    return 0.5 * (q * p.roll(-1, -2) - p * q.roll(-1, -2)).sum((-1, -2))

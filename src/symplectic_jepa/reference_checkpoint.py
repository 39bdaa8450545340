"""Load checkpoints of the paper's authors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.encoders import PhaseSpaceTokenEncoder, Stem
from symplectic_jepa.hamiltonians import SeparableHamiltonian
from symplectic_jepa.predictors import HamiltonianPredictor

State = dict[str, Tensor]
_STAGES = {128: 2, 256: 3, 512: 4}  # of ResNet-18, by input channels of the token projection
_RESIDUAL = "H.residual_V."
_SETTINGS = ("steps", "dt")  # of the predictor, under ``hjepa``
_ENERGY = ("base_coeff", "residual_scale", "activation")  # and of its Hamiltonian


def load_reference_checkpoint(
    path: str | os.PathLike[str],
) -> tuple[PhaseSpaceTokenEncoder, HamiltonianPredictor | None]:
    """Read a checkpoint in the layout of the paper's authors: a dict with ``encoder``, ``predictor`` and ``config``.

    Sizes are inferred from the weights. Step size, steps and coefficients come from ``config["hjepa"]``, with the
    paper's values as defaults [appendix F.11]. Stages after the token layer are ignored, as is the bias of the
    potential's last layer, which only adds a constant to the energy. No code in the file is run.

    Args:
        path: the file; ``~`` is expanded.

    Returns:
        The encoder in eval mode, and the predictor (``None`` for a baseline's checkpoint).

    Raises:
        FileNotFoundError: if ``path`` is not a file.
        ValueError: if the file is damaged, holds anything but tensors and primitives, or has another layout; the
            message names what is missing, unknown or mismatched.
    """
    path = _checks.path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file, got {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many, among them RuntimeError, EOFError and pickle.UnpicklingError
        raise ValueError(f"{path} is not a checkpoint of tensors and primitives: {error}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("encoder"), Mapping):
        found = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(f"{path} must hold a dict with 'encoder', 'predictor' and 'config', got {found}")
    config = _section(checkpoint, "config", path)
    encoder = _encoder(_state(checkpoint, "encoder", path), _section(config, "model", path), path)
    predictor = _state(checkpoint, "predictor", path)
    has_energy = any(key.startswith(_RESIDUAL) for key in predictor)
    return encoder, _predictor(predictor, _section(config, "hjepa", path), path) if has_energy else None


def _encoder(state: State, settings: Mapping[str, Any], path: Any) -> PhaseSpaceTokenEncoder:
    for key in ("stem.0.weight", "token_proj.0.weight"):
        if key not in state:
            raise ValueError(f"encoder of {path} must hold {key!r}, got {', '.join(sorted(state)[:8])}, …")
        if state[key].ndim != 4:
            raise ValueError(f"{key} of {path} must be (out, in, height, width), got {tuple(state[key].shape)}")
    channels, features = state["token_proj.0.weight"].shape[:2]
    if features not in _STAGES:
        raise ValueError(f"token_proj of {path} must read {', '.join(map(str, _STAGES))} channels, got {features}")
    layer = _STAGES[features]
    stem: Stem = "cifar" if state["stem.0.weight"].shape[-1] == 3 else "imagenet"
    grid = settings.get("token_hw") or (8 if stem == "imagenet" else None)
    grid = tuple(grid) if isinstance(grid, list) else grid
    encoder = PhaseSpaceTokenEncoder.resnet18(stem=stem, token_layer=layer, token_channels=channels, grid=grid)
    first = 3 if stem == "cifar" else 4  # of the backbone's stages: conv, norm, ReLU, and perhaps a max-pool
    ours = {"stem.0": "backbone.0", "stem.1": "backbone.1"}
    ours |= {f"layer{i}": f"backbone.{first + i - 1}" for i in range(1, layer + 1)}
    ours |= {f"token_proj.{i}": f"token_projection.{i}" for i in range(2)}
    unused = (*(f"layer{i}." for i in range(layer + 1, 5)), "fc.", "head.")
    renamed: State = {}
    for key, value in state.items():
        prefix = next((name for name in ours if key.startswith(name + ".")), None)
        if prefix is not None:
            renamed[ours[prefix] + key.removeprefix(prefix)] = value
        elif not key.startswith(unused):
            raise ValueError(f"encoder of {path} holds {key!r}, which this layout does not have")
    _load(encoder, renamed, path)
    return encoder.eval()


def _predictor(state: State, settings: Mapping[str, Any], path: Any) -> HamiltonianPredictor:
    for key, allowed in (("hamiltonian", "separable"), ("method", "leapfrog")):
        if settings.get(key, allowed) != allowed:
            raise ValueError(f"hjepa.{key} of {path} must be {allowed!r}, got {settings[key]!r}")
    numbers = {k.removeprefix(_RESIDUAL).partition(".")[0] for k in state if k.startswith(_RESIDUAL)}
    layers = sorted(int(number) for number in numbers if number.isdecimal())
    first = state.get(f"{_RESIDUAL}{layers[0]}.weight") if len(layers) > 1 else None
    if first is None or first.ndim != 2:
        raise ValueError(f"predictor of {path} must hold the weights of two or more layers, got {', '.join(state)}")
    hidden, dim = first.shape
    energy = SeparableHamiltonian(
        dim, hidden_dim=hidden, depth=len(layers) - 1, **{k: settings[k] for k in _ENERGY if k in settings}
    )
    renamed: State = {"residual_scale": energy.residual_scale}
    for i, layer in enumerate(layers):
        name = "output" if layer == layers[-1] else f"hidden.{i}"
        for part in ("weight", "bias"):
            theirs = f"{_RESIDUAL}{layer}.{part}"
            if theirs in state and f"{name}.{part}" != "output.bias":  # _load names missing weights
                renamed[f"{name}.{part}"] = state[theirs]
    _load(energy, renamed, path)
    return HamiltonianPredictor(energy, **{k: settings[k] for k in _SETTINGS if k in settings})


def _load(module: torch.nn.Module, state: State, path: Any) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights of {path} do not fit: {error}") from error


def _section(settings: Mapping[str, Any], name: str, path: Any) -> Mapping[str, Any]:
    """A section of a nested dict; empty if it is missing or ``None``."""
    section = settings.get(name) or {}
    if not isinstance(section, Mapping):
        raise ValueError(f"{name} of {path} must be a dict, got {type(section).__name__}")
    return section


def _state(checkpoint: Mapping[str, Any], name: str, path: Any) -> State:
    """The weights of a module, without the data-parallel prefix ``module.``."""
    state = _section(checkpoint, name, path)
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{name} of {path} must hold tensors by name, got {type(value).__name__} as {key!r}")
    return {key.removeprefix("module."): value for key, value in state.items()}

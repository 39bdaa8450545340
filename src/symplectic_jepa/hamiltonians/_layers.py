"""Weights that are read past a layer's ``forward``, because a gradient in closed form needs them twice."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def read_linear(name: str, layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a plain or parametrized ``nn.Linear`` in ``dtype``; each is read once.

    Raises:
        TypeError: if the layer's ``forward`` would do anything else with its input: another class, hooks, or weights
            that are not dense tensors of this process.
        ValueError: if its parametrization changes the weight at every read.
    """
    if type(layer).forward is not nn.Linear.forward or "forward" in layer.__dict__:
        raise _refusal(name, f"a {type(layer).__name__}")
    assert isinstance(layer, nn.Linear)
    if any(layer.__dict__[hooks] for hooks in _HOOKS):
        raise _refusal(name, f"a {type(layer).__name__} with hooks")
    parametrized = type(layer) is not nn.Linear and parametrize.is_parametrized(layer)
    weight, bias = _read_fixed(name, layer) if parametrized else (layer.weight, layer.bias)
    if hasattr(type(weight), "__tensor_flatten__"):  # quantised or sharded
        raise _refusal(name, f"a weight of type {type(weight).__name__}")
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def _read_fixed(name: str, layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """The tensors of a parametrized layer, unless reading them changes them."""
    parts = layer.parametrizations
    assert isinstance(parts, nn.Module)
    state = list(parts.buffers())
    if torch.compiler.is_compiling():  # versions cannot be traced: refuse what might change
        tensors, changed = (layer.weight, layer.bias), len(state) > 0 and parts.training
    else:
        before = [_version(x) for x in state]
        tensors = layer.weight, layer.bias
        changed = before != [_version(x) for x in state]
    if changed:
        raise ValueError(
            f"{name} must have the same weight at every read, got a parametrization that changes it in train mode "
            "(spectral_norm iterates): the force would not be the gradient of the energy. Call "
            "layer.parametrizations.eval() after train(); to iterate once per step, read layer.weight once with "
            "layer.parametrizations in train mode, before that"
        )
    return tensors


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version


def _refusal(name: str, found: str) -> TypeError:
    return TypeError(
        f"{name} must be an nn.Linear without hooks, because the force is computed from its weight, and forward is not "
        f"called; got {found}. Merge what it adds into the weight (LoRA: merge_and_unload, pruning: prune.remove, "
        "torch.nn.utils.weight_norm: torch.nn.utils.parametrizations.weight_norm), or write the potential as a module "
        "of your own for PotentialHamiltonian, which calls it. With FSDP2, call fully_shard on the model, "
        "the predictor or the whole Hamiltonian"
    )

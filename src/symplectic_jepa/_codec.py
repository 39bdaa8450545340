"""Encode a module as JSON and tensors, and decode it: settings by name, shared parts once, no executable code."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

PLAIN = (bool, int, float, str, type(None))
_ARGUMENT = "argument."  # prefix of the path of a tensor that is an argument but not part of the state
_SPARE = 2**24  # parameters allowed beyond those in the file: ResNet18 builds a whole ResNet-18 and then cuts it


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a constructor by name."""
    if cls.__init__ is nn.Module.__init__:  # type: ignore[misc]  # a class without its own
        return {}
    return dict(list(inspect.signature(cls.__init__).parameters.items())[1:])  # type: ignore[misc]


def is_default(value: Any, parameter: inspect.Parameter | None) -> bool:
    """Whether a value is exactly the default, including its type: 1.0 is not 1."""
    default = parameter.default if parameter else inspect.Parameter.empty
    return value is default or (isinstance(value, PLAIN) and type(value) is type(default) and bool(value == default))


class Writer:
    """Encodes one module. ``tensors`` holds its tensors; ``ties`` maps further names of a tensor to its first."""

    def __init__(self, module: nn.Module) -> None:
        state = module.state_dict()
        self.ties: dict[str, str] = {}
        self._keys: dict[int, str] = {}
        for key, tensor in _tensors(module).items():
            if key in state and self._keys.setdefault(id(tensor), key) != key:
                self.ties[key] = self._keys[id(tensor)]
        self.tensors = {key: x for key, x in state.items() if key not in self.ties}
        for key, x in self.tensors.items():
            if not isinstance(x, Tensor):
                raise TypeError(f"the state must hold tensors to be saved, got {type(x).__name__} at {key}")
        self._seen: dict[int, tuple[str, Any]] = {}  # values too: otherwise a new object could reuse a freed id

    def encode(self, value: Any, path: str = "") -> Any:  # noqa: PLR0911
        """``value`` as JSON; ``path`` is the dotted names of the arguments that lead to it."""
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, (list, tuple)):
            items = [self.encode(x, f"{path}.{i}") for i, x in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, (Mapping, nn.ModuleDict)):
            if not all(isinstance(k, str) for k in value):
                raise TypeError(f"{path} must have strings as keys to be saved, got {list(value)}")
            return {"dict": {k: self.encode(x, f"{path}.{k}") for k, x in value.items()}}
        for name, ours in registry().items():
            if type(ours) is type(value) and ours == value:
                return {"object": name}
        if id(value) in self._seen:
            return {"same": self._seen[id(value)][0]}
        self._seen[id(value)] = path, value
        if isinstance(value, Tensor):
            key = self._keys.get(id(value), _ARGUMENT + path)
            self.tensors.setdefault(key, value)
            return {"tensor": key, "parameter": isinstance(value, nn.Parameter)}
        cls = getattr(type(value), "_saved_as", type(value))  # a private class that its public parent chose
        if path and registry().get(cls.__name__) is not cls:
            return {"given": path}
        if registry().get(cls.__name__, cls) is not cls:
            raise TypeError(f"{cls.__name__} must have another name to be saved: symplectic_jepa has one of that name")
        if dataclasses.is_dataclass(value):
            config = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        else:
            config = cls.config(value)  # not value.config: a subclass may use that name for an attribute
        _check_names(cls, config)
        prefix, known = f"{path}." if path else "", parameters(cls)
        changed = {k: x for k, x in config.items() if not is_default(x, known.get(k))}
        return {"class": cls.__name__, "arguments": {k: self.encode(x, prefix + k) for k, x in changed.items()}}


class Reader:
    """Decodes the output of `Writer`, or format 1 if ``old``."""

    def __init__(self, tensors: Mapping[str, Tensor], given: Mapping[str, Any], own: type, *, old: bool) -> None:
        self.used: dict[str, str] = {}  # the path where each given name was used
        self._tensors, self._given, self._own, self._old = tensors, given, own, old
        self._built: dict[str, Any] = {}

    def decode(self, config: Any, path: str = "") -> Any:
        """The value at ``path``.

        Raises:
            TypeError: if an argument that could not be written is missing from ``given`` or ambiguous.
            ValueError: if the configuration cannot be read.
        """
        if isinstance(config, list):
            return [self.decode(x, f"{path}.{i}") for i, x in enumerate(config)]
        if not isinstance(config, dict):
            return config
        try:
            value = self._built[path] = self._decode(config, path)
        except (KeyError, AttributeError, RuntimeError, MemoryError, OverflowError) as error:
            raise ValueError(f"the configuration of {path or 'the module'} cannot be built: {error!r}") from error
        return value

    def find(self, name: Any, path: str = "") -> type:
        """Look up a class of this library by name; at the top level also the caller's own."""
        found = registry().get(name) if isinstance(name, str) else None
        if found is None and not path and self._own.__name__ == name:
            return self._own
        if not isinstance(found, type):
            raise ValueError(f"the configuration names {name!r}, which is not a module of symplectic_jepa")
        return found

    def _decode(self, config: dict[str, Any], path: str) -> Any:  # noqa: PLR0911
        if "tuple" in config:
            return tuple(self.decode(config["tuple"], path))
        if "dict" in config:
            return {k: self.decode(x, f"{path}.{k}") for k, x in config["dict"].items()}
        if "same" in config:
            return self._built[config["same"]]
        if "object" in config:
            return registry()[config["object"]]
        if "tensor" in config:
            tensor = self._tensors[_ARGUMENT + config["tensor"] if self._old else config["tensor"]].clone()
            return nn.Parameter(tensor) if config["parameter"] else tensor
        if "given" in config:
            return self._take(config["given"])
        build: Any = self.find(config["class"], path)
        prefix = f"{path}." if path else ""
        arguments = {k: self.decode(x, prefix + k) for k, x in config["arguments"].items()}
        if self._old and "constructor" in config:
            if config["constructor"] != "resnet18" or not hasattr(build, "resnet18"):
                raise ValueError(f"the configuration names {config['constructor']!r}, which is not a constructor")
            return build.resnet18(**arguments)
        if self._old and "backward" in arguments and "reverse_time" in parameters(build):
            arguments["reverse_time"] = arguments.pop("backward") == "reverse"
        _check_names(build, arguments)
        return build(**arguments)

    def _take(self, path: str) -> Any:
        name = path if path in self._given else path.rpartition(".")[2]
        if name not in self._given:
            raise TypeError(f"from_pretrained needs {name}=…: this argument ({path}) could not be written")
        if name in self.used:
            raise TypeError(f"{name}=… is needed at {self.used[name]} and at {path}: pass each by its full path")
        self.used[name] = path
        return self._given[name]


def load(module: nn.Module, tensors: Mapping[str, Tensor], ties: Mapping[str, str], *, old: bool) -> None:
    """Copy the state into the module's tensors, which take on its dtypes, and restore ties between tensors.

    Raises:
        ValueError: if weights are missing, unknown or of another shape, or a tie names none of them.
    """
    try:
        _load(module, tensors, ties, old=old)
    except (RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"weights and ties must fit the settings: {error}") from error


def _load(module: nn.Module, tensors: Mapping[str, Tensor], ties: Mapping[str, str], *, old: bool) -> None:
    known = module.state_dict().keys()
    state = {k: x for k, x in tensors.items() if k in known or not k.startswith(_ARGUMENT)}
    for key, first in ties.items():
        state[key] = state[first]
        (owner, _, name), (source, _, source_name) = key.rpartition("."), first.rpartition(".")
        setattr(module.get_submodule(owner), name, getattr(module.get_submodule(source), source_name))
    if old:
        state = {next((k for k in (key, *_new_keys(key)) if k in known), key): x for key, x in state.items()}
    for key, tensor in _tensors(module).items():
        owner, _, name = key.rpartition(".")
        if key in state and name not in getattr(module.get_submodule(owner), "_exact", ()):
            tensor.data = tensor.data.to(state[key].dtype)
    module.load_state_dict(state)


def _new_keys(key: str) -> tuple[str, ...]:
    """Possible current names of a format 1 key: prediction losses and matrix geometries are modules now."""
    return f"prediction.{key}", f"{key}.matrix", f"prediction.{key}.matrix"


@contextmanager
def bounded(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse to build more parameters than the file holds, because sizes in a file could exhaust the memory."""
    left = sum(x.numel() for x in tensors.values()) + _SPARE

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.numel()
        if left < 0:
            raise ValueError(f"the settings ask for more parameters than the file holds, at {type(module).__name__}")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


@functools.cache
def registry() -> dict[str, Any]:
    """Everything a configuration may name: modules of the package and its namespaces, and the integrators."""
    import symplectic_jepa  # noqa: PLC0415  (all others import this module)

    spaces = [vars(x) for x in vars(symplectic_jepa).values() if inspect.ismodule(x)]
    public = {k: x for space in spaces for k, x in space.items() if not k.startswith("_")}
    integrators = {k: x for k, x in vars(symplectic_jepa.integrators).items() if k in public}
    named = {k for k, x in integrators.items() if dataclasses.is_dataclass(x) or inspect.isfunction(x)}
    named |= {k for k, x in public.items() if isinstance(x, type) and issubclass(x, nn.Module) and hasattr(x, "config")}
    return {k: public[k] for k in sorted(named)}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, under each of its names."""
    found: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    return found | dict(module.named_buffers(remove_duplicate=False))


def _check_names(cls: type, config: Mapping[str, Any]) -> None:
    """Raise if an argument is unknown to the constructor or a required one is missing."""
    try:
        inspect.signature(cls.__init__).bind(None, **config)  # type: ignore[misc]
    except TypeError as error:
        raise TypeError(f"the settings of {cls.__name__} must be its constructor's arguments: {error}") from None

"""Weights and settings of a module as two plain files: safetensors and JSON, nothing that runs code."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn
from typing_extensions import Self

from symplectic_jepa._version import __version__

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_ARGUMENT = "argument."  # before the name of a tensor that was an argument, in the file of weights
_PLAIN = (bool, int, float, str, type(None))
_Init = TypeVar("_Init", bound=Callable[..., None])


class Pretrained:
    """Mixin of the public modules: ``save_pretrained`` and ``from_pretrained``.

    A module remembers the arguments of its constructor; with the current values of attributes of the same name they are
    its configuration. Modules of this library are written recursively, functions and integrators of it by name, tensors
    beside the weights. What cannot be written, a backbone or a potential of your own, is asked for when loading.

    Examples:
        >>> import tempfile, torch
        >>> from symplectic_jepa import HamiltonianPredictor, SeparableHamiltonian
        >>> from symplectic_jepa.predictors import Predictor
        >>> predictor = HamiltonianPredictor(SeparableHamiltonian(8), steps=4)
        >>> folder = tempfile.mkdtemp()
        >>> predictor.save_pretrained(folder)
        >>> Predictor.from_pretrained(folder).steps
        4
    """

    _constructors: ClassVar[tuple[str, ...]] = ()  # class methods that may build an instance besides the class
    _recorded: tuple[str | None, dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A private class is made inside of forward passes, which torch.compile traces.
        if "__init__" in vars(cls) and not cls.__name__.startswith("_"):
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``model.safetensors`` and ``config.json`` into ``folder``, made if it is not there.

        Each file is replaced as a whole. Counters of random draws are in the weights.

        Raises:
            ImportError: if safetensors is not installed.
        """
        assert isinstance(self, nn.Module)
        to_bytes = _safetensors().save
        tensors: dict[str, Tensor] = {}
        config = {"version": __version__, **_encode(self, "", tensors)}
        text = json.dumps(config, indent=2) + "\n"
        tensors |= self.state_dict()
        # Neither memory that is shared nor strides can be written.
        weights = to_bytes({k: x.detach().cpu().contiguous().clone() for k, x in tensors.items()})
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / WEIGHTS, weights)
        _replace(folder / CONFIG, text.encode())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **given: Any) -> Self:
        """Build what `save_pretrained` wrote, on the CPU, weights in their dtype.

        Args:
            folder: the folder.
            given: arguments that could not be written, by name: ``backbone=…``.

        Raises:
            FileNotFoundError: if one of the two files is not there.
            TypeError: if the folder holds another class, or an argument in ``given`` is missing or not asked for.
            ValueError: if the configuration cannot be read, or names what this library does not have.
            RuntimeError: if weights are missing or do not fit.
            ImportError: if safetensors is not installed.
        """
        path = Path(folder) / CONFIG
        try:
            config = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error
        tensors = _safetensors().load((Path(folder) / WEIGHTS).read_bytes())
        if not isinstance(config, dict) or "class" not in config:
            raise ValueError(f"{path} must hold a 'class' and its 'arguments', got {config!r}")
        built = _public(config["class"], also=cls)
        if not (isinstance(built, type) and issubclass(built, cls)):
            raise TypeError(f"{path} holds a {config['class']}, expected a {cls.__name__}")
        unused = dict(given)
        arguments = {k.removeprefix(_ARGUMENT): tensors.pop(k) for k in list(tensors) if k.startswith(_ARGUMENT)}
        module: Self = _decode(config, arguments, given, unused, cls)
        if unused:
            raise TypeError(f"{path} does not ask for {', '.join(unused)}")
        assert isinstance(module, nn.Module)
        # Assigned, not copied, for the sake of their dtypes.
        module.load_state_dict(tensors, assign=True)
        return module

    def _record(self, constructor: str | None, arguments: dict[str, Any]) -> None:
        object.__setattr__(self, "_recorded", (constructor, arguments))


def _recording(init: _Init) -> _Init:
    """``init``, remembering its arguments; of nested constructors the outermost one counts."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Pretrained, *args: Any, **kwargs: Any) -> None:
        if "_recorded" not in vars(self):
            try:
                bound = signature.bind(self, *args, **kwargs)
            except TypeError:
                pass  # the call itself raises Python's own message
            else:
                bound.apply_defaults()
                arguments = dict(list(bound.arguments.items())[1:])
                for name, parameter in signature.parameters.items():
                    if parameter.kind is parameter.VAR_KEYWORD:
                        arguments |= arguments.pop(name)
                self._record(None, arguments)
        init(self, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:  # noqa: PLR0911
    """``value`` as JSON; tensors go into ``tensors`` under their ``name``, the dotted path of the argument."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        items = [_encode(x, f"{name}.{i}", tensors) for i, x in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, (Mapping, nn.ModuleDict)):
        return {"dict": {k: _encode(x, f"{name}.{k}", tensors) for k, x in value.items()}}
    if isinstance(value, Tensor):
        tensors[_ARGUMENT + name] = value
        return {"tensor": name, "parameter": isinstance(value, nn.Parameter)}
    prefix = f"{name}." if name else ""
    if isinstance(value, Pretrained) and (not name or _is_public(type(value))):
        constructor, arguments = value._recorded
        current = {k: _current(value, k, x) for k, x in arguments.items()}
        config = {
            "class": type(value).__name__,
            "arguments": {k: _encode(x, prefix + k, tensors) for k, x in current.items()},
        }
        return config if constructor is None else {**config, "constructor": constructor}
    if dataclasses.is_dataclass(value) and _is_public(type(value)):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        arguments = {k: _encode(x, prefix + k, tensors) for k, x in fields.items()}
        return {"class": type(value).__name__, "arguments": arguments}
    if _is_public(value):
        return {"object": value.__name__}
    return {"given": name}


def _current(module: Pretrained, name: str, recorded: Any) -> Any:
    """An argument's value today: a setting or a module may have been replaced since."""
    value = getattr(module, name, recorded)
    return value if isinstance(value, (*_PLAIN, nn.Module)) else recorded


def _decode(  # noqa: PLR0911
    config: Any, arguments: Mapping[str, Tensor], given: Mapping[str, Any], unused: dict[str, Any], also: type
) -> Any:
    decode = functools.partial(_decode, arguments=arguments, given=given, unused=unused, also=also)
    if isinstance(config, list):
        return [decode(x) for x in config]
    if not isinstance(config, dict):
        return config
    if "tuple" in config:
        return tuple(decode(x) for x in config["tuple"])
    if "dict" in config:
        return {k: decode(x) for k, x in config["dict"].items()}
    if "tensor" in config:
        tensor = arguments[config["tensor"]]
        return nn.Parameter(tensor) if config["parameter"] else tensor
    if "object" in config:
        return _public(config["object"])
    if "given" in config:
        name = config["given"].rpartition(".")[2]
        if name not in given:
            raise TypeError(f"from_pretrained needs {name}=…: this argument ({config['given']}) could not be written")
        unused.pop(name, None)
        return given[name]
    build = _public(config["class"], also=also)
    if not isinstance(build, type) or not (issubclass(build, Pretrained) or dataclasses.is_dataclass(build)):
        raise ValueError(f"the configuration names {config['class']!r}, which is no module of symplectic_jepa")
    constructor = config.get("constructor")
    if constructor is not None:
        if constructor not in getattr(build, "_constructors", ()):
            raise ValueError(f"the configuration names {build.__name__}.{constructor}, which is no constructor")
        build = getattr(build, constructor)
    return build(**{k: decode(x) for k, x in config["arguments"].items()})


def _public(name: str, *, also: type | None = None) -> Any:
    """The public object of the library by its name, and nothing else; ``also``: the caller's own class."""
    import symplectic_jepa  # noqa: PLC0415  (this module lies beneath all others)

    if also is not None and also.__name__ == name:
        return also
    value = None if name.startswith("_") else _everything(symplectic_jepa).get(name)
    if value is None or inspect.ismodule(value):
        raise ValueError(f"the configuration names {name!r}, which symplectic_jepa {__version__} does not have")
    return value


def _is_public(value: Any) -> bool:
    import symplectic_jepa  # noqa: PLC0415

    return _everything(symplectic_jepa).get(getattr(value, "__name__", "")) is value


def _everything(package: Any) -> dict[str, Any]:
    """Public names of the package and of its namespaces."""
    spaces = [vars(x) for x in vars(package).values() if inspect.ismodule(x) and x.__name__.count(".") == 1]
    return {name: value for space in [*spaces, vars(package)] for name, value in space.items()}


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that there is always the old or the new one, whole."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _safetensors() -> Any:
    try:
        import safetensors.torch  # noqa: PLC0415
    except ImportError as error:
        raise ImportError('weights need safetensors: pip install "symplectic-jepa[weights]"') from error
    return safetensors.torch

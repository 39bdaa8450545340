"""FSDP2 units that are not called through ``forward``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn


class Gathering:
    """Mixin for modules whose methods in `_gathers` read weights: as a unit of FSDP2, each gathers them first.

    FSDP2 itself does so only before ``forward``. ``fully_shard`` turns a module into an instance of a new subclass of
    its class; only that subclass is changed here, so that any other module runs without a detour.
    """

    _gathers: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if _is_unit(cls):
            for name in cls._gathers:
                if hasattr(cls, name):
                    setattr(cls, name, _gathering(name, getattr(cls, name)))


def sharded(x: object) -> bool:
    """Whether a tensor is a DTensor; its class is not imported, as not every torch build has it."""
    return hasattr(type(x), "full_tensor")


def scattered(module: nn.Module) -> tuple[str, Tensor] | None:
    """The first sharded parameter, with its name, that no unit inside ``module`` will gather; ``None`` if all are."""
    for name, x in module.named_parameters(recurse=False):
        if sharded(x):
            return name, x
    for name, child in module.named_children():
        if not (_is_unit(type(child)) and isinstance(child, Gathering)) and (found := scattered(child)) is not None:
            return f"{name}.{found[0]}", found[1]
    return None


def _is_unit(cls: type) -> bool:
    return any(base.__name__ == "FSDPModule" for base in cls.__mro__)


def _gathering(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapped(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if name in vars(self):  # registered, so that the weights are gathered by now
            return method(self, *args, **kwargs)
        from torch.distributed.fsdp import register_fsdp_forward_method  # noqa: PLC0415 (slow, and only needed here)

        register_fsdp_forward_method(self, name)
        return getattr(self, name)(*args, **kwargs)

    return wrapped

"""What regularizers and objectives share: the ranks whose samples form one batch, and what these must agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from symplectic_jepa import _agreement, _codec
from symplectic_jepa._precision import ExactBuffers
from symplectic_jepa.distributed import Group as Group
from symplectic_jepa.distributed import Ranks
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.regularizers.draws import Schedule

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# The ranks of the objective that is calling a user's module: they hold for our regularizers inside it, too. Not written
# into these, because the module is the user's.
imposed: list[Ranks] = []


class Ranked:
    """Mixin for modules with ``sync`` and ``process_group`` arguments, which are stored in ``ranks``."""

    ranks: Ranks
    training: bool

    def __init__(self, *, sync: bool = True, process_group: Group = None) -> None:
        super().__init__()
        self.ranks = Ranks.of(sync, process_group)
        self._join()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._join()  # a copy may get other settings

    def _join(self) -> None:
        self.ranks = Ranks(self.ranks.sync, self.ranks.group, _agreement.join(self))

    @property
    def batch_ranks(self) -> Ranks:
        """The ranks that share the batch in the current mode: in eval mode this one alone, so that it may be alone."""
        if not self.training:
            return Ranks(sync=False)
        if imposed:
            return imposed[-1]
        if not self.ranks.shared:
            return self.ranks
        assert isinstance(self, nn.Module)
        counters = [module.step for module in self.modules() if isinstance(module, Schedule)]
        return Ranks(self.ranks.sync, self.ranks.group, self.ranks.member, tuple(counters))

    @property
    def sync(self) -> bool:
        """Whether statistics are computed over the samples of all ranks in train mode."""
        return self.ranks.sync

    @property
    def process_group(self) -> ProcessGroup | None:
        """The ranks that share the batch; ``None`` for all of them."""
        return self.ranks.process_group

    def facts(self) -> dict[str, Any]:
        """What must be equal on all ranks: the settings of our modules in here, and the order of the penalties."""
        assert isinstance(self, nn.Module)
        facts: dict[str, Any] = {}
        for path, module in self.named_modules():
            prefix = f"{path}." if path else ""
            if isinstance(module, (Pretrained, Schedule)):
                facts[path or "loss"] = type(module).__name__
                facts.update({prefix + name: x for name, x in _settings(module).items()})
            if isinstance(module, ExactBuffers):
                exact = {prefix + name: module._buffers.get(name) for name in module._exact}
                facts.update({name: x.item() for name, x in exact.items() if x is not None and x.numel() == 1})
            if isinstance(module, nn.ModuleDict):
                facts[path] = tuple(module)
        return facts


def _settings(module: Any) -> dict[str, Any]:
    """Plain settings by name, without those that an objective overrides."""
    try:
        config: Mapping[str, Any] = type(module).config(module)
    except TypeError:  # a user's class that cannot be saved
        return {}
    overridden = ("sync", "process_group")
    return {name: x for name, x in config.items() if isinstance(x, (*_codec.PLAIN, tuple)) and name not in overridden}

"""Do the ranks that share a batch compute the same loss? Settings are compared once, random draws at every step.

Every rank holds the same sums, so all of them find the same loss, but only with the same settings and draws. A
difference shows nowhere: sums of different statistics are added, or every rank follows the gradient of another loss.

- At a module's first collective, the ranks exchange one digest of its settings, its counters and the lengths of its
  statistics. Only if the digests differ, and every rank sees that, do they exchange the settings themselves.
- Later the counters can still part, for instance when one rank alone loads a checkpoint. So every all-reduce carries
  one number more, a digest ``d`` of them: they agree if and only if its sum over ``W`` ranks is ``W d``.
"""

from __future__ import annotations

import itertools
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

import torch
import torch.distributed as dist
from torch import Tensor


class Member(Protocol):
    """A module whose settings are compared."""

    def facts(self) -> dict[str, Any]:
        """What must be equal on all ranks, by name."""


SHOWN = 3  # differences named in an error, per rank; the first ones explain the others

# A compiled graph can hold a number, but not a module.
_members: WeakValueDictionary[int, Member] = WeakValueDictionary()
_numbers = itertools.count(1)
_agreed: set[tuple[int, int]] = set()
# What a GPU found: whether counters differ, and the event after which that is known.
_unread: dict[int, tuple[Tensor, Any]] = {}


def join(member: Member) -> int:
    """The number of a new module, by which a `Comparison` finds it."""
    number = next(_numbers)
    _members[number] = member
    return number


class Comparison(NamedTuple):
    """One all-reduce of a module's statistics: around it, `before` and `after` compare the ranks of its group."""

    member: int
    lengths: list[int]
    counters: list[int]
    group: Any

    def before(self, device: torch.device) -> None:
        """Compare everything at the module's first all-reduce of this kind; an MMD gives an objective a second kind.

        Raises:
            RuntimeError: on every rank, if they differ; on a GPU also if `after` found a difference at the last step.
        """
        if self.member in _unread and not torch.cuda.is_current_stream_capturing():
            differ, known = _unread.pop(self.member)
            known.synchronize()
            if differ:
                raise self._disagreement()
        kind = self.member, len(self.lengths)
        if kind in _agreed:
            return
        mine = torch.tensor([_digest(self._facts())], device=device)
        digests = [torch.empty_like(mine) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(digests, mine, group=self.group)
        if len(set(torch.cat(digests).tolist())) > 1:
            raise self._disagreement()
        _agreed.add(kind)

    @property
    def digest(self) -> int:
        """What this rank adds to the all-reduce."""
        return _digest(self.counters)

    def after(self, total: Tensor) -> Tensor:
        """Compare the counters: ``total`` without its last number, the sum of the ranks' digests.

        A CPU knows the sum. To wait for a GPU at every step would cost more than the step's collective, so there the
        sums become NaN without waiting, and `before` raises the error at the next step; a captured graph cannot.

        Raises:
            RuntimeError: on every rank, if they differ; not on a GPU.
        """
        differ = total[-1] != self.digest * dist.get_world_size(self.group)
        if not total.is_cuda:
            if differ:
                raise self._disagreement()
            return total[:-1]
        total.masked_fill_(differ, torch.nan)
        if not torch.cuda.is_current_stream_capturing():
            known: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            _unread[self.member] = differ.to("cpu", non_blocking=True), known
            known.record()
        return total[:-1]

    def _facts(self) -> dict[str, Any]:
        module = _members.get(self.member)
        return {
            **({} if module is None else module.facts()),
            "lengths of the statistics": tuple(self.lengths),
            "counters of random draws": tuple(self.counters),
        }

    def _disagreement(self) -> RuntimeError:
        """The error that names what differs; a collective."""
        everyone: list[Any] = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(everyone, self._facts(), group=self.group)
        ranks = dist.get_process_group_ranks(self.group or dist.group.WORLD)
        usual = max(everyone, key=everyone.count)
        first = ranks[everyone.index(usual)]
        shown = "\n  ".join(
            f"rank {rank}: {item}, but {other} on rank {first}"
            for rank, facts in zip(ranks, everyone, strict=True)
            for item, other in _differences(facts, usual)[:SHOWN]
        )
        return RuntimeError(
            "all ranks of a group must compute the same loss: the same settings, penalties in the same order, and the "
            f"same counters of random draws (load a checkpoint on every rank), got\n  {shown}"
        )


def _digest(facts: object) -> int:
    """40 bits, so that their sum over up to 8,192 ranks is exact in float64."""
    return int.from_bytes(blake2b(repr(facts).encode(), digest_size=5).digest(), "big")


def _differences(facts: dict[str, Any], usual: dict[str, Any]) -> list[tuple[str, str]]:
    """``name = value`` here, and the value there, of everything that differs."""
    names = [name for name in {**usual, **facts} if facts.get(name, "absent") != usual.get(name, "absent")]
    if not names and list(facts) != list(usual):
        return [("order of the settings", "another")]
    return [(f"{name} = {facts.get(name, 'absent')}", str(usual.get(name, "absent"))) for name in names]

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
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol
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
_unread: dict[
    int, tuple[Tensor, Any]
] = {}  # of a GPU: whether counters differ, and the event after which that is known


def join(member: Member) -> int:
    """The number of a new module, by which `before` and `after` find it."""
    number = next(_numbers)
    _members[number] = member
    return number


def before(member: int, lengths: Sequence[int], group: Any, device: torch.device) -> None:
    """Compare settings at a module's first collective of this kind; an MMD gives an objective a second kind.

    Raises:
        RuntimeError: on every rank, if they differ; on a GPU also if `after` found a difference at the last step.
    """
    if (known := _unread.pop(member, None)) is not None and not torch.cuda.is_current_stream_capturing():
        known[1].synchronize()
        if known[0]:
            raise _disagreement(member, lengths, group)
    if (member, len(lengths)) in _agreed:
        return
    mine = torch.tensor([digest(_facts(member, lengths))], device=device)
    digests = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(digests, mine, group=group)
    if len(set(torch.cat(digests).tolist())) > 1:
        raise _disagreement(member, lengths, group)
    _agreed.add((member, len(lengths)))


def after(member: int, lengths: Sequence[int], group: Any, total: Tensor, own: int) -> Tensor:
    """Compare the counters: ``total`` without its last number, the sum of the ranks' digests.

    A CPU knows the sum. To wait for a GPU at every step would cost more than the step's collective, so there the sums
    become NaN without waiting, and `before` raises the error at the next step. A captured graph only does the former.

    Raises:
        RuntimeError: on every rank, if they differ; not on a GPU.
    """
    differ = total[-1] != own * dist.get_world_size(group)
    if not total.is_cuda:
        if differ:
            raise _disagreement(member, lengths, group)
        return total[:-1]
    total.masked_fill_(differ, torch.nan)
    if not torch.cuda.is_current_stream_capturing():
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        _unread[member] = differ.to("cpu", non_blocking=True), event
        event.record()
    return total[:-1]


def digest(facts: object) -> int:
    """40 bits, so that their sum over up to 8,192 ranks is exact in float64."""
    return int.from_bytes(blake2b(repr(facts).encode(), digest_size=5).digest(), "big")


def _facts(member: int, lengths: Sequence[int]) -> dict[str, Any]:
    module = _members.get(member)
    return {**(module.facts() if module is not None else {}), "lengths of the statistics": tuple(lengths)}


def _disagreement(member: int, lengths: Sequence[int], group: Any) -> RuntimeError:
    """The error that names what differs; a collective."""
    everyone: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everyone, _facts(member, lengths), group=group)
    ranks = dist.get_process_group_ranks(group)
    usual = max(everyone, key=everyone.count)
    first = ranks[everyone.index(usual)]
    lines = [
        f"rank {rank}: {item}, but {other} on rank {first}"
        for rank, facts in zip(ranks, everyone, strict=True)
        for item, other in _differences(facts, usual)[:SHOWN]
    ]
    shown = "\n  ".join(lines)
    return RuntimeError(
        "all ranks of a group must compute the same loss: the same settings, penalties in the same order, and the same "
        f"counters of random draws (load a checkpoint on every rank), got\n  {shown}"
    )


def _differences(facts: dict[str, Any], usual: dict[str, Any]) -> list[tuple[str, str]]:
    """``name = value`` here, and the value there, of everything that differs."""
    names = [name for name in {**usual, **facts} if facts.get(name, "absent") != usual.get(name, "absent")]
    if not names and list(facts) != list(usual):
        return [("order of the settings", "another")]
    return [(f"{name} = {facts.get(name, 'absent')}", str(usual.get(name, "absent"))) for name in names]

"""A callable with valid arguments."""

from typing import Any, NamedTuple

import torch

D = 4  # of q and of p
torch.manual_seed(0)
Q, P, CONTROL = torch.randn(5, D), torch.randn(5, D), torch.randn(5, 2)
Z = torch.cat((Q, P), -1)
X = torch.randn(6, 2 * D)
VIEWS = torch.randn(2, 6, 2 * D)
SPD = torch.diag(torch.arange(1.0, D + 1)).double()


class Call(NamedTuple):
    """A callable, and its arguments by name: ``(valid value, kind)``; a kind ``None`` has no bad values."""

    function: Any
    arguments: dict[str, tuple[Any, Any]]


def call(function, /, **arguments):
    return Call(function, arguments)


def by_name(function, name):
    """``function`` with its positional-only first argument by name."""
    return lambda **given: function(given.pop(name), **given)

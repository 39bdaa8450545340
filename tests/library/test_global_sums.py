"""The global sum without other processes: what travels. With them: tests/distributed."""

import pytest
import torch
import torch.distributed as dist

from symplectic_jepa.distributed import Ranks


@pytest.mark.parametrize("order", [1, -1])
def test_a_mixed_sum_keeps_the_digits_of_the_widest(order, monkeypatch):
    """Two ranks with the same numbers: everything doubles, and nothing is rounded to the dtype of its neighbour."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda x, **_: x.mul_(2))
    local = [torch.full((3,), 0.1), torch.full((2, 1), 1 + 2.0**-40, dtype=torch.float64)][::order]
    for total, mine in zip(Ranks().sum(local), local, strict=True):
        assert total.dtype == mine.dtype
        assert torch.equal(total, 2 * mine)

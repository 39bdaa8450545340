"""The global sum without other processes: what travels, and what does not. With them: tests/distributed."""

import pytest
import torch

from symplectic_jepa import EnergyBudget, distributed
from symplectic_jepa.distributed import global_sums, world_size


def test_without_a_process_group_nothing_is_reduced():
    assert world_size() == 1
    x = [torch.ones(3), torch.zeros(())]
    assert all(a is b for a, b in zip(global_sums(x), x, strict=True))
    assert EnergyBudget(sync=False)(torch.ones(4, 2)) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_mixed_sum_keeps_the_digits_of_the_widest(order, monkeypatch):
    """Two ranks with the same numbers: everything doubles, and nothing is rounded to the dtype of its neighbour."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda x: x.mul_(2))
    local = [torch.full((3,), 0.1), torch.full((2, 1), 1 + 2.0**-40, dtype=torch.float64)][::order]
    for total, mine in zip(global_sums(local), local, strict=True):
        assert total.dtype == mine.dtype
        assert torch.equal(total, 2 * mine)

"""Random matrices as a function of seed and step."""

import itertools

import torch

from symplectic_jepa.regularizers import unit_directions
from symplectic_jepa.regularizers.draws import Schedule


def drawn(seed, steps):
    schedule = Schedule("unit_directions", seed=seed, every=1)
    return [schedule(5, 3, dtype=torch.float64, device=torch.device("cpu")) for _ in range(steps)]


def test_streams_of_neighbouring_seeds_do_not_meet():
    """With ``seed + step`` seed 1 would begin where seed 0 is a step later."""
    matrices = [matrix for seed in range(4) for matrix in drawn(seed, 4)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(matrices, 2))


def test_a_matrix_is_the_same_in_every_release():
    generator = torch.Generator().manual_seed((3 * 0x9E3779B97F4A7C15 + 2) % 2**63)
    assert torch.equal(drawn(3, 3)[2], unit_directions(5, 3, generator, torch.float64))

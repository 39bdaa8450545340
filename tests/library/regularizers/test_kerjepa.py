"""The closed forms of KerJEPA's discrepancies against Monte Carlo, and their sums in parts."""

import math

import numpy as np
import pytest
import torch

from symplectic_jepa import MMD, SIGReg, SlicedMMD, VICReg
from symplectic_jepa.regularizers import pairs
from tests.helpers.memory import Largest
from tests.helpers.samples import directions, samples

D = 12
A = directions(D, 5)


@pytest.mark.parametrize(("dim", "sigma"), [(1, 1.0), (3, 0.7), (12, 3.5)])
def test_closed_form_mmd_equals_monte_carlo(dim, sigma):
    """Both expectations over a large sample of N(0, I), within five of its standard errors."""
    x, m = samples(10, dim).numpy(), 200_000
    rng = np.random.default_rng(0)
    g, h = rng.standard_normal((2, m, dim))
    within = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / (2 * sigma**2)).mean()
    crossing = np.mean([np.exp(-((row - g) ** 2).sum(-1) / (2 * sigma**2)) for row in x], axis=0)
    draws = within - 2 * crossing + np.exp(-((g - h) ** 2).sum(-1) / (2 * sigma**2))
    error = draws.std() / math.sqrt(m)
    assert error < 5e-3
    assert abs(MMD(bandwidth=sigma)(torch.from_numpy(x)).item() - draws.mean()) < 5 * error


def test_mmd_of_simple_laws():
    # A point at 0: 1 − 2 (σ²/(σ²+1))^{D/2} + (σ²/(σ²+2))^{D/2}.
    for dim, s2 in ((1, 1.0), (4, 2.0), (2048, 2048.0)):
        expected = 1 - 2 * (s2 / (s2 + 1)) ** (dim / 2) + (s2 / (s2 + 2)) ** (dim / 2)
        got = MMD(bandwidth=math.sqrt(s2))(torch.zeros(5, dim, dtype=torch.float64)).item()
        assert got == pytest.approx(expected, rel=1e-9)
    # N(0, I): the V-statistic has mean (1 − E k(g, g'))/N.
    x = torch.randn(64, 200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.stack([MMD(bandwidth=1.0)(part) for part in x])
    expected = (1 - (1 / 3) ** 1.5) / 200
    assert abs(values.mean().item() - expected) < 5 * values.std().item() / 8
    # Gaussian features beat all others.
    g = x.flatten(0, 1)[:1000]
    for other in (0.5 * g, g + 1, g.sign(), g.exp()):
        assert MMD()(other) > 10 * MMD()(g)
        assert SlicedMMD(slices=8)(other) > 10 * SlicedMMD(slices=8)(g)


def test_sliced_mmd_is_the_integral_that_sigreg_approximates():
    x = samples(40, D)
    fine = SIGReg(knots=200, t_max=8.0)(x, directions=A).item()
    assert fine == pytest.approx(40 * math.sqrt(2 * math.pi) * SlicedMMD()(x, directions=A).item(), rel=1e-6)


@pytest.mark.parametrize("entries", [3 * 81, 2 * 9])  # several slices at once, and two rows of one
def test_slices_in_chunks_give_the_same(monkeypatch, entries):
    x = samples(2, 9, D).requires_grad_()
    whole = SlicedMMD()(x, directions=A)
    (grad,) = torch.autograd.grad(whole, x)
    monkeypatch.setattr(pairs, "_ENTRIES", entries)
    parts = SlicedMMD()(x, directions=A)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, x)[0], grad)


@pytest.mark.parametrize(
    ("make", "dim"), [(MMD, 10), (lambda: SlicedMMD(slices=3), 10), (VICReg, 320)], ids=["MMD", "SlicedMMD", "VICReg"]
)
def test_pairs_are_held_in_blocks(monkeypatch, make, dim):
    """No tensor has N² elements, or D²; value and gradient are those of all pairs at once, in float64."""
    n = 300  # fewer than the coordinates of VICReg, so that it takes pairs too
    x = samples(n, dim).requires_grad_()
    expected = make()(x)
    (grad,) = torch.autograd.grad(expected, x)
    monkeypatch.setattr(pairs, "_ENTRIES", 4 * n)
    with Largest() as largest:
        value = make()(x)
        (got,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(got, grad)
    assert largest.numel == x.numel() < max(n, dim) ** 2
    monkeypatch.setattr(pairs, "_ENTRIES", 2**24)
    with Largest() as whole:
        make()(x)
    assert whole.numel >= min(n * n, x.numel())  # the measure would notice

"""Spectrum, cosines, norms, alignment and uniformity against their formulas in numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from symplectic_jepa.evaluation import (
    alignment,
    effective_rank,
    feature_norms,
    geometry,
    pair_cosines,
    spectrum,
    uniformity,
)
from tests.helpers.memory import Largest
from tests.helpers.samples import samples


@pytest.mark.parametrize(("n", "dim"), [(300, 20), (40, 40), (41, 40), (25, 60), (2, 5), (9, 1)])
def test_spectrum_equals_numpy_on_both_branches(n, dim):
    x = samples(n, dim)
    expected = np.linalg.eigvalsh(np.cov(x.numpy(), rowvar=False).reshape(dim, dim))[::-1]
    found = spectrum(x).eigenvalues
    assert found.shape == (dim,)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_rank_proxies_are_over_the_retained_eigenvalues():
    x = samples(400, 30)
    full = np.linalg.eigvalsh(np.cov(x.numpy(), rowvar=False))[::-1]
    for top in (1, 7, 30, 256):
        kept = full[:top]
        p = kept / kept.sum()
        result = spectrum(x, top=top)
        assert len(result.eigenvalues) == min(top, 30)
        assert result.effective_rank == pytest.approx(np.exp(-np.sum(p * np.log(p))))
        assert result.participation_ratio == pytest.approx(kept.sum() ** 2 / np.sum(kept**2))


def test_spectrum_reads_a_random_subset_given_by_the_seed():
    x = samples(500, 6)
    first, again, other = (spectrum(x, samples=50, seed=seed).eigenvalues for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    ordered = x.sort(dim=0).values  # the first 50 rows of a sorted table have almost no variance
    assert spectrum(ordered, samples=50).eigenvalues[0] > 0.3 * spectrum(ordered).eigenvalues[0]
    assert torch.equal(spectrum(x, samples=500).eigenvalues, spectrum(x, samples=9999).eigenvalues)
    state = torch.get_rng_state()
    spectrum(x, samples=50)
    assert torch.equal(torch.get_rng_state(), state)


def test_spectrum_is_computed_in_float64_for_any_input():
    x = samples(200, 8).bfloat16() + 100.0  # a mean that float16 sums could not hold
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        found = spectrum(x).eigenvalues
    expected = np.linalg.eigvalsh(np.cov(x.double().numpy(), rowvar=False))[::-1]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_isotropic_spectrum_has_rank_d_and_one_direction_rank_one():
    axes = torch.eye(12, dtype=torch.float64)
    isotropic = spectrum(torch.cat((axes, -axes)) + 3.0)
    assert isotropic[1:] == pytest.approx((12.0, 12.0))
    line = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1) * torch.ones(12, dtype=torch.float64)
    assert spectrum(line)[1:] == pytest.approx((1.0, 1.0))
    assert effective_rank(torch.tensor([0.0, 5.0, 0.0])) == 1.0
    assert effective_rank(torch.ones(7)).item() == pytest.approx(7.0)


def test_collapsed_features_have_rank_zero_not_nan():
    assert spectrum(torch.full((20, 4), 0.1))[1:] == (0.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8), st.floats(1e-3, 1e3))
def test_effective_rank_is_bounded_and_scale_free(values, scale):
    eigenvalues = torch.tensor(values, dtype=torch.float64)
    rank = effective_rank(eigenvalues)
    assert 1.0 - 1e-9 <= rank <= len(values) + 1e-9
    torch.testing.assert_close(effective_rank(scale * eigenvalues), rank)
    torch.testing.assert_close(effective_rank(torch.stack((eigenvalues, eigenvalues)))[1], rank)


def test_pair_cosines_are_those_of_different_rows_uncentred():
    x = samples(4, 3)
    u = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
    possible = np.sort((u @ u.T)[np.triu_indices(4, 1)])
    found = pair_cosines(x, pairs=3000).numpy()
    assert found.shape == (3000,)
    nearest = possible[np.abs(found[:, None] - possible).argmin(1)]
    np.testing.assert_allclose(found, nearest, atol=1e-12)  # never 1, the cosine of a row with itself
    counts = np.array([(nearest == value).sum() for value in possible])
    assert (np.abs(counts - 500) < 5 * math.sqrt(500 * 5 / 6)).all()  # all six pairs equally often
    assert np.array_equal(pair_cosines(x, pairs=3000), found)
    assert not np.array_equal(pair_cosines(x, pairs=3000, seed=1), found)
    assert pair_cosines(x.half()).dtype == torch.float32


def test_feature_norms():
    x = samples(2 * 15, 4).reshape(2, 15, 4)
    np.testing.assert_allclose(feature_norms(x).numpy(), np.linalg.norm(x.numpy(), axis=-1))
    large = feature_norms(torch.full((3, 100), 60000.0, dtype=torch.float16))  # overflows in float16
    torch.testing.assert_close(large, torch.full((3,), 600000.0), rtol=1e-3, atol=0.0)


def test_alignment_equals_the_formula():
    a, b = samples(60, 7, seed=1), samples(60, 7, seed=2)
    ua, ub = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (a, b))
    assert alignment(a, b).item() == pytest.approx(np.mean(np.sum((ua - ub) ** 2, axis=1)))
    assert alignment(a, 5.0 * a).item() == pytest.approx(0.0, abs=1e-12)
    assert alignment(a, -a).item() == pytest.approx(4.0)


@pytest.mark.parametrize("t", [0.5, 2.0])
@pytest.mark.parametrize("n", [2, 33, 1024, 1025, 2100])
def test_uniformity_equals_the_formula_across_chunks(n, t):
    x = samples(n, 5)
    u = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
    i, j = np.triu_indices(n, 1)
    expected = np.log(np.mean(np.exp(-t * np.sum((u[i] - u[j]) ** 2, axis=1))))
    assert uniformity(x, t=t).item() == pytest.approx(expected, rel=1e-9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert uniformity(x.float(), t=t).item() == pytest.approx(expected, rel=1e-4)


def test_uniformity_holds_a_block_of_distances(monkeypatch):
    x = samples(500, 3)
    expected = uniformity(x)
    monkeypatch.setattr(geometry, "_PAIRS", 5000)
    with Largest() as largest:
        torch.testing.assert_close(uniformity(x), expected)
    assert largest.numel <= 5000


def test_uniformity_of_known_configurations():
    assert uniformity(torch.ones(10, 3)).item() == pytest.approx(0.0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])).item() == pytest.approx(-8.0)
    sharp = uniformity(torch.tensor([[1.0, 0.0], [-2.0, 0.0]], dtype=torch.float64), t=1e4)
    assert sharp.item() == pytest.approx(-4e4)  # exp(-4e4) itself would underflow


def test_errors_name_the_argument():
    x = torch.randn(6, 3)
    cases = [
        (lambda: spectrum(x[:1]), "features"),
        (lambda: spectrum(x, samples=1), "samples must be an int >= 2, got 1"),
        (lambda: spectrum(x, top=0), "top"),
        (lambda: effective_rank(torch.ones(0)), "eigenvalues"),
        (lambda: pair_cosines(x[:1]), "features"),
        (lambda: pair_cosines(x, pairs=0), "pairs"),
        (lambda: alignment(x, x[:5]), r"got \(6, 3\) and \(5, 3\)"),
        (lambda: uniformity(x[:1]), "z must"),
        (lambda: uniformity(x, t=0.0), "t must be a finite number > 0"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="features must be a floating-point"):
        feature_norms(x.long())

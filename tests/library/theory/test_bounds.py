"""Bounds A.13 to A.15 against the eigenvalues of random covariances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from symplectic_jepa import SpectralFloors, theory
from symplectic_jepa.regularizers import log_det_per_dim, participation_ratio
from tests.helpers.oracles import close
from tests.helpers.samples import orthonormal


def with_spectrum(values, seed):
    """A covariance with these eigenvalues, on random axes."""
    values = torch.tensor(values, dtype=torch.float64)
    basis = orthonormal(len(values), len(values), seed)
    return (basis * values) @ basis.T


spectra = st.one_of(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12),
    st.builds(lambda least, k: [least] + [1.0] * k, st.floats(1e-4, 1.0), st.integers(1, 11)),  # where A.13 is tight
    st.builds(lambda top, k: [top] + [1.0] * k, st.floats(1.0, 1e4), st.integers(1, 11)),  # where A.14 is tight
)


@settings(max_examples=200, deadline=None)
@given(spectrum=spectra, seed=st.integers(0, 99), give=st.floats(0, 1))
def test_met_floors_bound_the_eigenvalues(spectrum, seed, give):
    """What the floors are told is what the bounds are told: the statistics of the covariance, or less."""
    cov, k = with_spectrum(spectrum, seed), len(spectrum)
    least, most = torch.linalg.eigvalsh(cov)[[0, -1]]
    ratio = participation_ratio(cov).clamp(1, k).item()
    log_det, participation = log_det_per_dim(cov).item() - give, max(1.0, ratio * (1 - give))
    floors = SpectralFloors(log_det=log_det, participation=participation / k)
    assert floors.penalty(cov).value.item() == pytest.approx(0, abs=1e-20)
    trace, slack = cov.trace(), 1 + 1e-8
    assert theory.min_eigenvalue_bound(log_det, trace, k) <= least * slack
    assert theory.min_eigenvalue_bound(log_det, trace, k, participation) <= least * slack
    assert theory.max_eigenvalue_bound(trace, participation) >= most / slack
    assert theory.condition_number_bound(log_det, trace, k, participation) >= most / least / slack


def test_bounds_as_printed():
    k, tau, log_det, pr = 5, 4.0, -0.7, 2.3
    close(theory.min_eigenvalue_bound(log_det, tau, k), math.exp(k * log_det) * (4 / tau) ** 4)
    least = math.exp(k * log_det) * (math.sqrt(pr) / tau) ** 4
    close(theory.min_eigenvalue_bound(log_det, tau, k, pr), least)
    close(theory.max_eigenvalue_bound(tau, pr), tau / math.sqrt(pr))
    close(theory.condition_number_bound(log_det, tau, k, pr), tau / math.sqrt(pr) / least)
    close(theory.min_eigenvalue_bound(log_det, tau, 1), math.exp(log_det))


def test_bounds_are_tight():
    k, small = 6, 1e-7
    spectrum = np.array([small] + [1.0] * (k - 1))  # A.13: equality up to the least eigenvalue's share of the trace
    bound = theory.min_eigenvalue_bound(np.log(spectrum).mean(), spectrum.sum(), k)
    close(bound, small, rtol=1e-6, atol=0)
    for k in (10, 1000, 100_000):  # A.14: one spike over a flat rest, PR = r = 4: λ_max approaches τ/√r = 1/2
        top = (1 + math.sqrt((k - 1) * (k / 4 - 1))) / k
        rest = (1 - top) / (k - 1)
        close(1 / (top**2 + (k - 1) * rest**2), 4.0)
        assert 0 <= theory.max_eigenvalue_bound(1.0, 4.0) - top < 1 / k**0.5
    assert theory.max_eigenvalue_bound(1.0, 1.0) == 1.0  # rank 1: equality
    # k = 2 and a flat spectrum: A.14 and A.15 leave a factor √2 and 2.
    close(theory.condition_number_bound(0.0, 2.0, 2, 2.0), 2.0)


def test_a13_is_sharper_than_a14_from_three_dimensions():
    for k in (3, 8, 128):
        for pr in (1.0, k / 2, float(k)):
            plain = theory.min_eigenvalue_bound(-1.5, 1.0 * k, k)
            assert theory.min_eigenvalue_bound(-1.5, 1.0 * k, k, pr) <= plain

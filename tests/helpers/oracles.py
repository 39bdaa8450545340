"""Textbook formulas in numpy and scipy that more than one file compares with."""

import numpy as np
import scipy.optimize
import torch
from scipy import integrate


def close(actual, expected, **tolerance):
    actual, expected = (torch.as_tensor(x, dtype=torch.float64) for x in (actual, expected))
    torch.testing.assert_close(actual, expected, **({"rtol": 1e-9, "atol": 1e-9} | tolerance))


def brute_worst_case(H, cov):
    """The largest ``wᵀΣw`` with ``wᵀH⁻¹w ≤ 1``, by ascent on the Rayleigh quotient from several starts."""
    inverse, cov = np.linalg.inv(np.asarray(H)), np.asarray(cov)

    def loss(w):
        variance, size = w @ cov @ w, w @ inverse @ w
        return -variance / size, -2 * (cov @ w - variance / size * inverse @ w) / size

    starts = np.random.default_rng(0).normal(size=(4, len(cov)))
    return max(-scipy.optimize.minimize(loss, w, jac=True, options={"gtol": 1e-10}).fun for w in starts)


def sigreg(x, a, knots=9, t_max=3.0):
    """Direct quadrature: every cosine evaluated, scipy's trapezoid over both halves of the axis."""
    t = np.linspace(-t_max, t_max, 2 * knots - 1)
    difference = np.exp(1j * t[:, None, None] * (x @ a)[None]).mean(1) - np.exp(-(t**2) / 2)[:, None]
    integrand = np.abs(difference) ** 2 * np.exp(-(t**2) / 2)[:, None]
    return len(x) * integrate.trapezoid(integrand, t, axis=0).mean()

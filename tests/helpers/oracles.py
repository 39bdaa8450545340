"""Textbook formulas in numpy and scipy, as printed, for one sample set ``(N, D)`` or one matrix at a time."""

import numpy as np
import scipy.optimize
import torch
from scipy import integrate, stats
from torch import nn
from torch.nn import functional as F


def close(actual, expected, **tolerance):
    actual, expected = (torch.as_tensor(x, dtype=torch.float64) for x in (actual, expected))
    torch.testing.assert_close(actual, expected, **({"rtol": 1e-9, "atol": 1e-9} | tolerance))


def textbook_leapfrog(force, q, p, *, dt, steps=1, mass=1.0):
    """Kick, drift, kick, with a force for each kick."""
    for _ in range(steps):
        p = p + 0.5 * dt * force(q)
        q = q + dt * p / mass
        p = p + 0.5 * dt * force(q)
    return q, p


def brute_worst_case(H, cov):
    """The largest ``wᵀΣw`` with ``wᵀH⁻¹w ≤ 1``, by ascent on the Rayleigh quotient from several starts."""
    inverse, cov = np.linalg.inv(np.asarray(H)), np.asarray(cov)

    def loss(w):
        variance, size = w @ cov @ w, w @ inverse @ w
        return -variance / size, -2 * (cov @ w - variance / size * inverse @ w) / size

    starts = np.random.default_rng(0).normal(size=(4, len(cov)))
    return max(-scipy.optimize.minimize(loss, w, jac=True, options={"gtol": 1e-10}).fun for w in starts)


# Regularizers


def budget(x, target=1.0):
    return (np.mean(x**2) - target) ** 2


def variance(x, floor=0.2, eps=1e-4):
    std = np.sqrt(((x - x.mean(0)) ** 2).mean(0) + eps)
    return np.mean(np.maximum(floor - std, 0) ** 2)


def mean(x):
    return np.mean(x.mean(0) ** 2)


def covariance(x, r, eps=1e-4):
    return np.cov(x @ r, rowvar=False, ddof=1).reshape(r.shape[1], r.shape[1]) + eps * np.eye(r.shape[1])


def spectral(x, r, *, log_det=None, participation=None, top_share=None):
    eigenvalues = np.linalg.eigvalsh(covariance(x, r))
    total = 0.0
    if log_det is not None:
        total += max(log_det - np.log(eigenvalues).mean(), 0) ** 2
    if participation is not None:
        ratio = eigenvalues.sum() ** 2 / (eigenvalues**2).sum() / len(eigenvalues)
        total += max(participation - ratio, 0) ** 2
    if top_share is not None:
        total += max(eigenvalues[-1] / eigenvalues.sum() - top_share, 0) ** 2
    return total


def participation(x, floor):
    eigenvalues = np.linalg.eigvalsh(np.cov(x, rowvar=False))
    return max(floor - eigenvalues.sum() ** 2 / (eigenvalues**2).sum() / min(x.shape[1], len(x) - 1), 0) ** 2


def sigreg(x, a, knots=9, t_max=3.0):
    """Direct quadrature: every cosine evaluated, scipy's trapezoid over both halves of the axis."""
    t = np.linspace(-t_max, t_max, 2 * knots - 1)
    difference = np.exp(1j * t[:, None, None] * (x @ a)[None]).mean(1) - np.exp(-(t**2) / 2)[:, None]
    integrand = np.abs(difference) ** 2 * np.exp(-(t**2) / 2)[:, None]
    return len(x) * integrate.trapezoid(integrand, t, axis=0).mean()


def gaussian_mmd(x, sigma):
    dim, s2 = x.shape[1], sigma**2
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / (2 * s2)).mean()
    # E k(x, g) is the density of N(0, (1 + σ²) I) at x, E k(g, g') that of N(0, (2 + σ²) I) at 0, times (2πσ²)^{D/2}.
    unit = (2 * np.pi * s2) ** (dim / 2)
    cross = np.mean(stats.multivariate_normal(np.zeros(dim), (1 + s2) * np.eye(dim)).pdf(x)) * unit
    return (
        kernel - 2 * cross + stats.multivariate_normal(np.zeros(dim), (2 + s2) * np.eye(dim)).pdf(np.zeros(dim)) * unit
    )


def sliced_mmd(x, a, sigma=1.0):
    return np.mean([gaussian_mmd(y[:, None], sigma) for y in (x @ a).T])


def vicreg(x, mu=25.0, nu=1.0, gamma=1.0, eps=1e-4):
    x = torch.from_numpy(x)
    n, dim = x.shape
    std = torch.sqrt(x.var(0) + eps)
    x = x - x.mean(0)
    cov = (x.T @ x) / (n - 1)
    off = cov.flatten()[:-1].view(dim - 1, dim + 1)[:, 1:]
    return (mu * F.relu(gamma - std).mean() + nu * off.pow(2).sum() / dim).item()


def barlow(pair, redundancy=5e-3):
    a, b = torch.from_numpy(pair)
    norm = nn.BatchNorm1d(a.shape[1], affine=False, dtype=torch.float64)
    c = norm(a).T @ norm(b) / len(a)
    eye = torch.eye(len(c), dtype=torch.bool)
    return ((c[eye] - 1).square().sum() + redundancy * c[~eye].square().sum()).item()


def coding_rate(x, eps=0.5):
    n, dim = x.shape
    return -0.5 * np.linalg.slogdet(np.eye(dim) + dim / (n * eps**2) * x.T @ x)[1]


# Geometries


def chain_laplacian(n, boundary):
    """Degree minus adjacency of a path or, if periodic, a ring."""
    matrix = np.zeros((n, n))
    bonds = [(i, i + 1) for i in range(n - 1)] + ([(n - 1, 0)] if boundary == "periodic" else [])
    for i, j in bonds:
        matrix[[i, j], [i, j]] += 1
        matrix[i, j] -= 1
        matrix[j, i] -= 1
    return matrix


def state_matrix(token_matrix, channels, halves=2):
    """The same operator on every half of [q | p] and every channel, as a dense matrix."""
    return np.kron(np.eye(halves), np.kron(token_matrix, np.eye(channels)))


def grid_laplacian(rows, columns, boundary):
    return np.kron(chain_laplacian(rows, boundary), np.eye(columns)) + np.kron(
        np.eye(rows), chain_laplacian(columns, boundary)
    )

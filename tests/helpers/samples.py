"""Random inputs in float64: states, samples, matrices."""

import numpy as np
import torch

from symplectic_jepa.regularizers import orthonormal_projection, unit_directions


def states(*shape):
    """``q`` and ``p``, each of this shape."""
    return torch.randn(2, *shape, dtype=torch.float64)


def samples(*shape, seed=0):
    """Anisotropic and off-centre."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.1, 2.0, shape[-1], dtype=torch.float64) + 0.3


def orthonormal(dim, k, seed=1):
    return orthonormal_projection(dim, k, torch.Generator().manual_seed(seed), torch.float64)


def directions(dim, m, seed=1):
    return unit_directions(dim, m, torch.Generator().manual_seed(seed), torch.float64)


def spd(*shape, seed=0, spread=1.0):
    """Symmetric positive definite matrices; their condition number grows with ``spread``."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(*shape, shape[-1])))
    values = np.exp(spread * rng.normal(size=shape))
    return torch.from_numpy((q * values[..., None, :]) @ q.swapaxes(-1, -2))

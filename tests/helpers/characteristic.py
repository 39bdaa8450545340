"""The characteristic-function sums with every angle written out."""

import pytest
import torch

SPACING = 0.37
SHAPES = [(5, 7), (130, 33), (2, 3, 65, 5), (1, 64, 32)]  # below, above, far from and on the kernels' tile
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}  # relative to the largest entry; angles reach 60
KNOTS = (2, 9, 17)


def textbook(y, spacing, knots):
    """Every angle, ``(..., N, T, M)``, differentiated by autograd."""
    angle = y[..., None, :] * (spacing * torch.arange(knots, dtype=y.dtype, device=y.device))[:, None]
    return angle.cos().sum(-3), angle.sin().sum(-3)


def value_and_gradient(function, y, spacing, knots):
    """Both sums, and the gradient of the same random combination of them."""
    y = y.detach().clone().requires_grad_()
    sums = torch.stack(function(y, spacing, knots))
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(sums.shape, generator=generator, dtype=torch.float64).to(sums)
    return sums, torch.autograd.grad((weight * sums).sum(), y)[0]


def agree(function, y, knots, dtype):
    """Function in ``dtype`` equals the textbook in float64."""
    expected = value_and_gradient(textbook, y.double(), SPACING, knots)
    for got, want in zip(value_and_gradient(function, y.to(dtype), SPACING, knots), expected, strict=True):
        assert got.dtype == dtype
        assert got.shape == want.shape
        assert (got.double() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()


def compiles_whole(function, y, knots=5, **options):
    """In one graph, with the same sums and gradient."""
    compiled = torch.compile(function, fullgraph=True, **options)
    expected = value_and_gradient(function, y, SPACING, knots)
    torch.testing.assert_close(value_and_gradient(compiled, y, SPACING, knots), expected)


cases = [
    pytest.mark.parametrize("dtype", TOLERANCE, ids=str),
    pytest.mark.parametrize("knots", KNOTS),
    pytest.mark.parametrize("shape", SHAPES, ids=str),
]


def each(test):
    """On every shape, number of knots and precision."""
    for case in cases:
        test = case(test)
    return test

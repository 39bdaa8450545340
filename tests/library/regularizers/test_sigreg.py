"""SIGReg against quadrature, and in a geometry that is learned or the user's own."""

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import nn

from symplectic_jepa import HamSIGReg, SIGReg, VarianceFloor
from symplectic_jepa.geometries import Geometry, RadialGeometry
from tests.helpers.oracles import sigreg
from tests.helpers.samples import directions, samples

D = 12
A = directions(D, 5)


@pytest.mark.parametrize(("knots", "t_max"), [(2, 1.0), (9, 3.0), (17, 3.0), (33, 5.0)])
def test_sigreg_equals_scipy_quadrature(knots, t_max):
    x, a = samples(40, 6), directions(6, 8)
    got = SIGReg(knots=knots, t_max=t_max)(x, directions=a)
    assert got.item() == pytest.approx(sigreg(x.numpy(), a.numpy(), knots, t_max), rel=1e-12)
    single = SIGReg(knots=knots, t_max=t_max)(x.float(), directions=a.float())
    assert single.item() == pytest.approx(got.item(), rel=1e-4)


def test_sigreg_converges_to_the_integral_of_epps_and_pulley():
    """N ∫ |ψ − φ|² φ dt over the whole line, by scipy's adaptive quadrature."""
    y = samples(30, 1)

    def integrand(t):
        return np.abs(np.exp(1j * t * y.numpy()).mean() - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    expected = 30 * integrate.quad(integrand, -np.inf, np.inf)[0]
    got = SIGReg(knots=200, t_max=8.0)(y, directions=torch.ones(1, 1, dtype=torch.float64))
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_sigreg_tells_a_gaussian_from_other_laws():
    x = torch.randn(4096, 8)
    for other in (0.5 * x, x + 1, x.sign(), x.exp()):
        assert SIGReg(slices=64)(other) > 10 * SIGReg(slices=64)(x)


def test_sigreg_gradient_fades_at_collapse_and_a_variance_floor_does_not():
    norms = []
    for std in (0.1, 0.003):
        x = (std * torch.randn(256, 16)).requires_grad_()
        sigreg_grad = torch.autograd.grad(SIGReg(slices=64)(x), x)[0].norm()
        floor_grad = torch.autograd.grad(VarianceFloor(0.2, eps=1e-8)(x), x)[0].norm()
        norms.append((sigreg_grad.item(), floor_grad.item()))
    assert norms[1][0] < 0.1 * norms[0][0]
    assert norms[1][1] > norms[0][1]


def test_gradient_reaches_the_spectrum_and_equals_finite_differences():
    regularizer, x = HamSIGReg(RadialGeometry((3, 2), knots=3)).double(), samples(6, D)

    def loss(theta):
        return torch.func.functional_call(regularizer, {"geometry.theta": theta}, (x,), {"directions": A})

    theta = torch.tensor([0.3, -0.4, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (theta,))
    assert torch.autograd.grad(loss(theta), theta)[0].abs().min() > 0


def test_a_slower_optimiser_finds_the_spectrum_of_the_features():
    """Features ~ N(0, H⁻¹): the learned spectrum tends to that of ``H``."""
    truth = RadialGeometry((4, 4), knots=2, max_condition=30.0, halves=1).double()
    nn.init.constant_(truth.theta, 3.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        inverse_root = torch.linalg.inv(truth.sqrt_apply(torch.eye(16, dtype=torch.float64)))
        x = torch.randn(2000, 16, generator=generator, dtype=torch.float64) @ inverse_root
    regularizer = HamSIGReg(RadialGeometry((4, 4), knots=2, max_condition=30.0, halves=1), slices=32).double()
    features = nn.Parameter(x[:1].clone())  # stands for the encoder, in the group with the full rate
    optimizer = torch.optim.Adam(
        [{"params": [features], "lr": 1.0}, {"params": regularizer.geometry.parameters(), "lr": 0.1}]
    )
    before = regularizer.eval()(x)
    for _ in range(60):
        optimizer.zero_grad()
        regularizer.train()(x).backward()
        optimizer.step()
    assert regularizer.eval()(x) < 0.2 * before
    found, expected = (g.eigenvalues().detach().log() for g in (regularizer.geometry, truth))
    assert (found - expected).abs().max() < 0.15 * (expected.max() - expected.min())


def test_a_user_geometry_is_two_methods():
    class Tilted(Geometry):
        def sqrt_apply(self, z):
            return z + z.sum(-1, keepdim=True) / z.shape[-1]  # I + 11ᵀ/D: eigenvalue 4 once, else 1

        def eigenvalues(self):
            return torch.tensor([1.0, 4.0])

    regularizer, x = HamSIGReg(Tilted(), knots=9), samples(10, D)
    root = np.eye(D) + np.ones((D, D)) / D
    value, statistics = regularizer.measure(x, directions=A)
    assert value.item() == pytest.approx(sigreg(x.numpy() @ root, A.numpy()))
    assert statistics["condition"] == 4

"""Geometries as dense matrices: the Laplacian of the token graph, diagonals, learned radial spectra."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import nn

from symplectic_jepa import HamSIGReg, SIGReg
from symplectic_jepa.geometries import (
    DiagonalGeometry,
    IdentityGeometry,
    LaplacianGeometry,
    MatrixGeometry,
    RadialGeometry,
)
from symplectic_jepa.theory import fit_geometry
from tests.helpers.oracles import chain_laplacian, grid_laplacian, sigreg, state_matrix
from tests.helpers.samples import directions, samples

D = 12


def dense(geometry, dim):
    """``H^{1/2}`` as a matrix."""
    return geometry.sqrt_apply(torch.eye(dim, dtype=torch.float64)).detach().numpy().T


BOUNDARIES = ("free", "periodic")


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("grid", "channels", "halves"), [(5, 2, 2), (6, 1, 1), ((3, 4), 2, 2), ((4, 1), 3, 1)])
def test_laplacian_is_that_of_the_token_graph(grid, channels, halves, boundary):
    rows, columns = (grid, 1) if isinstance(grid, int) else grid
    if boundary == "periodic" and columns == 1:
        tokens = chain_laplacian(rows, boundary)
    else:
        tokens = grid_laplacian(rows, columns, boundary)
    expected = state_matrix(0.7 * tokens + 0.2 * np.eye(rows * columns), channels, halves)
    geometry = LaplacianGeometry(grid, kappa=0.7, eps=0.2, halves=halves, boundary=boundary)
    values, vectors = np.linalg.eigh(expected)
    root = vectors * np.sqrt(values) @ vectors.T
    np.testing.assert_allclose(dense(geometry, len(expected)), root, atol=1e-13)
    shared = np.repeat(geometry.eigenvalues().flatten().numpy(), channels * halves)
    np.testing.assert_allclose(np.sort(shared), values, atol=1e-12)


def test_diagonal_and_identity():
    diagonal = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    np.testing.assert_allclose(dense(DiagonalGeometry(diagonal), 3), np.diag(diagonal.sqrt()))
    np.testing.assert_array_equal(dense(IdentityGeometry(), 7), np.eye(7))
    assert IdentityGeometry().eigenvalues().tolist() == [1.0]
    x, plain = samples(20, D), SIGReg(slices=6, seed=3)
    assert torch.equal(HamSIGReg(IdentityGeometry(), slices=6, seed=3)(x), plain(x))


def test_matrix_is_the_symmetric_root_of_any_matrix():
    a = samples(6, 6)
    matrix = a @ a.T + 0.3 * torch.eye(6, dtype=torch.float64)
    geometry = MatrixGeometry(matrix)
    np.testing.assert_allclose(dense(geometry, 6) @ dense(geometry, 6), matrix, atol=1e-13)
    np.testing.assert_allclose(geometry.eigenvalues(), np.linalg.eigvalsh(matrix), atol=1e-13)
    assert list(geometry.state_dict()) == ["matrix"]
    other = MatrixGeometry(np.eye(6))
    other.load_state_dict(geometry.state_dict())
    np.testing.assert_array_equal(dense(other, 6), dense(geometry, 6))
    z = torch.randn(3, 6).bfloat16()
    assert torch.equal(geometry.sqrt_apply(z), z.float() @ geometry.root.float())
    for bad, error, message in (
        (torch.eye(3).expand(2, 3, 3), ValueError, r"matrix must have shape \(D, D\), got \(2, 3, 3\)"),
        (torch.eye(3)[:2], ValueError, r"matrix must have shape .* got \(2, 3\)"),
        (torch.eye(3) - 1, ValueError, "matrix must be positive definite"),
        (torch.eye(3).long(), TypeError, "matrix must be a floating-point tensor, got dtype torch.int64"),
        ([[1.0]], TypeError, "matrix must be a tensor or a numeric numpy array, got list"),
    ):
        with pytest.raises(error, match=message):
            MatrixGeometry(bad)


def test_matrix_equals_diagonal_and_takes_what_is_fitted_to_labels():
    diagonal = torch.linspace(0.5, 2.0, D, dtype=torch.float64)
    found = []
    for geometry in (DiagonalGeometry(diagonal), MatrixGeometry(diagonal.diag())):
        x = samples(20, D).requires_grad_()
        loss = HamSIGReg(geometry, slices=6, seed=3)(x)
        found.append(torch.stack((loss.expand_as(x), *torch.autograd.grad(loss, x))))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)
    labels, a = torch.arange(20) % 4, directions(D, 6)
    geometry = MatrixGeometry(fit_geometry(x.detach(), labels))
    regularizer = HamSIGReg(geometry)
    assert torch.autograd.gradcheck(lambda x: regularizer(x, directions=a), (samples(6, D).requires_grad_(),))
    root = linalg.sqrtm(geometry.matrix.numpy())
    assert regularizer(x, directions=a).item() == pytest.approx(sigreg(x.detach().numpy() @ root, a.numpy(), 17))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("grid", [7, (8, 8), (3, 5), (2, 1)])
def test_radial_spectrum_keeps_gauge_order_and_bound_whatever_its_parameters(grid, boundary):
    geometry = RadialGeometry(grid, knots=5, max_condition=50.0, initial_condition=3.0, boundary=boundary).double()
    values = geometry.eigenvalues()
    assert (values.max() / values.min()).item() == pytest.approx(3.0)
    rows, columns = geometry.grid
    turn = (lambda k, n: k / n) if boundary == "free" else (lambda k, n: 2 * min(k, n - k) / n)
    radius = np.array([[math.hypot(turn(i, rows), turn(j, columns)) for j in range(columns)] for i in range(rows)])
    for seed, scale in enumerate((0.1, 1.0, 5.0, 100.0, 1e4)):
        nn.init.normal_(geometry.theta, std=scale, generator=torch.Generator().manual_seed(seed))
        values = geometry.eigenvalues().detach()
        assert values.log().mean().abs() < 1e-12
        assert values.max() / values.min() <= 50 * (1 + 1e-12)
        ordered = values.flatten()[np.argsort(radius.ravel(), kind="stable")]
        assert (ordered.diff() > -1e-12).all()
        for value in radius.ravel():
            assert np.ptp(values.numpy()[np.isclose(radius, value)]) < 1e-9 * values.max()
    matrix = dense(geometry, rows * columns * 2)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-10)
    shared = np.repeat(values.flatten().numpy(), 2)
    np.testing.assert_allclose(np.linalg.eigvalsh(matrix @ matrix), np.sort(shared), rtol=1e-8)


def test_bad_arguments_are_named():
    for make, message in (
        (lambda: LaplacianGeometry(4, eps=0), "eps must be a finite number > 0, got 0"),
        (lambda: LaplacianGeometry(4, kappa=-1), "kappa must be a finite number >= 0, got -1"),
        (lambda: LaplacianGeometry((2, 2, 2)), r"grid must be an int or \(rows, columns\)"),
        (lambda: LaplacianGeometry((2, 0)), "grid must be an int >= 1, got 0"),
        (lambda: LaplacianGeometry(4, boundary="open"), "boundary must be one of 'free', 'periodic'"),
        (lambda: RadialGeometry(1), "grid must have at least two tokens, got 1"),
        (lambda: RadialGeometry(4, max_condition=1), "max_condition must be a finite number > 1"),
        (lambda: RadialGeometry(4, initial_condition=200), "initial_condition must be below 100, got 200"),
        (lambda: DiagonalGeometry(torch.tensor([1.0, 0.0])), "diagonal must be"),
    ):
        with pytest.raises(ValueError, match=message):
            make()

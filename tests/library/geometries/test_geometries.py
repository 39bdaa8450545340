"""Geometries as dense matrices: the Laplacian of the token graph, diagonals, learned radial spectra."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from symplectic_jepa import HamSIGReg, SIGReg
from symplectic_jepa.geometries import DiagonalGeometry, IdentityGeometry, LaplacianGeometry, RadialGeometry
from tests.helpers.oracles import chain_laplacian, grid_laplacian, state_matrix
from tests.helpers.samples import samples

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
        (lambda: RadialGeometry(1), "grid must have two tokens or more, got 1"),
        (lambda: RadialGeometry(4, max_condition=1), "max_condition must be a finite number > 1"),
        (lambda: RadialGeometry(4, initial_condition=200), "initial_condition must be below 100, got 200"),
        (lambda: DiagonalGeometry(torch.tensor([1.0, 0.0])), "diagonal must be"),
    ):
        with pytest.raises(ValueError, match=message):
            make()

"""The regularizers that the paper compares with, and the geometries, against numpy, dense matrices and Monte Carlo."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, linalg, stats
from torch import nn
from torch.nn import functional as F

from symplectic_jepa.geometries import (
    DiagonalGeometry,
    Geometry,
    IdentityGeometry,
    LaplacianGeometry,
    MatrixGeometry,
    RadialGeometry,
)
from symplectic_jepa.objectives import LeJEPAObjective, Penalty
from symplectic_jepa.regularizers import (
    MMD,
    BarlowTwins,
    CodingRate,
    HamSIGReg,
    SIGReg,
    SlicedMMD,
    VICReg,
    kerjepa,
    unit_directions,
)
from symplectic_jepa.theory import fit_geometry


def samples(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.3, 1.5, shape[-1], dtype=torch.float64) + 0.3


def directions(dim, m, seed=1):
    return unit_directions(dim, m, torch.Generator().manual_seed(seed), torch.float64)


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


def dense(geometry, dim):
    """``H^{1/2}`` as a matrix."""
    return geometry.sqrt_apply(torch.eye(dim, dtype=torch.float64)).detach().numpy().T


# Oracles: numpy, one sample set (N, D) at a time.


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


def sigreg(x, a, root, knots=9, t_max=3.0):
    t = np.linspace(-t_max, t_max, 2 * knots - 1)
    difference = np.exp(1j * t[:, None, None] * (x @ root @ a)[None]).mean(1) - np.exp(-(t**2) / 2)[:, None]
    integrand = np.abs(difference) ** 2 * np.exp(-(t**2) / 2)[:, None]
    return len(x) * integrate.trapezoid(integrand, t, axis=0).mean()


D = 12
A = directions(D, 5)
GEOMETRY = LaplacianGeometry((3, 2), kappa=0.7, eps=0.2)
H = state_matrix(0.7 * grid_laplacian(3, 2, "free") + 0.2 * np.eye(6), 1)
CASES = {
    "hamsigreg": (
        lambda x: HamSIGReg(GEOMETRY, knots=9)(x, directions=A), lambda x: sigreg(x, A.numpy(), linalg.sqrtm(H).real)
    ),
    "mmd": (MMD(bandwidth=2.0), lambda x: gaussian_mmd(x, 2.0)),
    "mmd_default": (MMD(), lambda x: gaussian_mmd(x, math.sqrt(D))),
    "sliced_mmd": (lambda x: SlicedMMD()(x, directions=A), lambda x: sliced_mmd(x, A.numpy())),
    "vicreg": (VICReg(floor=1.2), lambda x: vicreg(x, gamma=1.2)),
    "barlow": (BarlowTwins(), barlow),
    "coding_rate": (CodingRate(), coding_rate),
}  # fmt: skip
every = pytest.mark.parametrize("name", CASES)


def batch(name, *shape, seed=0):
    """Samples; for Barlow Twins two correlated views of them."""
    x = samples(*shape, seed=seed)
    return torch.stack((x, x + 0.5 * samples(*shape, seed=seed + 50))) if name == "barlow" else x


@every
@pytest.mark.parametrize("n", [7, 30])
def test_value_equals_the_formula(name, n):
    ours, oracle = CASES[name]
    x = batch(name, n, D)
    assert ours(x).shape == ()
    assert ours(x).item() == pytest.approx(oracle(x.numpy()), rel=1e-9)


@every
def test_leading_dimensions_are_averaged(name):
    ours, oracle = CASES[name]
    x = batch(name, 2, 3, 8, D)
    parts = [part.numpy() for part in (x.flatten(1, 2).transpose(0, 1) if name == "barlow" else x.flatten(0, 1))]
    assert ours(x).item() == pytest.approx(np.mean([oracle(part) for part in parts]), rel=1e-9)


@every
def test_gradient_equals_finite_differences(name):
    ours, _ = CASES[name]
    assert torch.autograd.gradcheck(ours, (batch(name, 6, D).requires_grad_(),), atol=1e-6, rtol=1e-5)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_are_float32_also_under_autocast(name, dtype):
    ours, _ = CASES[name]
    x = batch(name, 32, D).to(dtype)
    expected = ours(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ours(x)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)
    assert expected.item() == pytest.approx(ours(x.double()).item(), rel=1e-4, abs=1e-5)


@every
def test_collapsed_features_give_finite_gradients(name):
    ours, _ = CASES[name]
    for point in (torch.zeros(16, D), 100 * torch.ones(16, D), 100 * torch.randn(16, 1) @ torch.randn(1, D)):
        x = (torch.stack((point, point)) if name == "barlow" else point).requires_grad_()
        (grad,) = torch.autograd.grad(ours(x), x)
        assert torch.isfinite(grad).all()


# As a user meets them: in an objective, compiled.

MODULES = {
    "hamsigreg": lambda: HamSIGReg(RadialGeometry((3, 2)), slices=4),
    "mmd": MMD,
    "sliced_mmd": lambda: SlicedMMD(slices=4),
    "vicreg": VICReg,
    "barlow": BarlowTwins,
    "coding_rate": CodingRate,
}


@pytest.mark.parametrize("name", MODULES)
def test_each_serves_as_a_penalty_and_says_what_it_measured(name):
    module, states = MODULES[name](), samples(2, 9, D).requires_grad_()
    objective = LeJEPAObjective({name: Penalty(module, weight=0.5, views="separate")})
    loss, terms = objective(states)
    loss.backward()
    assert states.grad.isfinite().all()
    assert terms[name].item() == pytest.approx(module.eval()(states).item(), rel=0.5)
    measured = {key for key in terms if key.startswith(f"{name}/")}
    assert measured
    assert not any(value.requires_grad for value in terms.values())
    if name == "hamsigreg":
        assert measured == {"hamsigreg/epps_pulley", "hamsigreg/condition"}


# Geometries

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
    labels = torch.arange(20) % 4
    geometry = MatrixGeometry(fit_geometry(x.detach(), labels))
    regularizer = HamSIGReg(geometry)
    assert torch.autograd.gradcheck(lambda x: regularizer(x, directions=A), (samples(6, D).requires_grad_(),))
    root = linalg.sqrtm(geometry.matrix.numpy())
    assert regularizer(x, directions=A).item() == pytest.approx(sigreg(x.detach().numpy(), A.numpy(), root, 17))


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
    assert value.item() == pytest.approx(sigreg(x.numpy(), A.numpy(), root))
    assert statistics["condition"] == 4


# KerJEPA


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


def test_sliced_mmd_equals_monte_carlo():
    x, m = samples(10, D).numpy(), 200_000
    g, h = np.random.default_rng(1).standard_normal((2, m))
    draws = np.zeros(m)
    for y in (x @ A.numpy()).T:
        within = np.exp(-((y[:, None] - y[None]) ** 2) / 2).mean()
        draws += (
            within - 2 * np.mean([np.exp(-((v - g) ** 2) / 2) for v in y], axis=0) + np.exp(-((g - h) ** 2) / 2)
        ) / 5
    assert abs(SlicedMMD()(torch.from_numpy(x), directions=A).item() - draws.mean()) < 5 * draws.std() / math.sqrt(m)


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


def test_slices_in_chunks_give_the_same(monkeypatch):
    x = samples(2, 9, D).requires_grad_()
    whole = SlicedMMD()(x, directions=A)
    (grad,) = torch.autograd.grad(whole, x)
    monkeypatch.setattr(kerjepa, "_ENTRIES", 3 * 81)
    parts = SlicedMMD()(x, directions=A)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, x)[0], grad)


def test_rows_of_weight_zero_are_no_samples():
    """What another rank's rows are while the sum is left out."""
    x, weights = torch.cat((torch.zeros(2, 3), samples(5, 3))).double(), torch.tensor([0.0] * 2 + [1.0] * 5).double()
    assert kerjepa.squared_mmd(x, weights, 1.3).item() == pytest.approx(gaussian_mmd(x[2:].numpy(), 1.3))


@pytest.mark.parametrize("name", ["vicreg", "barlow", "mmd"])
def test_a_large_mean_costs_no_digits(name):
    """In float32, against the very same numbers in float64; of the MMD only the pairs do not see the mean."""
    x = (batch(name, 64, D) + 3000).float()
    if name == "mmd":
        ours, oracle = (kerjepa._KernelSum.apply(z[None], torch.ones_like(z[:, 0]), 4.0) for z in (x, x.double()))
    else:
        ours, oracle = CASES[name][0](x), CASES[name][0](x.double())
    assert ours.item() == pytest.approx(oracle.item(), rel=1e-5)


# Two views; the rest


def test_barlow_twins_takes_two_views_either_way():
    x, twins = batch("barlow", 9, D), BarlowTwins()
    assert torch.equal(twins(x[0], x[1]), twins(x))
    assert twins(x[0], x[0].clone()) < twins(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert twins(x[0].bfloat16(), x[1].bfloat16()).dtype == torch.float32


def test_coding_rate_of_many_rows_and_of_few_are_one_formula():
    x = samples(3, 5, D)
    few = CodingRate(eps=0.3)(x).item()
    assert few == pytest.approx(np.mean([coding_rate(part, 0.3) for part in x.numpy()]), rel=1e-9)
    values = torch.linalg.svdvals(x[0])
    rate = 0.5 * torch.log1p(D / (5 * 0.09) * values.square()).sum()
    assert CodingRate(eps=0.3)(x[0]).item() == pytest.approx(-rate.item(), rel=1e-9)
    collapsed = CodingRate()(1e3 * torch.randn(64, 1) @ torch.randn(1, 512))
    assert torch.isfinite(collapsed)


def test_bad_arguments_are_named():
    x = samples(10, D)
    for call, error, message in (
        (lambda: HamSIGReg(nn.Identity()), TypeError, "geometry must be a Geometry, got Identity"),
        (lambda: HamSIGReg(GEOMETRY)(x, directions=A.T), ValueError, r"directions must have shape \(12, M\)"),
        (lambda: HamSIGReg(LaplacianGeometry((5, 2)))(x), ValueError, r"x of shape \(10, 12\) does not fit"),
        (lambda: LaplacianGeometry(4, eps=0), ValueError, "eps must be a finite number > 0, got 0"),
        (lambda: LaplacianGeometry(4, kappa=-1), ValueError, "kappa must be a finite number >= 0, got -1"),
        (lambda: LaplacianGeometry((2, 2, 2)), ValueError, r"grid must be an int or \(rows, columns\)"),
        (lambda: LaplacianGeometry((2, 0)), ValueError, "grid must be an int >= 1, got 0"),
        (lambda: LaplacianGeometry(4, boundary="open"), ValueError, "boundary must be one of 'free', 'periodic'"),
        (lambda: RadialGeometry(1), ValueError, "grid must have two tokens or more, got 1"),
        (lambda: RadialGeometry(4, max_condition=1), ValueError, "max_condition must be a finite number > 1"),
        (lambda: RadialGeometry(4, initial_condition=200), ValueError, "initial_condition must be below 100, got 200"),
        (lambda: DiagonalGeometry(torch.tensor([1.0, 0.0])), ValueError, "diagonal must be"),
        (lambda: HamSIGReg(DiagonalGeometry(torch.ones(3)))(x), ValueError, "does not fit the geometry Diag"),
        (lambda: MMD(bandwidth=0), ValueError, "bandwidth must be a finite number > 0, got 0"),
        (lambda: SlicedMMD(slices=0), ValueError, "slices must be an int >= 1, got 0"),
        (lambda: SlicedMMD()(x, directions=A.T), ValueError, r"directions must have shape \(12, M\), got \(5, 12\)"),
        (lambda: VICReg(variance=-1), ValueError, "variance must be a finite number >= 0, got -1"),
        (lambda: VICReg()(x[:1]), ValueError, r"N >= 2, D >= 1\), got \(1, 12\)"),
        (lambda: BarlowTwins()(x), ValueError, r"two views, \(2, ..., N, D\), got \(10, 12\)"),
        (lambda: BarlowTwins()(samples(3, 5, D)), ValueError, r"two views, \(2, ..., N, D\), got \(3, 5, 12\)"),
        (lambda: BarlowTwins()(x, x[:5]), ValueError, r"other must have the shape of x, \(10, 12\), got \(5, 12\)"),
        (lambda: CodingRate(eps=0), ValueError, "eps must be a finite number > 0, got 0"),
    ):
        with pytest.raises(error, match=message):
            call()

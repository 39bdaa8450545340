"""Every regularizer against its formula in numpy, and its gradient against finite differences."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.geometries import DiagonalGeometry, LaplacianGeometry
from symplectic_jepa.regularizers import (
    MMD,
    BarlowTwins,
    CodingRate,
    EnergyBudget,
    HamSIGReg,
    MeanPenalty,
    ParticipationRatioFloor,
    ProjectedLogDetFloor,
    SIGReg,
    SlicedMMD,
    SpectralFloors,
    TopEigenvalueCeiling,
    VarianceFloor,
    VICReg,
)
from tests.helpers import oracles
from tests.helpers.cases import REGULARIZERS
from tests.helpers.memory import Largest
from tests.helpers.samples import directions, orthonormal, samples

D = 12
R, A = orthonormal(D, 4), directions(D, 5)
GEOMETRY = LaplacianGeometry((3, 2), kappa=0.7, eps=0.2)
ROOT = linalg.sqrtm(oracles.state_matrix(0.7 * oracles.grid_laplacian(3, 2, "free") + 0.2 * np.eye(6), 1)).real


def hinges(**settings):
    """The floors with these hinges, and their formula."""
    return (lambda x: SpectralFloors(**settings)(x, projection=R), lambda x: oracles.spectral(x, R.numpy(), **settings))


CASES = {
    "budget": (EnergyBudget(0.5), lambda x: oracles.budget(x, 0.5)),
    "variance": (VarianceFloor(0.9), lambda x: oracles.variance(x, 0.9)),
    "mean": (MeanPenalty(), oracles.mean),
    "log_det": (lambda x: ProjectedLogDetFloor(1.0)(x, projection=R), hinges(log_det=1.0)[1]),
    "participation": (lambda x: ParticipationRatioFloor(0.99)(x, projection=R), hinges(participation=0.99)[1]),
    "participation_full": (ParticipationRatioFloor(0.9, proj_dim=None), lambda x: oracles.participation(x, 0.9)),
    "top": (lambda x: TopEigenvalueCeiling(0.1)(x, projection=R), hinges(top_share=0.1)[1]),
    "floors": hinges(log_det=1.0, participation=0.99, top_share=0.1),
    "sigreg": (lambda x: SIGReg(knots=9)(x, directions=A), lambda x: oracles.sigreg(x, A.numpy())),
    "hamsigreg": (
        lambda x: HamSIGReg(GEOMETRY, knots=9)(x, directions=A), lambda x: oracles.sigreg(x @ ROOT, A.numpy())
    ),
    "mmd": (MMD(bandwidth=2.0), lambda x: oracles.gaussian_mmd(x, 2.0)),
    "mmd_default": (MMD(), lambda x: oracles.gaussian_mmd(x, math.sqrt(D))),
    "sliced_mmd": (lambda x: SlicedMMD()(x, directions=A), lambda x: oracles.sliced_mmd(x, A.numpy())),
    "vicreg": (VICReg(floor=1.2), lambda x: oracles.vicreg(x, gamma=1.2)),
    "barlow": (BarlowTwins(), oracles.barlow),
    "coding_rate": (CodingRate(), oracles.coding_rate),
}  # fmt: skip
every = pytest.mark.parametrize("name", CASES)


def batch(name, *shape, seed=0):
    """Samples; for Barlow Twins two correlated views of them."""
    x = samples(*shape, seed=seed)
    return torch.stack((x, x + 0.5 * samples(*shape, seed=seed + 50))) if name == "barlow" else x


def tolerance(name):
    return 1e-6 if name in ("top", "floors") else 1e-9  # the largest eigenvalue is approximate


@every
@pytest.mark.parametrize("n", [7, 30])
def test_value_equals_the_formula(name, n):
    ours, oracle = CASES[name]
    x = batch(name, n, D)
    assert abs(oracle(x.numpy())) > 1e-3
    assert ours(x).item() == pytest.approx(oracle(x.numpy()), rel=tolerance(name))


@every
@given(leading=st.lists(st.integers(1, 3), max_size=2), n=st.integers(6, 30), seed=st.integers(0, 49))
@settings(max_examples=15, deadline=None)
def test_leading_dimensions_are_averaged(name, leading, n, seed):
    ours, oracle = CASES[name]
    x = batch(name, *leading, n, D, seed=seed)
    parts = x.reshape(2, -1, n, D).transpose(0, 1) if name == "barlow" else x.reshape(-1, n, D)
    assert ours(x).shape == ()
    expected = np.mean([oracle(part.numpy()) for part in parts])
    assert ours(x).item() == pytest.approx(expected, rel=tolerance(name), abs=1e-12)


@every
def test_gradient_equals_finite_differences(name):
    ours, _ = CASES[name]
    assert torch.autograd.gradcheck(ours, (batch(name, 6, D).requires_grad_(),), atol=1e-6, rtol=1e-5)


@every
def test_collapsed_features_give_finite_gradients(name):
    ours, _ = CASES[name]
    for point in (torch.zeros(16, D), 100 * torch.ones(16, D), 100 * torch.randn(16, 1) @ torch.randn(1, D)):
        x = (torch.stack((point, point)) if name == "barlow" else point).requires_grad_()
        (grad,) = torch.autograd.grad(ours(x), x)
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("make", REGULARIZERS.values(), ids=REGULARIZERS)
def test_each_serves_as_a_penalty_and_says_what_it_measured(make):
    module, x = make(), torch.randn(2, 9, 16, dtype=torch.float64, requires_grad=True)
    value, statistics = copy.deepcopy(module).measure(x)
    loss, terms = sj.LeJEPAObjective({"it": sj.Penalty(module, weight=0.5, views="separate")})(x)
    loss.backward()
    assert x.grad.isfinite().all()
    assert terms["it"].item() == pytest.approx(value.item())
    assert {f"it/{key}" for key in statistics} == terms.keys() - {"it", "prediction"} != set()
    assert not any(value.requires_grad for value in terms.values())
    if isinstance(module, HamSIGReg):
        assert statistics.keys() == {"epps_pulley", "condition"}


@pytest.mark.parametrize("n", [7, 64])  # fewer samples than coordinates, and more
@pytest.mark.parametrize(
    "name",
    ["variance", "log_det", "participation", "participation_full", "top", "vicreg", "barlow", "mmd", "sliced_mmd"],
)
def test_a_large_mean_costs_no_digits(name, n):
    """In float32, against the very same numbers in float64: the value and the gradient."""
    x, ours = (batch(name, n, D) + 3000).float(), CASES[name][0]
    narrow, wide = (z.requires_grad_() for z in (x.clone(), x.double()))
    values = [ours(z) for z in (narrow, wide)]
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-6)
    grads = [torch.autograd.grad(value, z)[0] for value, z in zip(values, (narrow, wide), strict=True)]
    assert (grads[0] - grads[1]).norm() <= 3e-6 * grads[1].norm()


@pytest.mark.parametrize("name", ["vicreg", "barlow", "participation_full", "coding_rate"])
def test_matrices_are_float32_where_that_is_enough(name):
    """On one rank no D × D matrix is float64, except that of the coding rate, whose identity would be lost."""
    x = batch(name, 64, D).float().requires_grad_()
    with Largest(torch.float64) as wide:
        torch.autograd.grad(CASES[name][0](x), x)
    assert (wide.numel >= D * D) == (name == "coding_rate")


def test_barlow_twins_takes_two_views_either_way():
    x, twins = batch("barlow", 9, D), BarlowTwins()
    assert torch.equal(twins(x[0], x[1]), twins(x))
    assert twins(x[0], x[0].clone()) < twins(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert twins(x[0].bfloat16(), x[1].bfloat16()).dtype == torch.float32


def test_coding_rate_of_many_rows_and_of_few_are_one_formula():
    x = samples(3, 5, D)
    few = CodingRate(eps=0.3)(x).item()
    assert few == pytest.approx(np.mean([oracles.coding_rate(part, 0.3) for part in x.numpy()]), rel=1e-9)
    values = torch.linalg.svdvals(x[0])
    rate = 0.5 * torch.log1p(D / (5 * 0.09) * values.square()).sum()
    assert CodingRate(eps=0.3)(x[0]).item() == pytest.approx(-rate.item(), rel=1e-9)
    collapsed = CodingRate()(1e3 * torch.randn(64, 1) @ torch.randn(1, 512))
    assert torch.isfinite(collapsed)


def test_bad_arguments_are_named():
    x = samples(10, D)
    for call, error, message in (
        (lambda: EnergyBudget(0), ValueError, "target must be a finite number > 0, got 0"),
        (lambda: VarianceFloor(-1), ValueError, "floor must be a finite number > 0, got -1"),
        (SpectralFloors, ValueError, "at least one of log_det"),
        (lambda: ParticipationRatioFloor(1.5), ValueError, "floor must lie between 0 and 1, got 1.5"),
        (lambda: TopEigenvalueCeiling(-1), ValueError, "ceiling must lie between 0 and 1, got -1"),
        (lambda: ProjectedLogDetFloor(refresh_every=0), ValueError, "refresh_every must be an int >= 1, got 0"),
        (lambda: ProjectedLogDetFloor(proj_dim=0), ValueError, "proj_dim must be an int >= 1, got 0"),
        (lambda: ProjectedLogDetFloor(seed=-1), ValueError, "seed must be an int >= 0, got -1"),
        (lambda: SIGReg(knots=1), ValueError, "knots must be an int >= 2, got 1"),
        (lambda: SIGReg(t_max=0), ValueError, "t_max must be a finite number > 0, got 0"),
        (lambda: EnergyBudget()(x[0]), ValueError, r"x must have shape \(..., N >= 1, D >= 1\), got \(12,\)"),
        (lambda: ProjectedLogDetFloor()(x[:1]), ValueError, r"N >= 2, D >= 1\), got \(1, 12\)"),
        (lambda: MeanPenalty()(x.long()), TypeError, "floating-point tensor, got dtype torch.int64"),
        (lambda: SIGReg()(x, directions=A.T), ValueError, r"directions must have shape \(12, k >= 1\), got \(5, 12\)"),
        (lambda: ProjectedLogDetFloor()(x, projection=R.T), ValueError, r"shape \(12, k >= 1\), got \(4, 12\)"),
        (lambda: HamSIGReg(nn.Identity()), TypeError, "geometry must be a Geometry, got Identity"),
        (lambda: HamSIGReg(GEOMETRY)(x, directions=A.T), ValueError, r"directions must have shape \(12, k >= 1\)"),
        (lambda: HamSIGReg(LaplacianGeometry((5, 2)))(x), ValueError, r"x of shape \(10, 12\) does not fit"),
        (lambda: HamSIGReg(DiagonalGeometry(torch.ones(3)))(x), ValueError, "does not fit the geometry Diag"),
        (lambda: MMD(bandwidth=0), ValueError, "bandwidth must be a finite number > 0, got 0"),
        (lambda: SlicedMMD(slices=0), ValueError, "slices must be an int >= 1, got 0"),
        (
            lambda: SlicedMMD()(x, directions=A.T),
            ValueError,
            r"directions must have shape \(12, k >= 1\), got \(5, 12\)",
        ),
        (lambda: VICReg(variance=-1), ValueError, "variance must be a finite number >= 0, got -1"),
        (lambda: VICReg()(x[:1]), ValueError, r"N >= 2, D >= 1\), got \(1, 12\)"),
        (lambda: BarlowTwins()(x), ValueError, r"two views, \(2, ..., N, D\), got \(10, 12\)"),
        (lambda: BarlowTwins()(samples(3, 5, D)), ValueError, r"two views, \(2, ..., N, D\), got \(3, 5, 12\)"),
        (lambda: BarlowTwins()(x, x[:5]), ValueError, r"other must have the shape of x, \(10, 12\), got \(5, 12\)"),
        (lambda: CodingRate(eps=0), ValueError, "eps must be a finite number > 0, got 0"),
    ):
        with pytest.raises(error, match=message):
            call()

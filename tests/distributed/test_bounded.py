"""Rows that the ranks share equal the same rows in one process; statistics keep their digits at a large mean."""

import pytest
import torch

from tests.distributed import bounded_cases as cases
from tests.distributed.ddp_cases import SHARDS
from tests.helpers.ranks import launch, relative_error

WORLDS = (2, 3)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounded")
    return {world: launch("bounded_cases.py", world, folder) for world in WORLDS}


def compare(got, expected, world, bound):
    """On every rank: the value of all rows, and the gradient at its own."""
    value, grad = expected
    for (found, part), wanted in zip(got, grad.split(SHARDS[world], 1), strict=True):
        assert relative_error(found.double(), value) <= bound
        assert ((part - wanted).norm() / grad.norm()).item() <= bound


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("dim", [cases.D, cases.WIDE])
@pytest.mark.parametrize("name", cases.REGULARIZERS)
def test_values_and_gradients_equal_one_process(results, name, dim, world):
    expected = cases.run(name, dim, 0.0, torch.float64, 0, 1)
    assert expected[0].abs() > 1e-4
    compare([rank[name, dim, 0.0, "torch.float64"] for rank in results[world]], expected, world, 1e-10)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("dim", [cases.D, cases.WIDE])
@pytest.mark.parametrize("name", sorted(cases.REGULARIZERS.keys() - {"coding_rate"}))  # not of rows minus their mean
def test_a_large_mean_costs_no_digits(results, name, dim, world):
    """The very same float32 numbers in float64, in one process."""
    x = cases.batch(dim, cases.MEAN).double().requires_grad_()
    value = cases.REGULARIZERS[name]()(x)
    (grad,) = torch.autograd.grad(value, x)
    got = [rank[name, dim, cases.MEAN, "torch.float32"] for rank in results[world]]
    compare(got, (value.detach(), grad), world, 1e-5)


@pytest.mark.parametrize("world", WORLDS)
def test_blocks_of_a_rank_and_the_transforms_of_torch_func_give_the_same(results, world):
    expected = cases.run("mmd", cases.D, 0.0, torch.float64, 0, 1)
    compare([rank["blocks"] for rank in results[world]], expected, world, 1e-10)
    compare([(expected[0], rank["grad"]) for rank in results[world]], expected, world, 1e-10)


def test_a_rank_without_samples_adds_no_pairs(results):
    for name in results[2][0]["empty"]:
        x = cases.batch(cases.WIDE, 0.0).double()[0].requires_grad_()
        value = cases.REGULARIZERS[name]()(x)
        (grad,) = torch.autograd.grad(value, x)
        for rank, (got, part) in enumerate(x["empty"][name] for x in results[2]):
            assert relative_error(got, value.detach()) <= 1e-10, name
            assert (part - grad).norm() <= 1e-10 * grad.norm() if rank else not part.any(), name


@pytest.mark.parametrize("world", WORLDS)
def test_an_mmd_exchanges_its_rows_once(results, world):
    for rank in results[world]:
        rows = [n for n in rank["numbers sent"] if n > 1]  # a single number: the ranks compare their settings
        assert rows == [2 * max(SHARDS[world]) * cases.D]


@pytest.mark.parametrize("world", WORLDS)
def test_evaluations_of_shared_rows_equal_those_of_one_process(results, world):
    expected = cases.evaluations(cases.labelled(), None)
    knn = [tuple(accuracy) for accuracy in expected["knn"].values()]
    assert len(set(knn)) == len(cases.KS)
    for rank in results[world]:
        got = rank["evaluations"]
        assert got["knn"] == knn
        assert got["probe"][:2] == expected["probe"][:2]
        torch.testing.assert_close(got["probe"][2], expected["probe"][2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(got["spectrum"], expected["spectrum"], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(got["uniformity"], expected["uniformity"], rtol=1e-12, atol=0)

"""Loss and every gradient on 2, 3 and 4 real processes equal one process on the concatenated batch."""

import copy

import pytest
import torch

from symplectic_jepa import EnergyBudget
from symplectic_jepa.distributed import Ranks
from tests.distributed import alone_case, group_cases
from tests.distributed.ddp_cases import CASES, SHARDS, Model, data, run
from tests.helpers.ranks import launch, relative_error

WORLDS = (2, 3, 4)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Every rank's results: one launch per number of ranks serves all tests."""
    folder = tmp_path_factory.mktemp("ddp")
    return {world: launch("ddp_cases.py", world, folder) for world in WORLDS}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_equal_one_process_on_the_whole_batch(results, name, dtype, bound, world):
    expected = run(name, dtype, rank=0, world=1)
    # A bias that the loss does not see has a gradient of mere rounding: it is measured against the largest gradient.
    scale = max(v.norm() for k, v in expected.items() if k != "loss")
    for rank in results[world]:
        got = rank[name, str(dtype)]
        assert got.keys() == expected.keys()
        assert relative_error(got["loss"], expected["loss"]) <= bound
        for key, value in expected.items():
            if key != "loss":
                error = (got[key] - value).norm() / max(value.norm(), 0.1 * scale)
                assert error <= bound, key


def test_a_compiled_objective_is_exact_too(results):
    expected = run("hamjepa_q", torch.float64, rank=0, world=1)
    for rank in results[2]:
        for key, value in rank["compiled", "hamjepa_q"].items():
            assert relative_error(value, expected[key]) <= 1e-10, key


@pytest.mark.parametrize("world", WORLDS)
def test_the_comparison_catches_a_sum_that_autograd_does_not_see(results, world):
    expected = run("mean_penalty", torch.float64, rank=0, world=1)
    got = results[world][0]["unseen", "torch.float64"]
    key = "encoder.2.bias"
    assert relative_error(got["loss"], expected["loss"]) < 1e-10  # the loss looks right …
    assert (expected[key].norm() / got[key].norm()).item() == pytest.approx(world, rel=1e-6)  # … the gradient is not


@pytest.mark.parametrize("world", WORLDS)
def test_a_whole_objective_needs_one_collective_each_way(results, world):
    assert [rank["collectives", "hamjepa_q"]["calls"].item() for rank in results[world]] == [2] * world


@pytest.mark.parametrize("world", WORLDS)
def test_an_objective_of_the_local_batch_needs_none(results, world):
    assert [rank["collectives", "local"]["calls"].item() for rank in results[world]] == [0] * world


def test_one_rank_evaluates_alone_in_eval_mode_and_does_not_wait(tmp_path):
    first, second = launch("alone_case.py", 2, tmp_path)
    x = data(torch.float64)
    for name in CASES:
        model = Model(name).double()
        torch.testing.assert_close(first["together"][name], second["together"][name])
        torch.testing.assert_close(first["together"][name], alone_case.values(copy.deepcopy(model), x))
        local = alone_case.values(model.eval(), x[:, : SHARDS[2][0]])
        torch.testing.assert_close(first["alone"][name], local)
        if name != "energy_budget":
            assert relative_error(local, first["together"][name]) > 1e-6, name
    expected = run("hamjepa_q", torch.float64, rank=0, world=1, steps=1)
    mean = {key: (value + second["grad"][key]) / 2 for key, value in first["grad"].items()}  # as DDP averages
    for key, value in mean.items():
        assert relative_error(value, expected[key]) < 1e-10, key


def test_groups_of_ranks_keep_their_statistics_apart(tmp_path):
    """Loss and gradients of each group are those of one process on that group's batch, not on the world's."""
    expected = [group_cases.run(group_cases.objective, 0, 1, seed=group) for group in range(2)]
    assert relative_error(expected[0]["loss"], expected[1]["loss"]) > 1e-3
    plain = [group_cases.run(group_cases.without_mmd, 0, 1, seed=group) for group in range(2)]
    x = data(torch.float64)[0]
    squares = [part.mean(0).square().mean() for part in (x, x[: sum(SHARDS[4][:2])], x[sum(SHARDS[4][:2]) :])]
    for rank, got in enumerate(launch("group_cases.py", 4, tmp_path)):
        for name, wanted in (("group", expected), ("mesh", expected), ("compiled", plain)):
            for key, value in wanted[rank // 2].items():
                assert relative_error(got[name][key], value) <= 1e-10, (name, key)
        local = x.split(SHARDS[4])[rank].mean(0).square().mean()
        group = squares[1 + rank // 2]
        torch.testing.assert_close(got["shared"]["values"], torch.stack((local, squares[0], group, squares[0], group)))
        assert got["shared"]["sync"]
        assert "that this rank belongs to" in got["refusals"][0]
        assert "DeviceMesh with one dimension" in got["refusals"][1]

        for name, (wanted, calls) in nested_in_one_process(rank).items():
            found = got["nested"][name]
            assert found["calls"] == calls, name
            for key in ("loss", "grad"):
                torch.testing.assert_close(found[key], wanted[key], rtol=1e-10, atol=1e-12, msg=f"{name}, {key}")


def nested_in_one_process(rank):
    """Of each case: loss and gradient, which DDP would average over the group, and the collectives both ways."""
    shard = data(torch.float64).split(SHARDS[4], dim=1)[rank]
    local = group_cases.nested(0, 1, x=shard)
    whole = group_cases.nested(0, 1)
    part = whole["grad"].split(SHARDS[2], dim=1)[rank % 2]
    group = {"loss": whole["loss"], "grad": 2 * part}
    # In a group: one for the objective and one for each regularizer inside the user's penalty, both ways.
    return {"local": (local, 0), "compiled": (local, 0), "group": (group, 6), "compiled group": (group, 6)}


def test_without_a_process_group_nothing_is_reduced():
    assert (Ranks().size, Ranks().rank, Ranks().shared) == (1, 0, False)
    x = [torch.ones(3), torch.zeros(())]
    assert all(a is b for a, b in zip(Ranks().sum(x), x, strict=True))
    assert EnergyBudget(sync=False)(torch.ones(4, 2)) == 0

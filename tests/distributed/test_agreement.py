"""Ranks that disagree get an error that names what differs; arrangements of ranks other than plain data parallelism."""

import pytest
import torch

import symplectic_jepa as sj
from tests.distributed import agreement_cases, empty_cases
from tests.distributed.ddp_cases import CASES, data, run
from tests.helpers.ranks import launch, relative_error

# What the error names: the rank that differs from the others, and the setting.
NAMED = {
    "weight": "rank {odd}: penalties.mean.weight = 0.5, but 0.05 on rank {usual}",
    "reversed_order": "rank {odd}: penalties = ('mean', 'spectrum_p', ",
    "renamed": "rank {odd}: penalties = ('budget_q', ",
    "longer": "rank {odd}: penalties = ('budget_q', ",
    "with_mmd": "rank {odd}: penalties = ('budget_q', ",
    "shorter": "rank {odd}: penalties.spectrum_p.regularizer.proj_dim = 3, but 5 on rank {usual}",
    "seeded": "rank {odd}: penalties.spectrum_p.regularizer.seed = 11, but 4 on rank {usual}",
    "predictor_setting": "rank {odd}: prediction.predictor.hamiltonian.residual_scale = 0.25, but 0.5 on rank {usual}",
    "scale": "rank {odd}: regularizer_scale = 10.0, but 1.0 on rank {usual}",
    "dimension": "rank {odd}: lengths of the statistics = (1, 20), but (1, 24) on rank {usual}",
    "alone": "rank {odd}: seed = 1, but 0 on rank {usual}",
    "alone_length": "rank {odd}: slices = 8, but 7 on rank {usual}",
    "compiled": "rank {odd}: penalties.mean.weight = 0.5, but 0.05 on rank {usual}",
    "step_set": "rank {odd}: counters of random draws = (5, 5), but (4, 4) on rank {usual}",
    "function": "rank {odd}: penalties.spectrum_p.regularizer.seed = 11, but 4 on rank {usual}",
}


@pytest.fixture(scope="module", params=[2, 3])
def disagreements(request, tmp_path_factory):
    """Every rank's errors and losses."""
    return launch("agreement_cases.py", request.param, tmp_path_factory.mktemp("agreement"))


@pytest.mark.parametrize("name", NAMED)
def test_every_rank_names_the_one_that_differs_and_in_what(disagreements, name):
    assert agreement_cases.OTHER == 1
    if len(disagreements) == 3 and name in agreement_cases.COMPILED:
        pytest.skip("compiled on two ranks only")
    for rank in disagreements:
        assert NAMED[name].format(odd=1, usual=0) in str(rank[name])
        assert "rank 2" not in str(rank[name])  # it is like rank 0


@pytest.mark.parametrize("name", ["loaded", "loaded_compiled", "loaded_alone"])
def test_a_checkpoint_that_rank_0_alone_loads_is_an_error_at_the_next_step(disagreements, name):
    if len(disagreements) == 3 and name in agreement_cases.COMPILED:
        pytest.skip("compiled on two ranks only")
    for rank in disagreements:
        before, error = rank[name]
        assert before > 0
        # The usual counter is that of the majority; of two ranks, that of rank 0.
        odd, usual = (0, 1) if len(disagreements) == 3 else (1, 0)
        assert f"rank {odd}: " in error
        assert "counters of random draws = (" in error
        assert f"on rank {usual}" in error


def test_a_copy_is_compared_anew_and_a_common_load_is_no_error(disagreements):
    for rank in disagreements:
        before, error = rank["copied"]
        assert before > 0
        assert "rank 1: penalties.mean.weight = 7.0, but 0.05 on rank 0" in error
        assert rank["all_loaded"] == disagreements[0]["all_loaded"]
        assert all(isinstance(value, float) for value in rank["all_loaded"])


def test_settings_are_compared_once_and_counters_within_the_all_reduce(disagreements):
    for rank in disagreements:
        first, second, third = rank["collectives"]
        assert first == {"all_gather": 1, "all_reduce": 1, "all_gather_object": 0}
        assert second == third == {"all_gather": 0, "all_reduce": 1, "all_gather_object": 0}


@pytest.mark.parametrize("world", empty_cases.SHARDS)
def test_a_rank_without_samples_adds_nothing(tmp_path, world):
    results = launch("empty_cases.py", world, tmp_path)
    for name in CASES:
        expected = run(name, torch.float64, rank=0, world=1)
        scale = max(v.norm() for k, v in expected.items() if k != "loss")
        for rank in results:
            assert rank[name].keys() == expected.keys()
            for key, value in expected.items():
                error = (rank[name][key] - value).norm() / max(value.norm(), 0.1 * scale)
                assert error <= 1e-10, (name, key)
    alone = sj.SIGReg(slices=7).double()(data(torch.float64))
    for rank in results:
        torch.testing.assert_close(rank["nested"], alone)


def test_other_arrangements_of_four_ranks(tmp_path):
    expected = run("hamjepa_q", torch.float64, rank=0, world=1)
    sigreg = sj.SIGReg(slices=7).double()(data(torch.float64))
    for rank, got in enumerate(launch("topology_cases.py", 4, tmp_path)):
        for name in ("tensor_parallel", "pipeline", "hsdp"):
            for key, value in got.get(name, {}).items():
                assert relative_error(value, expected[key]) <= 1e-10, (name, key)
        assert got["tensor_parallel"].keys() == expected.keys()
        assert any(key.startswith("loss." if rank > 1 else "encoder.") for key in got["pipeline"])
        if rank < 2:
            torch.testing.assert_close(got["two_jobs"]["loss"], sigreg)
        else:
            assert "rank 3: seed = 1, but 0 on rank 2" in got["two_jobs"]["error"]

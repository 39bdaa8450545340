"""Losses and gradients under FSDP2 equal one process on the concatenated batch, whatever the units."""

import pytest
import torch

from tests.distributed import fsdp_case, unit_case
from tests.distributed.ddp_cases import run
from tests.helpers.ranks import launch, relative_error

pytestmark = pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="FSDP2 of torch 2.6 needs streams that record events, no CPU has them"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return launch("fsdp_case.py", 2, tmp_path_factory.mktemp("whole"))


def test_a_model_sharded_by_fsdp2_has_the_same_gradients(whole):
    expected = run("hamjepa_q", torch.float64, rank=0, world=1)
    for rank in whole:
        got = rank["float64"]
        assert got["share"] < 0.8  # it is sharded
        for key, value in expected.items():
            assert relative_error(got[key], value) < 1e-10, key


@pytest.mark.parametrize(
    ("case", "policy", "weights"),
    [("encoder", fsdp_case.FLOAT32, "torch.float32"), ("everything", fsdp_case.BF16, "torch.bfloat16")],
)
def test_the_objective_computes_in_float32_under_a_bfloat16_policy(whole, case, policy, weights):
    """States and arithmetic do so in any case; weights keep float32 where the policy leaves them alone."""
    expected = fsdp_case.by_hand(policy)
    for rank in whole:
        got, seen = rank[case]
        assert seen == [(weights, "torch.float32")]
        assert got["loss"].dtype == torch.float32
        assert relative_error(got["loss"], expected["loss"]) < 1e-5
        scale = max(value.norm() for key, value in expected.items() if key != "loss")
        for key, value in expected.items():
            if key != "loss":  # a small gradient is a sum of large ones of both signs
                rounded = key.startswith("encoder") or policy is fsdp_case.BF16
                error = (got[key] - value).norm() / max(value.norm(), 0.1 * scale)
                assert error < (2e-2 if rounded else 1e-5), key


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    return launch("unit_case.py", 2, tmp_path_factory.mktemp("units"))


@pytest.mark.parametrize(("name", "unit", "root"), [(n, u, r) for n, u, _, r in unit_case.cases()])
def test_a_predictor_and_its_hamiltonian_can_be_units(units, name, unit, root):
    model = unit_case.Model(name, encoder=root)
    expected = unit_case.run(model, unit_case.data())
    for got in units:
        found = got[name, unit, root]
        if name == "reversible" and unit in ("Hamiltonian", "both"):
            assert found.startswith("gradient='reversible' needs the Hamiltonian's weights during the whole rollout")
            continue
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert relative_error(found[key], value) < 1e-12, key
        if unit != "objective":
            for key, value in unit_case.outside(model, unit, unit_case.data()[0]).items():
                torch.testing.assert_close(got["outside", name, unit, root][key], value.detach(), rtol=1e-12, atol=0)


def test_smaller_units_are_refused_by_name(units):
    for got in units:
        for label, (_, _, parameter) in unit_case.REFUSED.items():
            for root in (False, True):
                assert got["refused", label, root].startswith(f"{parameter} must be gathered before the predictor runs")
        assert got["refused", "layer alone"].startswith("hidden.1 must be an nn.Linear without hooks")
        assert "With FSDP2, call fully_shard on the model" in got["refused", "layer alone"]

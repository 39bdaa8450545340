"""Faults that an outside tester found: each was silent, or an error that named nothing."""

import json

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.geometries import LaplacianGeometry, RadialGeometry
from tests.helpers.samples import samples, states

D = 4


def test_first_arguments_may_be_given_by_name():
    objective = sj.HamJEPAObjective(sj.HamiltonianPredictor(sj.SeparableHamiltonian(D)))
    z_a, z_b = both = states(10, 2 * D)
    assert torch.equal(objective(states=both).loss, objective(both).loss)
    assert torch.equal(objective.prediction_loss(z_a=z_a, z_b=z_b), objective.prediction_loss(z_a, z_b))
    assert torch.equal(sj.SIGReg(slices=4)(x=z_a), sj.SIGReg(slices=4)(z_a))
    trajectory = sj.TrajectoryObjective(objective.predictor, horizon=1)
    assert torch.equal(trajectory(states=both, controls=None).loss, trajectory(both).loss)
    with pytest.raises(TypeError, match="states must be given to HamJEPAObjective"):
        objective()
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(states=both).loss, objective(both).loss)


@pytest.mark.parametrize("dt", [710.0, 1e300])
def test_a_large_step_size_is_only_that(dt):
    assert sj.HamiltonianPredictor(sj.QuadraticHamiltonian(D), dt=dt).dt == dt
    torch.testing.assert_close(sj.ResidualMLPPredictor(D, dt=700.0, learn_dt=True).dt.item(), 700.0)


@pytest.mark.parametrize("returned", [1j, 2.0, None, (1.0,)])
def test_a_penalty_must_return_a_real_tensor(returned):
    value = torch.tensor(returned) if isinstance(returned, complex) else returned
    objective = sj.LeJEPAObjective({"mine": sj.Penalty(lambda x: value)})
    with pytest.raises(TypeError, match="the value of a regularizer must be a floating-point tensor"):
        objective(states(10, 2 * D))


class HandHeld(nn.Module):
    """A potential whose batch norm keeps its statistics in buffers that no version tells about."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(D))
        self.register_buffer("var", torch.ones(D))

    def forward(self, q):
        return nn.functional.batch_norm(q, self.mean, self.var, training=self.training).square().sum(-1)


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(D)
        self.norm.num_batches_tracked = None

    def forward(self, q):
        return self.norm(q).square().sum(-1)


@pytest.mark.parametrize("potential", [HandHeld, Counted])
def test_running_statistics_without_a_version_are_seen_by_the_reversible_gradient(potential):
    system = sj.PotentialHamiltonian(potential())
    q, p = torch.randn(2, 8, D)
    q.requires_grad_()
    with pytest.raises(RuntimeError, match="changes its tensors, such as the running statistics"):
        sj.leapfrog(system, q, p, dt=0.1, steps=2, gradient="reversible")
    system.eval()
    sj.leapfrog(system, q, p, dt=0.1, steps=2, gradient="reversible")


@pytest.mark.parametrize("geometry", [LaplacianGeometry, RadialGeometry])
def test_a_geometry_built_on_meta_works_with_an_assigned_state(geometry):
    real = sj.HamSIGReg(geometry((2, 2)), slices=8)
    with torch.device("meta"):
        empty = sj.HamSIGReg(geometry((2, 2)), slices=8)
    empty.load_state_dict(real.state_dict(), assign=True)
    x = samples(20, 16)
    assert torch.equal(empty(x), real(x))


def test_bias_correction_reaches_the_floors_of_an_objective():
    floors = sj.Floors(log_det=-1.0, participation=0.5, proj_dim=3, bias_correction=True)
    penalty = sj.hamjepa_penalties(q=floors)["spectrum_q"]
    assert penalty.regularizer.bias_correction
    assert not sj.hamjepa_penalties()["spectrum_q"].regularizer.bias_correction


@pytest.mark.parametrize("content", [json.dumps({"model_type": "vit"}), "[1]", "not JSON"])
def test_a_save_does_not_replace_the_settings_of_another_library(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"folder must not hold a config.json of another library, got .*config.json"):
        sj.MeanPenalty().save_pretrained(tmp_path)
    assert [x.name for x in tmp_path.iterdir()] == ["config.json"]
    assert path.read_text() == content
    path.unlink()
    sj.MeanPenalty().save_pretrained(tmp_path)
    sj.VICReg().save_pretrained(tmp_path)  # our own may be replaced
    assert isinstance(sj.VICReg.from_pretrained(tmp_path), sj.VICReg)

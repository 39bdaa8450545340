"""What a user extends: any map, control, a prediction loss of one's own, settings that are changed."""

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa import EnergyBudget, HamJEPAObjective, Penalty
from symplectic_jepa.objectives import Objective, PredictionLoss, mean_over_samples
from symplectic_jepa.predictors import Predictor
from tests.helpers.oracles import textbook_leapfrog
from tests.helpers.samples import states
from tests.helpers.systems import small_predictor

D = 4


class TwoMatrices(Predictor):
    """A linear map for each direction, and no step size."""

    def __init__(self, control_dim=0):
        super().__init__()
        self.ahead, self.back = (nn.Linear(2 * D + control_dim, 2 * D, dtype=torch.float64) for _ in range(2))

    def flow(self, q, p, *, direction=1, control=None):
        if direction not in (1, -1):
            return self.each_direction(q, p, direction=direction, control=control)
        layer = self.ahead if direction == 1 else self.back
        return layer(torch.cat((q, p, *([] if control is None else [control])), -1)).chunk(2, -1)


@pytest.mark.parametrize("reverse_time", [True, False])
def test_any_map_is_a_predictor(reverse_time):
    phi, (a, b) = TwoMatrices(), states(10, 2 * D)
    loss, _ = HamJEPAObjective(phi, match="qp", reverse_time=reverse_time)(torch.stack((a, b)))
    back = phi.back if reverse_time else phi.ahead
    expected = 0.5 * ((phi.ahead(a) - b).square().mean() + (back(b) - a).square().mean())
    torch.testing.assert_close(loss, expected)
    got, wanted = (torch.autograd.grad(x, back.weight, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(got, wanted)
    with pytest.raises(TypeError, match="abstract"):
        Predictor()


@pytest.mark.parametrize("per_view", [False, True])
def test_any_map_may_take_a_control(per_view):
    phi, (a, b) = TwoMatrices(control_dim=3), states(10, 2 * D)
    u = torch.randn(*([2] if per_view else []), 10, 3, dtype=torch.float64)
    u_a, u_b = u if per_view else (u, u)
    expected = 0.5 * ((phi.ahead(torch.cat((a, u_a), -1)) - b).square().mean() + (
        phi.back(torch.cat((b, u_b), -1)) - a).square().mean())  # fmt: skip
    torch.testing.assert_close(HamJEPAObjective(phi, match="qp")(torch.stack((a, b)), u).loss, expected)


@pytest.mark.parametrize("integrator", [sj.leapfrog, sj.symplectic_euler])
def test_a_control_trains_the_input_matrix(integrator):
    """One step of the textbook, ``p ← p + h(−q + Bu)`` before (Euler) or around the drift (leapfrog)."""
    a, b = states(10, 2 * D)
    u = torch.randn(10, 3, dtype=torch.float64)
    matrix = nn.Parameter(torch.randn(D, 3, dtype=torch.float64))
    system = sj.ControlledHamiltonian(sj.QuadraticHamiltonian(D), matrix)
    phi = sj.HamiltonianPredictor(system, dt=0.1, steps=1, integrator=integrator)
    objective = HamJEPAObjective(phi, match="qp", energy_weight=0.5)
    (got,) = torch.autograd.grad(objective(torch.stack((a, b)), u).loss, matrix)

    def step(z, h):
        q, p = z.chunk(2, -1)
        force = lambda q: u @ matrix.T - q  # noqa: E731
        if integrator is sj.leapfrog:
            return torch.cat(textbook_leapfrog(force, q, p, dt=h), -1)
        if h > 0:
            p = p + h * force(q)
            return torch.cat((q + h * p, p), -1)
        q = q + h * p  # the inverse of the step above
        return torch.cat((q, p + h * force(q)), -1)

    def energy(z):
        q = z[..., :D]
        return 0.5 * z.square().sum(-1) - (q * (u @ matrix.T)).sum(-1)

    def loss(z, target, h):
        end = step(z, h)
        return (end - target).square().mean() + 0.5 * (energy(end) - energy(z).detach()).square().mean()

    (expected,) = torch.autograd.grad(0.5 * (loss(a, b, 0.1) + loss(b, a, -0.1)), matrix)
    assert expected.abs().min() > 0
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(objective.prediction_loss(a, b, control=u), 0.5 * (loss(a, b, 0.1) + loss(b, a, -0.1)))


def test_a_missing_or_useless_control_is_refused():
    z, u = states(10, 2 * D), torch.randn(10, 3, dtype=torch.float64)
    system = sj.ControlledHamiltonian(sj.QuadraticHamiltonian(D), torch.randn(D, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"control must be given .* would get no gradient"):
        HamJEPAObjective(sj.HamiltonianPredictor(system))(z)
    for objective in (
        HamJEPAObjective(small_predictor()),
        HamJEPAObjective(sj.ResidualMLPPredictor(D)),
        sj.sigreg_baseline(),
    ):
        with pytest.raises(TypeError, match="control must be None"):
            objective(z, u)


def test_an_objective_of_ones_own_prediction_loss_and_regularizer():
    class Distance(PredictionLoss):
        views = 2

        def reduction(self, parts, control):
            return mean_over_samples(self.scale * (parts["z"][0] - parts["z"][1]).square().mean(-1))

    class Kurtosis(nn.Module):
        def forward(self, x):
            return (x.pow(4).mean() - 3).square()

    z, prediction = states(10, 2 * D), Distance()
    prediction.scale = 3.0
    objective = Objective(prediction, {"kurtosis": Penalty(Kurtosis(), on="p", weight=0.5)}, prediction_weight=0.25)
    loss, terms = objective(z)
    torch.testing.assert_close(terms["prediction"], 3 * (z[0] - z[1]).square().mean())
    torch.testing.assert_close(terms["kurtosis"], (z[..., D:].pow(4).mean() - 3).square())
    torch.testing.assert_close(loss, 0.25 * terms["prediction"] + 0.5 * terms["kurtosis"], check_dtype=False)
    with pytest.raises(ValueError, match=r"\(V >= 2, B, D\)"):
        objective(z[:1])
    with pytest.raises(TypeError, match="prediction must be a PredictionLoss, got Linear"):
        Objective(nn.Linear(2, 2))


def test_settings_of_the_prediction_are_read_and_set_on_the_objective():
    z, objective = states(10, 2 * D), sj.hamjepa_cifar100(small_predictor())
    other = sj.ResidualMLPPredictor(D).double()
    objective.predictor, objective.match, objective.p_weight = other, "qp", 0.0
    assert objective.prediction.predictor is other
    assert sum(m is other for m in objective.modules()) == 1
    torch.testing.assert_close(
        objective(z).terms["prediction"], HamJEPAObjective(other, match="qp").prediction_loss(*z)
    )


def test_the_residual_scale_reaches_the_energy_wherever_it_is():
    z, inner = states(10, 2 * D), sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=0.5).double()
    system = sj.ControlledHamiltonian(inner, torch.ones(D, 1, dtype=torch.float64))
    for hamiltonian in (inner, system):
        objective = HamJEPAObjective(sj.HamiltonianPredictor(hamiltonian))
        objective.set_residual_scale(0.25)
        assert inner.residual_scale == 0.25
        objective.set_residual_scale(0.5)
    for objective in (HamJEPAObjective(sj.ResidualMLPPredictor(D).double()), sj.LeJEPAObjective()):
        before = objective(z).loss
        objective.set_residual_scale(0.25)  # there is nothing to scale
        assert torch.equal(objective(z).loss, before)
    with pytest.raises(ValueError, match="scale must be a finite number"):
        objective.set_residual_scale(float("nan"))


def test_weights_from_before_the_prediction_was_a_module_still_load():
    first, second = sj.hamjepa_cifar100(small_predictor()), sj.hamjepa_cifar100(small_predictor())
    model, other = nn.ModuleDict({"objective": first}), nn.ModuleDict({"objective": second})
    old = {key.replace("prediction.predictor", "predictor"): x for key, x in model.state_dict().items()}
    assert old.keys() != model.state_dict().keys()
    other.load_state_dict(old)
    weights = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in weights)


def test_a_penalty_that_is_no_scalar_is_refused():
    objective = HamJEPAObjective(small_predictor(), penalties={"bad": Penalty(lambda x: x.square().mean(0))})
    with pytest.raises(ValueError, match=r"must be a scalar tensor, got shape \(8,\)"):
        objective(states(10, 2 * D))


@pytest.mark.parametrize("sync", [True, False])
def test_an_objective_leaves_its_regularizers_alone(sync):
    regularizer = EnergyBudget()
    phi = small_predictor()
    objectives = [preset(phi, sync=sync) for preset in (sj.hamjepa_cifar100, sj.hamjepa_imagenet100)]
    objectives += [
        sj.sigreg_baseline(sync=sync),
        HamJEPAObjective(phi, penalties={"a": Penalty(regularizer)}, sync=sync),
    ]
    for objective in objectives:
        assert objective.sync == sync
        assert all(penalty.regularizer.sync for penalty in objective.penalties.values())
    with pytest.raises(AttributeError):
        regularizer.sync = False
    for bad in ("default", 0):
        with pytest.raises(TypeError, match="process_group must be a ProcessGroup"):
            EnergyBudget(process_group=bad)

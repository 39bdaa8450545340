"""The objectives against their formulas written out, and the presets against the paper's table."""

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa import EnergyBudget, HamJEPAObjective, Penalty
from symplectic_jepa.objectives import Objective, PredictionLoss, mean_over_samples
from symplectic_jepa.predictors import Predictor
from tests.helpers.cases import settings

D = 4


def predictor(scale=0.5, dt=0.1, **kwargs):
    h = sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=scale).double()
    return sj.HamiltonianPredictor(h, dt=dt, steps=2, **kwargs)


def states(views=2, batch=10):
    return torch.randn(views, batch, 2 * D, dtype=torch.float64)


def match_q(predicted, target, w):
    q, p = ((predicted - target) ** 2).mean(0).chunk(2)
    return q.mean() + w * p.mean()


def match_qp(predicted, target, w):
    return ((predicted - target) ** 2).mean()


@pytest.mark.parametrize(("match", "w", "formula"), [("q", 0.0, match_q), ("q", 0.2, match_q), ("qp", 0.0, match_qp)])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("reverse_time", [True, False])
@pytest.mark.parametrize(
    "integrator", [sj.leapfrog, sj.symplectic_euler, sj.implicit_midpoint]
)  # the latter two in two calls
def test_prediction_loss_is_the_formula(match, w, formula, bidirectional, reverse_time, integrator):
    phi, (a, b) = predictor(integrator=integrator), states()
    objective = HamJEPAObjective(phi, match=match, p_weight=w, bidirectional=bidirectional, reverse_time=reverse_time)
    expected = formula(phi(a), b, w)
    if bidirectional:
        back = phi(b, direction=-1 if reverse_time else 1)
        expected = 0.5 * (expected + formula(back, a, w))
    torch.testing.assert_close(objective.prediction_loss(a, b), expected)
    loss, terms = objective(torch.stack((a, b)))
    torch.testing.assert_close(loss, expected)
    assert list(terms) == ["prediction"]


def test_gradients_stop_at_the_target_unless_asked():
    a, b = (z.requires_grad_() for z in states())
    one_way = HamJEPAObjective(predictor(), bidirectional=False)
    assert torch.autograd.grad(one_way.prediction_loss(a, b), b)[0].abs().sum() == 0
    attached = HamJEPAObjective(predictor(), bidirectional=False, detach_target=False)
    assert torch.autograd.grad(attached.prediction_loss(a, b), b)[0].abs().sum() > 0


def test_energy_consistency_is_added_in_each_direction():
    phi, (a, b) = predictor(), states()
    h = phi.hamiltonian
    plain = HamJEPAObjective(phi).prediction_loss(a, b)
    got = HamJEPAObjective(phi, energy_weight=3.0).prediction_loss(a, b)

    def drift(source, direction):
        end = phi(source, direction=direction)
        return (h(end[:, :D], end[:, D:]) - h(source[:, :D], source[:, D:])).square().mean()

    torch.testing.assert_close(got, plain + 3.0 * 0.5 * (drift(a, 1) + drift(b, -1)))


@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_gradient_of_the_energy_term_by_the_source_stops_at_its_start(weight):
    phi, z = predictor(scale=2.0, dt=0.5), states().requires_grad_()
    with_term, without = (HamJEPAObjective(phi, bidirectional=False, energy_weight=w)(z)[0] for w in (weight, 0.0))
    (got,) = torch.autograd.grad(with_term - without, z)
    source, h = z.detach()[0].requires_grad_(), phi.hamiltonian
    drift = h(*phi(source).chunk(2, -1)) - h(*source.detach().chunk(2, -1))  # which starts at a number
    (expected,) = torch.autograd.grad(weight * drift.square().mean(), source)
    torch.testing.assert_close(got[0], expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-4
    assert got[1].abs().max() < 1e-12


def test_total_is_the_weighted_sum_over_all_views_stacked():
    z, phi = states(views=3, batch=12), predictor()
    penalties = sj.hamjepa_penalties(
        q=sj.Floors(energy=1.0, std=2.0, log_det=3.0, participation=0.99, top_share=0.1, proj_dim=3),
        p=sj.Floors(energy=1.0, std=2.5, log_det=2.0, participation=0.98, top_share=0.2, proj_dim=3),
        budget=0.2, variance=0.5, spectrum=0.7, mean=0.05, seed=3,
    )  # fmt: skip
    objective = HamJEPAObjective(phi, p_weight=0.2, penalties=penalties)
    stacked = z.reshape(36, 2 * D)
    q, p = stacked[:, :D], stacked[:, D:]
    expected = objective.prediction_loss(z[0], z[1])
    expected = expected + 0.2 * (EnergyBudget()(q) + EnergyBudget()(p))
    expected = expected + 0.5 * (sj.VarianceFloor(2.0)(q) + sj.VarianceFloor(2.5)(p))
    floors_q = sj.SpectralFloors(log_det=3.0, participation=0.99, top_share=0.1, proj_dim=3, seed=3)
    floors_p = sj.SpectralFloors(log_det=2.0, participation=0.98, top_share=0.2, proj_dim=3, seed=4)
    expected = expected + 0.7 * (floors_q(q) + floors_p(p)) + 0.05 * sj.MeanPenalty()(stacked)
    loss, terms = objective(z)
    torch.testing.assert_close(loss, expected)
    weights = {name: penalty.weight for name, penalty in objective.penalties.items()} | {"prediction": 1.0}
    torch.testing.assert_close(sum(w * terms[k] for k, w in weights.items()), loss.detach())
    assert not any(v.requires_grad for v in terms.values())
    torch.testing.assert_close(terms["budget_p/energy"], p.square().mean())
    assert torch.equal(terms["spectrum_q/log_det"], floors_q.eval().measure(q).statistics["log_det"])
    assert objective.penalties["budget_q"](z) == terms["budget_q"]


def test_regularizer_scale_multiplies_every_penalty_but_not_the_prediction():
    z = states()
    objective = HamJEPAObjective(predictor(), penalties={"budget": Penalty(EnergyBudget(5.0), on="q", weight=2.0)})
    full, terms = objective(z)
    objective.set_regularizer_scale(0.25)
    torch.testing.assert_close(objective(z).loss, terms["prediction"] + 0.25 * 2.0 * terms["budget"])
    objective.set_regularizer_scale(0.0)
    torch.testing.assert_close(objective(z).loss, terms["prediction"])
    assert full > terms["prediction"]


@pytest.mark.parametrize("convention", ["sum", "convex"])
@pytest.mark.parametrize("views", ["separate", "stacked"])
def test_lejepa_is_the_formula(convention, views):
    z = states(views=5)
    objective = sj.LeJEPAObjective(
        sj.sigreg_penalties(weight=0.1, slices=6, knots=9, views=views, seed=2), global_views=2, convention=convention
    )
    centre = (z[0] + z[1]) / 2
    prediction = 0.5 * sum(((v - centre) ** 2).mean() for v in z) / 5
    sigreg = sj.SIGReg(slices=6, knots=9, seed=2)(z if views == "separate" else z.reshape(50, -1))
    expected = prediction * (1.0 if convention == "sum" else 0.9) + 0.1 * sigreg
    torch.testing.assert_close(objective(z).loss, expected)


def test_the_mlp_ablation_differs_in_the_map_only():
    maps = (sj.HamiltonianPredictor(sj.SeparableHamiltonian(D)), sj.ResidualMLPPredictor(D))
    h, m = ({k: v for k, v in settings(sj.hamjepa_cifar100(phi)).items() if "predictor" not in k} for phi in maps)
    assert h == m
    assert {"penalties.mean.weight", "penalties.spectrum_q.regularizer.proj_dim"} <= set(h)


def described(objective):
    return {
        name: (penalty.on, penalty.weight, penalty.views, penalty.regularizer)
        for name, penalty in objective.penalties.items()
    }


@pytest.mark.parametrize(
    ("preset", "match", "p_weight", "reverse_time", "weights", "q", "p"),
    [
        (sj.hamjepa_cifar100, "q", 0.2, True, (0.2, 0.5, 0.5, 0.05), (-1.5, 0.12, 0.35), (-1.5, 0.16, 0.30)),
        (sj.hamjepa_imagenet100, "qp", 0.0, False, (0.2, 1.0, 1.0, 0.05), (-1.2, 0.25, 0.10), (-1.2, 0.25, 0.10)),
    ],
)
def test_hamjepa_presets_are_the_papers_table(preset, match, p_weight, reverse_time, weights, q, p):
    objective = preset(predictor())
    assert (objective.match, objective.p_weight, objective.reverse_time) == (match, p_weight, reverse_time)
    assert (objective.bidirectional, objective.detach_target, objective.energy_weight) == (True, True, 0.0)
    terms = described(objective)
    budget, variance, spectrum, mean = weights
    halves = ("q", "p") if preset is sj.hamjepa_cifar100 else ("q",)
    expected = {"budget_q": budget, "budget_p": budget, "spectrum_q": spectrum, "spectrum_p": spectrum, "mean": mean}
    expected |= {f"variance_{half}": variance for half in halves}
    assert {name: weight for name, (_, weight, _, _) in terms.items()} == expected
    for half, (log_det, participation, top_share) in (("q", q), ("p", p)):
        on, _, views, floors = terms[f"spectrum_{half}"]
        assert (on, views) == (half, "stacked")
        assert (floors.log_det, floors.participation, floors.top_share) == (log_det, participation, top_share)
        assert (floors.proj_dim, floors.eps, floors.schedule.every) == (128, 1e-4, 16)
        assert terms[f"budget_{half}"][3].target == 1.0
    assert terms["variance_q"][3].floor == 0.2


def test_sigreg_preset_is_the_papers_table():
    on, weight, views, sigreg = described(sj.sigreg_baseline())["sigreg"]
    assert (on, weight, views) == ("z", 0.02, "separate")
    assert (sigreg.slices, sigreg.knots, sigreg.spacing) == (64, 9, 3.0 / 8)
    assert sj.sigreg_baseline().convention == "sum"


def test_bad_arguments_are_named():
    phi, z = predictor(), states()
    learned = sj.HamiltonianPredictor(sj.SeparableHamiltonian(D), learn_dt=True)
    for call, error, message in (
        (lambda: HamJEPAObjective(phi, match="p"), ValueError, "match must be one of 'q', 'qp', got 'p'"),
        (lambda: HamJEPAObjective(phi, match="qp", p_weight=0.1), ValueError, "p_weight must be 0 with match='qp'"),
        (lambda: HamJEPAObjective(learned), ValueError, "learn_dt=True: dt -> 0 minimises the matching loss"),
        (lambda: Penalty("mmd"), TypeError, "regularizer must be a module or a function, got str"),
        (lambda: HamJEPAObjective(phi, penalties={"prediction": Penalty(EnergyBudget())}), ValueError, "'prediction'"),
        (lambda: HamJEPAObjective(nn.Identity()), TypeError, "predictor must be a Predictor, got Identity"),
        (lambda: HamJEPAObjective(sj.ResidualMLPPredictor(D), energy_weight=1.0), ValueError, "without a Hamiltonian"),
        (lambda: HamJEPAObjective(phi, penalties={"a": EnergyBudget()}), TypeError, r"penalties\['a'\] must be a Pen"),
        (lambda: HamJEPAObjective(phi).prediction_loss(z[0], z[1, :1]), ValueError, "same shape"),
        (lambda: HamJEPAObjective(phi)(z[0]), ValueError, r"\(V >= 2, B, D\), got \(10, 8\)"),
        (lambda: HamJEPAObjective(phi)(z[:1]), ValueError, r"\(V >= 2, B, D\), got \(1, 10, 8\)"),
        (lambda: Penalty(EnergyBudget(), on="x"), ValueError, "on must be one of 'q', 'p', 'z', got 'x'"),
        (lambda: Penalty(EnergyBudget(), weight=-1), ValueError, "weight must be a finite number >= 0, got -1"),
        (
            lambda: sj.LeJEPAObjective(sj.sigreg_penalties(weight=1.5), convention="convex"),
            ValueError,
            "at most 1 in sum",
        ),
        (lambda: sj.LeJEPAObjective(global_views=0), ValueError, "global_views must be an int >= 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            call()


# What a user extends


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
    phi, (a, b) = TwoMatrices(), states()
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
    phi, (a, b) = TwoMatrices(control_dim=3), states()
    u = torch.randn(*([2] if per_view else []), 10, 3, dtype=torch.float64)
    u_a, u_b = u if per_view else (u, u)
    expected = 0.5 * ((phi.ahead(torch.cat((a, u_a), -1)) - b).square().mean() + (
        phi.back(torch.cat((b, u_b), -1)) - a).square().mean())  # fmt: skip
    torch.testing.assert_close(HamJEPAObjective(phi, match="qp")(torch.stack((a, b)), u).loss, expected)


@pytest.mark.parametrize("integrator", [sj.leapfrog, sj.symplectic_euler])
def test_a_control_trains_the_input_matrix(integrator):
    """One step of the textbook, ``p ← p + h(−q + Bu)`` before (Euler) or around the drift (leapfrog)."""
    a, b = states()
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
            p = p + 0.5 * h * force(q)
            q = q + h * p
            return torch.cat((q, p + 0.5 * h * force(q)), -1)
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
    z, u = states(), torch.randn(10, 3, dtype=torch.float64)
    system = sj.ControlledHamiltonian(sj.QuadraticHamiltonian(D), torch.randn(D, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"control must be given .* input matrix get no gradient"):
        HamJEPAObjective(sj.HamiltonianPredictor(system))(z)
    for objective in (
        HamJEPAObjective(predictor()),
        HamJEPAObjective(sj.ResidualMLPPredictor(D)),
        sj.sigreg_baseline(),
    ):
        with pytest.raises(TypeError, match="control (needs a Controlled|must be None)"):
            objective(z, u)


def test_an_objective_of_ones_own_prediction_loss_and_regularizer():
    class Distance(PredictionLoss):
        views = 2

        def reduction(self, parts, control):
            return mean_over_samples(self.scale * (parts["z"][0] - parts["z"][1]).square().mean(-1))

    class Kurtosis(nn.Module):
        def forward(self, x):
            return (x.pow(4).mean() - 3).square()

    z, prediction = states(), Distance()
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
    z, objective = states(), sj.hamjepa_cifar100(predictor())
    other = sj.ResidualMLPPredictor(D).double()
    objective.predictor, objective.match, objective.p_weight = other, "qp", 0.0
    assert objective.prediction.predictor is other
    assert sum(m is other for m in objective.modules()) == 1
    torch.testing.assert_close(
        objective(z).terms["prediction"], HamJEPAObjective(other, match="qp").prediction_loss(*z)
    )


def test_the_residual_scale_reaches_the_energy_wherever_it_is():
    z, inner = states(), sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=0.5).double()
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
    first, second = sj.hamjepa_cifar100(predictor()), sj.hamjepa_cifar100(predictor())
    model, other = nn.ModuleDict({"objective": first}), nn.ModuleDict({"objective": second})
    old = {key.replace("prediction.predictor", "predictor"): x for key, x in model.state_dict().items()}
    assert old.keys() != model.state_dict().keys()
    other.load_state_dict(old)
    weights = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in weights)


def test_a_penalty_that_is_no_scalar_is_refused():
    objective = HamJEPAObjective(predictor(), penalties={"bad": Penalty(lambda x: x.square().mean(0))})
    with pytest.raises(ValueError, match=r"must be a scalar tensor, got shape \(8,\)"):
        objective(states())


@pytest.mark.parametrize("sync", [True, False])
def test_an_objective_leaves_its_regularizers_alone(sync):
    regularizer = EnergyBudget()
    phi = predictor()
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

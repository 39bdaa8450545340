"""The objectives against their formulas written out, and the presets against the paper's table."""

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa import EnergyBudget, HamJEPAObjective, Penalty
from tests.helpers.cases import settings
from tests.helpers.samples import states
from tests.helpers.systems import small_predictor

D = 4


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
    phi, (a, b) = small_predictor(integrator=integrator), states(10, 2 * D)
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
    a, b = (z.requires_grad_() for z in states(10, 2 * D))
    one_way = HamJEPAObjective(small_predictor(), bidirectional=False)
    assert torch.autograd.grad(one_way.prediction_loss(a, b), b)[0].abs().sum() == 0
    attached = HamJEPAObjective(small_predictor(), bidirectional=False, detach_target=False)
    assert torch.autograd.grad(attached.prediction_loss(a, b), b)[0].abs().sum() > 0


def test_energy_consistency_is_added_in_each_direction():
    phi, (a, b) = small_predictor(), states(10, 2 * D)
    h = phi.hamiltonian
    plain = HamJEPAObjective(phi).prediction_loss(a, b)
    got = HamJEPAObjective(phi, energy_weight=3.0).prediction_loss(a, b)

    def drift(source, direction):
        end = phi(source, direction=direction)
        return (h(end[:, :D], end[:, D:]) - h(source[:, :D], source[:, D:])).square().mean()

    torch.testing.assert_close(got, plain + 3.0 * 0.5 * (drift(a, 1) + drift(b, -1)))


@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_gradient_of_the_energy_term_by_the_source_stops_at_its_start(weight):
    phi, z = small_predictor(scale=2.0, dt=0.5), states(10, 2 * D).requires_grad_()
    with_term, without = (HamJEPAObjective(phi, bidirectional=False, energy_weight=w)(z)[0] for w in (weight, 0.0))
    (got,) = torch.autograd.grad(with_term - without, z)
    source, h = z.detach()[0].requires_grad_(), phi.hamiltonian
    drift = h(*phi(source).chunk(2, -1)) - h(*source.detach().chunk(2, -1))  # which starts at a number
    (expected,) = torch.autograd.grad(weight * drift.square().mean(), source)
    torch.testing.assert_close(got[0], expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-4
    assert got[1].abs().max() < 1e-12


def test_total_is_the_weighted_sum_over_all_views_stacked():
    z, phi = torch.randn(3, 12, 2 * D, dtype=torch.float64), small_predictor()
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
    z = states(10, 2 * D)
    penalties = {"budget": Penalty(EnergyBudget(5.0), on="q", weight=2.0)}
    objective = HamJEPAObjective(small_predictor(), penalties=penalties)
    full, terms = objective(z)
    objective.set_regularizer_scale(0.25)
    torch.testing.assert_close(objective(z).loss, terms["prediction"] + 0.25 * 2.0 * terms["budget"])
    objective.set_regularizer_scale(0.0)
    torch.testing.assert_close(objective(z).loss, terms["prediction"])
    assert full > terms["prediction"]


@pytest.mark.parametrize("convention", ["sum", "convex"])
@pytest.mark.parametrize("views", ["separate", "stacked"])
def test_lejepa_is_the_formula(convention, views):
    z = torch.randn(5, 10, 2 * D, dtype=torch.float64)
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
    objective = preset(small_predictor())
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
    phi, z = small_predictor(), states(10, 2 * D)
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
            "summing to at most 1",
        ),
        (lambda: sj.LeJEPAObjective(global_views=0), ValueError, "global_views must be an int >= 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            call()

"""The objectives against their formulas written out, and the presets against the paper's table."""

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa import (
    EnergyBudget,
    Floors,
    HamiltonianPredictor,
    HamJEPAObjective,
    LeJEPAObjective,
    MeanPenalty,
    Penalty,
    ResidualMLPPredictor,
    SeparableHamiltonian,
    SIGReg,
    SpectralFloors,
    VarianceFloor,
    hamjepa_cifar100,
    hamjepa_imagenet100,
    hamjepa_penalties,
    implicit_midpoint,
    leapfrog,
    sigreg_baseline,
    sigreg_penalties,
    symplectic_euler,
)
from tests.helpers.cases import settings

D = 4


def predictor():
    return HamiltonianPredictor(SeparableHamiltonian(D, hidden_dim=8, residual_scale=0.5).double(), dt=0.1, steps=2)


def states(views=2, batch=10):
    return torch.randn(views, batch, 2 * D, dtype=torch.float64)


def match_q(predicted, target, w):
    q, p = predicted[:, :D] - target[:, :D], predicted[:, D:] - target[:, D:]
    return (q**2).mean() + w * (p**2).mean()


def match_qp(predicted, target, w):
    return ((predicted - target) ** 2).mean()


@pytest.mark.parametrize(("match", "w", "formula"), [("q", 0.0, match_q), ("q", 0.2, match_q), ("qp", 0.0, match_qp)])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("backward", ["reverse", "forward"])
def test_prediction_loss_is_the_formula(match, w, formula, bidirectional, backward):
    phi, (a, b) = predictor(), states()
    objective = HamJEPAObjective(phi, match=match, p_weight=w, bidirectional=bidirectional, backward=backward)
    expected = formula(phi(a), b, w)
    if bidirectional:
        back = phi(b, direction=-1 if backward == "reverse" else 1)
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


@pytest.mark.parametrize("integrator", [leapfrog, symplectic_euler, implicit_midpoint])
def test_both_directions_are_the_mean_of_each(integrator):
    """In one call where the integrator allows it, in two where not."""
    phi = HamiltonianPredictor(SeparableHamiltonian(D, hidden_dim=6), integrator=integrator)
    a, b = states()
    got = HamJEPAObjective(phi, p_weight=0.3).prediction_loss(a, b)
    expected = 0
    for source, target, direction in ((a, b, 1), (b, a, -1)):
        error = phi(source, direction=direction) - target
        expected = expected + 0.5 * (error[:, :D].square().mean() + 0.3 * error[:, D:].square().mean())
    torch.testing.assert_close(got, expected)


def test_energy_consistency_is_added_in_each_direction():
    phi, (a, b) = predictor(), states()
    h = phi.hamiltonian
    plain = HamJEPAObjective(phi).prediction_loss(a, b)
    got = HamJEPAObjective(phi, energy_weight=3.0).prediction_loss(a, b)

    def drift(source, direction):
        end = phi(source, direction=direction)
        return (h(end[:, :D], end[:, D:]) - h(source[:, :D], source[:, D:])).square().mean()

    torch.testing.assert_close(got, plain + 3.0 * 0.5 * (drift(a, 1) + drift(b, -1)))


def test_total_is_the_weighted_sum_over_all_views_stacked():
    z, phi = states(views=3, batch=12), predictor()
    penalties = hamjepa_penalties(
        q=Floors(std=2.0, log_det=3.0, participation=0.99, top_share=0.1, proj_dim=3),
        p=Floors(std=2.5, log_det=2.0, participation=0.98, top_share=0.2, proj_dim=3),
        budget=0.2, variance=0.5, spectrum=0.7, mean=0.05, seed=3,
    )  # fmt: skip
    objective = HamJEPAObjective(phi, p_weight=0.2, penalties=penalties)
    stacked = z.reshape(36, 2 * D)
    q, p = stacked[:, :D], stacked[:, D:]
    expected = objective.prediction_loss(z[0], z[1])
    expected = expected + 0.2 * (EnergyBudget()(q) + EnergyBudget()(p))
    expected = expected + 0.5 * (VarianceFloor(2.0)(q) + VarianceFloor(2.5)(p))
    floors_q = SpectralFloors(log_det=3.0, participation=0.99, top_share=0.1, proj_dim=3, seed=3)
    floors_p = SpectralFloors(log_det=2.0, participation=0.98, top_share=0.2, proj_dim=3, seed=4)
    expected = expected + 0.7 * (floors_q(q) + floors_p(p)) + 0.05 * MeanPenalty()(stacked)
    loss, terms = objective(z)
    torch.testing.assert_close(loss, expected)
    weights = {name: penalty.weight for name, penalty in objective.penalties.items()} | {"prediction": 1.0}
    torch.testing.assert_close(sum(weights[k] * v for k, v in terms.items()), loss.detach())
    assert not any(v.requires_grad for v in terms.values())
    assert {"spectrum_q/log_det", "budget_p/energy"} < set(objective.statistics())


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
    objective = LeJEPAObjective(
        sigreg_penalties(weight=0.1, slices=6, knots=9, views=views, seed=2), global_views=2, convention=convention
    )
    centre = (z[0] + z[1]) / 2
    prediction = 0.5 * sum(((v - centre) ** 2).mean() for v in z) / 5
    sigreg = SIGReg(slices=6, knots=9, seed=2)(z if views == "separate" else z.reshape(50, -1))
    expected = prediction * (1.0 if convention == "sum" else 0.9) + 0.1 * sigreg
    torch.testing.assert_close(objective(z).loss, expected)


def test_objectives_are_float32_under_autocast():
    z = torch.randn(2, 16, 2 * D).bfloat16()
    make = lambda: HamJEPAObjective(  # noqa: E731
        HamiltonianPredictor(SeparableHamiltonian(D)), penalties=hamjepa_penalties(q=Floors(), p=Floors())
    )
    torch.manual_seed(3)
    first = make()
    second = make()
    second.load_state_dict(first.state_dict())
    expected = first(z.float()).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = second(z).loss
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_a_users_regularizer_drops_in():
    class Kurtosis(nn.Module):
        def forward(self, x):
            return (x.pow(4).mean() - 3).square()

    z = states()
    loss, terms = HamJEPAObjective(predictor(), penalties={"kurtosis": Penalty(Kurtosis(), on="p", weight=2.0)})(z)
    torch.testing.assert_close(terms["kurtosis"], (z[..., D:].pow(4).mean() - 3).square())
    torch.testing.assert_close(loss, terms["prediction"] + 2.0 * terms["kurtosis"], check_dtype=False)


def test_the_mlp_ablation_differs_in_the_map_only():
    maps = (HamiltonianPredictor(SeparableHamiltonian(D)), ResidualMLPPredictor(D))
    h, m = ({k: v for k, v in settings(hamjepa_cifar100(phi)).items() if "predictor" not in k} for phi in maps)
    assert h == m
    assert {"penalties.mean.weight", "penalties.spectrum_q.regularizer.proj_dim"} <= set(h)


def described(objective):
    return {
        name: (penalty.on, penalty.weight, penalty.views, penalty.regularizer)
        for name, penalty in objective.penalties.items()
    }


@pytest.mark.parametrize(
    ("preset", "match", "p_weight", "backward", "weights", "q", "p"),
    [
        (hamjepa_cifar100, "q", 0.2, "reverse", (0.2, 0.5, 0.5, 0.05), (-1.5, 0.12, 0.35), (-1.5, 0.16, 0.30)),
        (hamjepa_imagenet100, "qp", 0.0, "forward", (0.2, 1.0, 1.0, 0.05), (-1.2, 0.25, 0.10), (-1.2, 0.25, 0.10)),
    ],
)
def test_hamjepa_presets_are_the_papers_table(preset, match, p_weight, backward, weights, q, p):
    objective = preset(predictor())
    assert (objective.match, objective.p_weight, objective.backward) == (match, p_weight, backward)
    assert (objective.bidirectional, objective.detach_target, objective.energy_weight) == (True, True, 0.0)
    terms = described(objective)
    budget, variance, spectrum, mean = weights
    halves = ("q", "p") if preset is hamjepa_cifar100 else ("q",)
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
    on, weight, views, sigreg = described(sigreg_baseline())["sigreg"]
    assert (on, weight, views) == ("z", 0.02, "separate")
    assert (sigreg.slices, sigreg.target.numel(), sigreg.spacing) == (64, 9, 3.0 / 8)
    assert sigreg_baseline().convention == "sum"


def test_state_dict_carries_the_counters():
    z = states()
    first = hamjepa_cifar100(predictor())
    for _ in range(5):
        first(z)
    second = hamjepa_cifar100(predictor())
    second.load_state_dict(first.state_dict())
    assert second.penalties["spectrum_q"].regularizer.schedule.step == 5


def test_bad_arguments_are_named():
    phi, z = predictor(), states()
    learned = HamiltonianPredictor(SeparableHamiltonian(D), learn_dt=True)
    for call, error, message in (
        (lambda: HamJEPAObjective(phi, match="p"), ValueError, "match must be one of 'q', 'qp', got 'p'"),
        (lambda: HamJEPAObjective(phi, match="qp", p_weight=0.1), ValueError, "p_weight must be 0 with match='qp'"),
        (lambda: HamJEPAObjective(phi, backward="both"), ValueError, "backward must be one of"),
        (lambda: HamJEPAObjective(learned), ValueError, "learn_dt=True: dt -> 0 minimises the matching loss"),
        (lambda: Penalty("mmd"), TypeError, "regularizer must be a module or a function, got str"),
        (lambda: HamJEPAObjective(phi, penalties={"prediction": Penalty(EnergyBudget())}), ValueError, "'prediction'"),
        (lambda: HamJEPAObjective(nn.Identity()), TypeError, "predictor must be a Predictor, got Identity"),
        (lambda: HamJEPAObjective(ResidualMLPPredictor(D), energy_weight=1.0), ValueError, "without a Hamiltonian"),
        (lambda: HamJEPAObjective(phi, penalties={"a": EnergyBudget()}), TypeError, r"penalties\['a'\] must be a Pen"),
        (lambda: HamJEPAObjective(phi).prediction_loss(z[0], z[1, :1]), ValueError, "same shape"),
        (lambda: HamJEPAObjective(phi)(z[0]), ValueError, r"\(V >= 2, B, D\), got \(10, 8\)"),
        (lambda: HamJEPAObjective(phi)(z[:1]), ValueError, r"\(V >= 2, B, D\), got \(1, 10, 8\)"),
        (lambda: Penalty(EnergyBudget(), on="x"), ValueError, "on must be one of 'q', 'p', 'z', got 'x'"),
        (lambda: Penalty(EnergyBudget(), weight=-1), ValueError, "weight must be a finite number >= 0, got -1"),
        (lambda: LeJEPAObjective(sigreg_penalties(weight=1.5), convention="convex"), ValueError, "at most 1 in sum"),
        (lambda: LeJEPAObjective(global_views=0), ValueError, "global_views must be an int >= 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("sync", [True, False])
def test_presets_keep_statistics_local_when_asked(sync):
    predictor = sj.HamiltonianPredictor(sj.SeparableHamiltonian(4))
    objectives = [preset(predictor, sync=sync) for preset in (sj.hamjepa_cifar100, sj.hamjepa_imagenet100)]
    objectives += [sj.sigreg_baseline(sync=sync)]
    for objective in objectives:
        assert {objective.sync, *(p.regularizer.sync for p in objective.penalties.values())} == {sync}

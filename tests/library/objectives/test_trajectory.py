"""Trajectories: rollouts against repeated calls, and the objective against its sum written out."""

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.predictors import Predictor
from tests.helpers.systems import small_predictor

D, M = 3, 2


def controlled(**options):
    torch.manual_seed(0)
    h = sj.ControlledHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=1.0), torch.randn(D, M))
    return sj.HamiltonianPredictor(h.double(), dt=0.1, steps=2, **options)


def trajectory(frames=6, samples=5):
    torch.manual_seed(1)
    states = torch.randn(frames, samples, 2 * D, dtype=torch.float64)
    return states, torch.randn(frames - 1, samples, M, dtype=torch.float64)


def error(predicted, target, match, p_weight):
    q, p = (predicted - target).square().chunk(2, -1)
    return torch.cat((q, p), -1).mean() if match == "qp" else q.mean() + p_weight * p.mean()


@pytest.mark.parametrize("direction", [1, -1])
def test_a_rollout_is_repeated_calls_of_the_predictor(direction):
    predictor, (states, controls) = controlled(), trajectory()
    z, frames = states[0], predictor.rollout(states[0], controls, direction=direction)
    for u, frame in zip(controls, frames, strict=True):
        z = predictor(z, control=u, direction=direction)
        assert torch.equal(z, frame)
    free = small_predictor(dim=D)
    assert torch.equal(free.rollout(states[0], steps=2)[1], free(free(states[0])))


def test_a_rollout_is_undone_by_the_reversed_controls_in_reverse_time():
    predictor, (states, controls) = controlled(), trajectory()
    end = predictor.rollout(states[0], controls)[-1]
    back = predictor.rollout(end, controls.flip(0), direction=-1)[-1]
    torch.testing.assert_close(back, states[0], rtol=1e-13, atol=1e-13)


def test_gradients_of_a_reversible_rollout_are_those_of_a_stored_one():
    grads = []
    for gradient in ("stored", "reversible"):
        predictor, (states, controls) = controlled(gradient=gradient), trajectory()
        z, u = states[0].requires_grad_(), controls.requires_grad_()
        predictor.rollout(z, u).square().sum().backward()
        grads.append([z.grad, u.grad, *(w.grad for w in predictor.parameters())])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_rollout_compiles_into_one_graph():
    predictor, (states, controls) = controlled(), trajectory()
    compiled = torch.compile(predictor.rollout, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(states[0], controls), predictor.rollout(states[0], controls))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "steps must be given without controls"),
        ({"steps": 0}, "steps must be an int >= 1, got 0"),
        ({"controls": torch.randn(3, 5, M), "steps": 4}, r"controls must have 4 frames \(steps\), got 3"),
        ({"controls": torch.randn(3)}, r"controls must have shape \(T, ..., m\), got \(3,\)"),
        ({"steps": 1, "direction": 2}, "direction must be 1 or -1, got 2"),
    ],
)
def test_a_rollout_refuses_bad_arguments_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        controlled().rollout(torch.randn(5, 2 * D), **arguments)


@pytest.mark.parametrize("starts", ["every", "first"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("match", "p_weight"), [("q", 0.3), ("qp", 0.0)])
@pytest.mark.parametrize("integrator", [sj.leapfrog, sj.symplectic_euler])  # the latter in one call per direction
def test_the_objective_is_the_sum_over_starts_and_horizons(starts, bidirectional, match, p_weight, integrator):
    predictor, (states, controls) = controlled(integrator=integrator), trajectory()
    frames, weights = len(states), (1.0, 0.5, 0.25)
    objective = sj.TrajectoryObjective(
        predictor, horizon=3, starts=starts, bidirectional=bidirectional, match=match, p_weight=p_weight,
        horizon_weights=weights,
    )  # fmt: skip
    loss, terms = objective(states, controls)
    total = 0.0
    for k, w in enumerate(weights, start=1):
        errors = []
        for t in range(frames - k) if starts == "every" else [0]:
            z = states[t]
            for i in range(k):
                z = predictor(z, control=controls[t + i])
            errors.append(error(z, states[t + k], match, p_weight))
        if bidirectional:
            for t in range(k, frames) if starts == "every" else [frames - 1]:
                z = states[t]
                for i in range(k):
                    z = predictor(z, control=controls[t - 1 - i], direction=-1)
                errors.append(error(z, states[t - k], match, p_weight))
        total = total + w * torch.stack(errors).mean()
        torch.testing.assert_close(terms[f"prediction/horizon_{k}"], torch.stack(errors).mean())
    torch.testing.assert_close(loss, total / sum(weights), rtol=1e-12, atol=0)


def test_two_frames_in_both_directions_are_the_two_view_objective():
    predictor, (states, controls) = controlled(), trajectory(frames=2)
    penalties = sj.hamjepa_penalties(q=sj.Floors(log_det=0.0, proj_dim=2))
    pair = sj.HamJEPAObjective(predictor, p_weight=0.2, penalties=penalties).eval()
    time = sj.TrajectoryObjective(predictor, horizon=1, bidirectional=True, p_weight=0.2, penalties=penalties).eval()
    torch.testing.assert_close(time(states, controls).loss, pair(states, controls[0]).loss, rtol=1e-13, atol=0)


@pytest.mark.parametrize("detach", [True, False])
def test_targets_are_detached_or_not_and_may_come_from_elsewhere(detach):
    predictor, (states, controls) = controlled(), trajectory(frames=2)
    objective = sj.TrajectoryObjective(predictor, horizon=1, detach_target=detach)
    targets = torch.randn_like(states).requires_grad_()
    loss = objective(states, controls, targets=targets).loss
    torch.testing.assert_close(loss, error(predictor(states[0], control=controls[0]), targets[1], "q", 0.0))
    if detach:
        assert torch.autograd.grad(loss, targets, allow_unused=True)[0] is None
    else:
        assert torch.autograd.grad(loss, targets)[0][1].abs().sum() > 0


class Recorder(Predictor):
    """A map without a step size: what any user would write."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2 * D, 2 * D)
        self.calls = []

    def flow(self, q, p, *, direction=1, control=None):
        self.calls.append(tuple(q.shape))
        return self.layer(torch.cat((q, p), -1)).chunk(2, -1)


def test_every_frame_is_predicted_in_one_call_per_horizon():
    predictor, (states, _) = Recorder().double(), trajectory()
    sj.TrajectoryObjective(predictor, horizon=3)(states)
    assert predictor.calls == [(5, 5, D), (4, 5, D), (3, 5, D)]


def objective(**options):
    return sj.TrajectoryObjective(controlled(), **{"horizon": 1, **options})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, u: objective(horizon=6)(s), r"states must have shape \(V >= 7, B, D\)"),
        (lambda s, u: objective()(s), "controls must be given to a predictor that takes them"),
        (lambda s, u: objective()(s, u[1:]), r"controls must have shape \(5, 5, m\), one per step, got \(4, 5, 2\)"),
        (lambda s, u: objective()(s, u, targets=s[1:]), r"targets must .* states, \(6, 5, 6\), got \(5, 5, 6\)"),
        (
            lambda s, u: objective(horizon=2, horizon_weights=[1.0]),
            r"horizon_weights must be 2 numbers .* got \(1.0,\)",
        ),
        (lambda s, u: objective(horizon=0), "horizon must be an int >= 1, got 0"),
        (lambda s, u: objective(starts="all"), "starts must be one of"),
        (lambda s, u: objective(match="qp", p_weight=1.0), "p_weight must be 0 with match='qp'"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(*trajectory())


def test_it_compiles_into_one_graph_and_survives_a_folder(tmp_path):
    predictor, (states, controls) = controlled(), trajectory()
    made = sj.TrajectoryObjective(predictor, horizon=2, horizon_weights=[2.0, 1.0], bidirectional=True)
    expected = made(states, controls).loss
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(states, controls).loss, expected)
    made.save_pretrained(tmp_path)
    loaded = sj.TrajectoryObjective.from_pretrained(tmp_path)
    assert loaded.horizon_weights == (2.0, 1.0)
    torch.testing.assert_close(loaded(states, controls).loss, expected, rtol=0, atol=0)

"""Predictors that take a control: what every one of them keeps under a fixed input, and how each is used."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.hamiltonians import AbstractSeparable
from tests.helpers.actions import (
    EXPLICIT,
    F64,
    GENERAL,
    SEPARABLE,
    TURNING,
    D,
    M,
    Turning,
    Wells,
    build,
    by_action,
    every,
    inputs,
    midpoint,
    residual_mlp,
)
from tests.helpers.systems import Coupled

# What a fixed input leaves


@pytest.mark.parametrize(
    ("make", "integrator"),
    [
        *((make, integrator) for make in SEPARABLE.values() for integrator in [*EXPLICIT, midpoint]),
        *((make, midpoint) for make in GENERAL.values()),
    ],
)
def test_the_map_is_symplectic_for_every_fixed_input(make, integrator):
    predictor = build(make, integrator=integrator)
    z, u = inputs(4)
    omega = torch.kron(torch.tensor([[0.0, 1.0], [-1.0, 0.0]], **F64), torch.eye(D, **F64))
    for x, control in zip(z, u, strict=True):
        j = torch.autograd.functional.jacobian(lambda z, control=control: predictor(z, control=control), x)
        torch.testing.assert_close(j.T @ omega @ j, omega, rtol=0, atol=1e-12)
        assert (predictor(x, control=control) - predictor(x, control=0 * control)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("make", "integrator"),
    [
        *((make, integrator) for make in [*SEPARABLE.values(), TURNING["V(q) and B(q)"]] for integrator in EXPLICIT),
        *((make, midpoint) for make in [*GENERAL.values(), TURNING["H(q, p) and B(q)"]]),
    ],
)
def test_reverse_time_under_the_same_input_is_the_inverse(make, integrator):
    predictor, (z, u) = build(make, integrator=integrator), inputs(4)
    there = predictor(z, control=u)
    torch.testing.assert_close(predictor(there, direction=-1, control=u), z, rtol=1e-12, atol=1e-12)
    assert (predictor(there, direction=-1, control=-u) - z).abs().max() > 1e-3


@pytest.mark.parametrize("make", [*SEPARABLE.values(), *GENERAL.values()])
def test_the_energy_under_an_input_is_conserved_to_the_order_of_the_integrator(make):
    z, u = inputs(4)
    drifts = []
    for steps in (10, 20):
        predictor = build(make, dt=1 / steps, steps=steps)
        start, end = (predictor.energy(*sj.split_state(x), control=u) for x in (z, predictor(z, control=u)))
        drifts.append((end - start).abs().max())
    assert 3.5 < drifts[0] / drifts[1] < 4.5
    other = predictor.energy(*sj.split_state(z), control=2 * u)
    assert (other - start).abs().max() > 1e-2


# The residual MLP


def test_the_residual_mlp_reads_state_and_input():
    predictor, (z, u) = residual_mlp(), inputs(4)
    g = predictor.residual
    for direction in (1, -1):
        first = z + direction * 0.1 * g(torch.cat((z, u), -1))
        expected = first + direction * 0.1 * g(torch.cat((first, u), -1))
        torch.testing.assert_close(predictor(z, direction=direction, control=u), expected, rtol=1e-13, atol=1e-13)


# Every predictor, in everything that calls one


@every
def test_one_input_for_the_batch_one_per_row_and_any_leading_shape(make):
    predictor, (z, u) = make(), inputs(4, 5)
    assert predictor.takes_control
    each = torch.stack([torch.stack([predictor(z[i, j], control=u[i, j]) for j in range(5)]) for i in range(4)])
    torch.testing.assert_close(predictor(z, control=u), each, rtol=1e-12, atol=1e-12)
    for part in (u[0, 0], u[0], u[:, :1]):
        expected = predictor(z, control=part.expand(4, 5, M))
        torch.testing.assert_close(predictor(z, control=part), expected, rtol=1e-12, atol=1e-12)
    ways = predictor(z[:2], direction=(1, -1), control=u[:2])
    for end, sign, start, control in zip(ways, (1, -1), z, u, strict=False):
        torch.testing.assert_close(end, predictor(start, direction=sign, control=control), rtol=1e-12, atol=1e-12)


def test_each_direction_in_its_own_call_too():
    predictor, (z, u) = build(by_action, integrator=sj.symplectic_euler), inputs(2, 5)
    for control in (u, u[0], u[:1]):
        ways = predictor(z, direction=(1, -1), control=control)
        for i, sign in enumerate((1, -1)):
            row = control.expand(2, 5, M)[i]
            torch.testing.assert_close(ways[i], predictor(z[i], direction=sign, control=row), rtol=0, atol=1e-14)


@every
def test_objectives_train_every_weight_that_reads_the_input(make):
    predictor, (z, u) = make(), inputs(6, 5)
    trajectory = sj.TrajectoryObjective(predictor, horizon=2, match="qp", bidirectional=True)
    loss, _ = trajectory(z, u[:5])
    rows = predictor.rollout(z[0], u[:2])
    torch.testing.assert_close(rows[1], predictor(predictor(z[0], control=u[0]), control=u[1]))
    views, _ = sj.HamJEPAObjective(predictor, match="qp")(z[:2], u[0])
    both = [predictor(z[0], control=u[0]) - z[1], predictor(z[1], direction=-1, control=u[0]) - z[0]]
    torch.testing.assert_close(views, 0.5 * sum(x.square().mean() for x in both))
    (loss + views).backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in predictor.parameters())
    for call in (lambda: sj.HamJEPAObjective(predictor)(z[:2]), lambda: trajectory(z)):
        with pytest.raises(ValueError, match="controls? must be given"):
            call()


@pytest.mark.parametrize("make", [*SEPARABLE.values(), TURNING["V(q) and B(q)"]])
def test_gradients_of_a_reversible_rollout_are_those_of_a_stored_one(make):
    grads = []
    for gradient in ("stored", "reversible"):
        predictor, (z, u) = build(make, gradient=gradient), inputs(5, frames=6)
        raw = u.requires_grad_()
        end = predictor.rollout(z.requires_grad_(), raw.tanh())
        (torch.linspace(0, 1, end.numel(), **F64).view_as(end) * end).sum().backward()
        grads.append([end.detach(), z.grad, u.grad, *(w.grad for w in predictor.parameters())])
    assert grads[0][2].abs().min() > 0
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@every
def test_copies_pickles_and_folders_are_the_same_system(make, tmp_path):
    predictor, (z, u) = make(), inputs(4)
    expected = predictor(z, control=u)
    given = {}
    if isinstance(predictor, sj.HamiltonianPredictor):
        h = predictor.hamiltonian
        inner = getattr(h, "hamiltonian", h)
        if isinstance(getattr(h, "input_matrix", None), Turning):
            given["input_matrix"] = Turning()
        if isinstance(inner, Coupled):
            given["hamiltonian.hamiltonian"] = Coupled()
        if isinstance(inner, sj.PotentialHamiltonian):
            given["potential"] = Wells().double()
    predictor.save_pretrained(tmp_path)
    loaded = sj.predictors.Predictor.from_pretrained(tmp_path, **given)
    for again in (copy.deepcopy(predictor), pickle.loads(pickle.dumps(predictor)), loaded):
        assert torch.equal(again(z, control=u), expected)
        assert type(again) is type(predictor)
        if isinstance(predictor, sj.HamiltonianPredictor):
            assert type(again.hamiltonian) is type(predictor.hamiltonian)
            assert "_Controlled" not in repr(again)


class Motors(sj.ControlledHamiltonian):
    """A user's subclass, with a constructor of its own."""

    def __init__(self, *, dim):
        super().__init__(sj.GeneralHamiltonian(dim, hidden_dim=4), torch.eye(dim))
        self.dim = dim


def test_a_subclass_may_have_a_constructor_of_its_own(tmp_path):
    motors, (z, u) = Motors(dim=D), torch.randn(2, 4, 2 * D)
    predict = lambda h: sj.HamiltonianPredictor(h, integrator=midpoint)(z, control=u[:, :D])  # noqa: E731
    motors.save_pretrained(tmp_path)
    for again in (copy.deepcopy(motors), Motors.from_pretrained(tmp_path)):
        assert type(again) is Motors
        assert torch.equal(predict(again), predict(motors))


def test_folders_of_format_2_are_read_and_still_written(tmp_path):
    """The text of a folder from before general systems could be controlled."""
    text = {
        "class": "ControlledHamiltonian",
        "arguments": {
            "hamiltonian": {"class": "SeparableHamiltonian", "arguments": {"dim": 3, "hidden_dim": 4}},
            "input_matrix": {"tensor": "input_matrix", "parameter": True},
        },
    }
    system = sj.ControlledHamiltonian(sj.SeparableHamiltonian(3, hidden_dim=4), nn.Parameter(torch.randn(3, 2)))
    system.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert {key: written[key] for key in text} == text
    loaded = sj.ControlledHamiltonian.from_pretrained(tmp_path)
    assert isinstance(loaded, AbstractSeparable)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), system.parameters(), strict=True))
    assert list(loaded.state_dict()) == list(system.state_dict())
    sj.ResidualMLPPredictor(2, hidden_dim=4).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["arguments"] == {"dim": 2, "hidden_dim": 4}


def test_bad_inputs_are_named():
    q = torch.randn(4, D)
    z, h, mlp = torch.randn(4, 2 * D), by_action(), sj.ResidualMLPPredictor(D, control_dim=M)
    user = sj.PotentialHamiltonian(Wells(), control_dim=M)
    predictor = sj.HamiltonianPredictor(h)
    wide = torch.ones(4, 3)
    for call, message in (
        (lambda: h.potential(q), "control must be given to a SeparableHamiltonian with control_dim=2, got None"),
        (lambda: h(q, q), "control must be given to a SeparableHamiltonian"),
        (lambda: predictor(z), "control must be given to a SeparableHamiltonian"),
        (lambda: user.force(q), "control must be given to a PotentialHamiltonian with control_dim=2"),
        (lambda: mlp(z), "control must be given to a ResidualMLPPredictor with control_dim=2, got None"),
        *(
            (lambda f=f: f(wide), r"control must have shape \(..., 2\) .* broadcast to \(4,\), got \(4, 3\)")
            for f in (lambda u: predictor(z, control=u), lambda u: mlp(z, control=u), lambda u: user.force(q, u))
        ),
        (lambda: mlp(z, control=torch.ones(7, 4, 2)), r"broadcast to \(4,\), got \(7, 4, 2\)"),
        (lambda: h.force(q, torch.tensor(1.0)), r"got \(\)"),
        (lambda: sj.SeparableHamiltonian(D, control_dim=-1), "control_dim must be an int >= 0, got -1"),
        (lambda: sj.PotentialHamiltonian(Wells(), control_dim=True), "control_dim must be an int >= 0, got True"),
        (lambda: sj.ResidualMLPPredictor(D, control_dim=1.0), "control_dim must be an int >= 0, got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    u, whole = torch.ones(4, M), torch.ones(4, M, dtype=torch.int64)
    plain = sj.SeparableHamiltonian(D)
    for call, message in (
        (lambda: plain.with_control(u), "control must be None for a SeparableHamiltonian, which takes no control"),
        (lambda: plain.force(q, u), "control must be None for a SeparableHamiltonian with control_dim=0, got a Tensor"),
        (lambda: sj.GeneralHamiltonian(D).with_control(u), "control must be None for a GeneralHamiltonian"),
        (lambda: sj.ResidualMLPPredictor(D)(z, control=u), "control must be None for a ResidualMLPPredictor"),
        (lambda: h.with_control(whole), "control must be a floating-point tensor, got dtype torch.int64"),
        (lambda: mlp(z, control=whole), "control must be a floating-point tensor, got dtype torch.int64"),
        (lambda: h.with_control(1.0), "control must be a floating-point tensor, got float"),
    ):
        with pytest.raises(TypeError, match=message):
            call()

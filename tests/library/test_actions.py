"""Predictors that take a control: what every one of them keeps under a fixed input, and how each reads it."""

import copy
import itertools
import json
import pickle

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.hamiltonians import AbstractSeparable
from tests.helpers.systems import Coupled

D, M = 3, 2
F64 = {"dtype": torch.float64}
MATRIX = torch.tensor([[0.5, -1.0], [0.3, 0.8], [-0.7, 0.2]], **F64)
midpoint = sj.integrators.ImplicitMidpoint(iterations=20)


class Wells(nn.Module):
    """A user's ``V(q, u)``, with its force by hand."""

    def __init__(self):
        super().__init__()
        self.depth = nn.Parameter(torch.tensor(0.7))

    def forward(self, q, u):
        joined = torch.cat((q, u), -1)
        return self.depth * (joined.sum(-1).cos() + (q.square() * u[..., :1].square()).sum(-1))

    def force(self, q, u):
        slope = -torch.cat((q, u), -1).sum(-1, keepdim=True).sin() + 2 * q * u[..., :1].square()
        return -self.depth * slope


class Turning(nn.Module):
    """A ``B(q)`` with ``B(q)u`` far from a gradient."""

    def forward(self, q):
        x, y, z = q.unbind(-1)
        return torch.stack((torch.stack((y, -x, z.sin()), -1), torch.stack((z, x * y, -y), -1)), -1)


def by_action(**options):
    return sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=5.0, control_dim=M, **options)


SEPARABLE = {
    "V(q, u)": by_action,
    "V(q, u), learned mass": lambda: by_action(learn_mass=True),
    "user V(q, u)": lambda: sj.PotentialHamiltonian(Wells(), control_dim=M),
    "V(q) and B": lambda: sj.ControlledHamiltonian(
        sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=1.0), MATRIX
    ),
    "V(q, u) and B": lambda: sj.ControlledHamiltonian(by_action(), nn.Parameter(MATRIX.clone())),
}
GENERAL = {
    "H(q, p) and B": lambda: sj.ControlledHamiltonian(
        sj.GeneralHamiltonian(D, hidden_dim=8, residual_scale=1.0), MATRIX
    ),
    "user H(q, p) and B": lambda: sj.ControlledHamiltonian(Coupled(), nn.Parameter(MATRIX.clone())),
}
TURNING = {
    "V(q) and B(q)": lambda: sj.ControlledHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=8), Turning()),
    "H(q, p) and B(q)": lambda: sj.ControlledHamiltonian(Coupled(), Turning()),
}
EXPLICIT = list(sj.integrators.SPLITTINGS.values())


def build(make, *, integrator=None, **options):
    torch.manual_seed(0)
    system = make().double()
    default = sj.leapfrog if isinstance(system, AbstractSeparable) else midpoint
    return sj.HamiltonianPredictor(system, integrator=integrator or default, **({"dt": 0.1, "steps": 3} | options))


def residual_mlp(**options):
    torch.manual_seed(0)
    return sj.ResidualMLPPredictor(D, hidden_dim=8, control_dim=M, dt=0.1, **options).double()


PREDICTORS = {name: lambda make=make: build(make) for name, make in {**SEPARABLE, **GENERAL, **TURNING}.items()}
PREDICTORS["residual MLP"] = residual_mlp
every = pytest.mark.parametrize("make", PREDICTORS.values(), ids=PREDICTORS)


def inputs(*shape, frames=None):
    torch.manual_seed(1)
    u = shape if frames is None else (frames, *shape)
    return torch.randn(*shape, 2 * D, **F64), torch.randn(*u, M, **F64)


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


# The force of V(q, u)


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh", "softplus"])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("shape", [(5, M), (M,), (1, M)])
def test_the_force_is_minus_the_partial_derivative_by_position(activation, depth, shape):
    torch.manual_seed(0)
    h = by_action(activation=activation, depth=depth).double()
    q, u = torch.randn(5, D, **F64, requires_grad=True), torch.randn(*shape, **F64)
    joined = torch.cat((q, u.expand(5, M)), -1)
    by_hand = 0.05 * q.square().sum(-1) + _mlp(h, joined)
    torch.testing.assert_close(h.potential(q, u), by_hand, rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(by_hand.sum(), q)
    torch.testing.assert_close(h.force(q, u), -slope, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        for i, e in enumerate(1e-5 * torch.eye(D, **F64)):
            quotient = (h.potential(q + e, u) - h.potential(q - e, u)) / 2e-5
            torch.testing.assert_close(h.force(q, u)[:, i], -quotient, rtol=1e-7, atol=1e-9)


def _mlp(h, x):
    act = {
        "gelu": nn.functional.gelu,
        "silu": nn.functional.silu,
        "tanh": torch.tanh,
        "softplus": lambda a: (1 + a.exp()).log(),
    }
    for layer in h.hidden:
        x = act[h.activation](x @ layer.weight.T + layer.bias)
    return h.residual_scale * (x @ h.output.weight.T).squeeze(-1)


@pytest.mark.parametrize("make", [by_action, SEPARABLE["user V(q, u)"], SEPARABLE["V(q, u) and B"]])
def test_gradients_reach_state_input_and_weights(make):
    predictor, (z, u) = build(make, steps=2), inputs(2)
    assert torch.autograd.gradcheck(lambda z, u: predictor(z, control=u), (z.requires_grad_(), u.requires_grad_()))
    predictor(z, control=u).square().sum().backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in predictor.parameters())


def test_a_users_force_is_that_by_hand_in_every_mode():
    h, (z, u) = sj.PotentialHamiltonian(Wells(), control_dim=M).double(), inputs(4)
    q = z[:, :D]
    expected = h.potential_fn.force(q, u).detach()
    for control in (u, u.clone().requires_grad_()):
        torch.testing.assert_close(h.with_control(control).force(q), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(h.force(q, u), expected, rtol=1e-12, atol=1e-12)
    with torch.inference_mode():
        torch.testing.assert_close(h.force(q.clone(), u.clone()), expected, rtol=1e-12, atol=1e-12)
        assert u.clone().is_inference()


def test_without_control_dim_nothing_has_changed():
    """Names, shapes and draws are those of the layers written out; a control only widens the first layer."""
    torch.manual_seed(0)
    h = sj.SeparableHamiltonian(D, hidden_dim=8)
    mlp = sj.ResidualMLPPredictor(D, hidden_dim=8)
    torch.manual_seed(0)
    layers = [nn.Linear(D, 8), nn.Linear(8, 8), nn.Linear(8, 1, bias=False)]
    residual = [nn.Linear(2 * D, 8), nn.Linear(8, 8), nn.Linear(8, 2 * D)]
    assert list(h.state_dict()) == [
        "residual_scale", "hidden.0.weight", "hidden.0.bias", "hidden.1.weight", "hidden.1.bias", "output.weight"
    ]  # fmt: skip
    for module, written in ((h, layers), (mlp, residual)):
        expected = [x for layer in written for x in layer.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), expected, strict=True))
        assert not module.takes_control
    assert list(by_action().state_dict()) == list(h.state_dict())
    assert by_action().hidden[0].weight.shape == (8, D + M)
    assert list(residual_mlp().state_dict()) == list(mlp.state_dict())
    assert residual_mlp().residual[0].weight.shape == (8, 2 * D + M)


# A general Hamiltonian under B u and B(q) u


@pytest.mark.parametrize("turning", [False, True])
def test_a_general_system_follows_its_equations_of_motion(turning):
    """``q̇ = ∂H/∂p``, ``ṗ = −∂H/∂q + B(q)u`` by Runge–Kutta of order 4; the midpoint rule has order 2."""
    free, (z, u) = Coupled(), inputs(5)
    z, u, matrix = 0.5 * z, 0.5 * u, Turning() if turning else MATRIX
    strength = free.strength.item()

    def field(z):
        q, p = z.chunk(2, -1)
        b = matrix(q) if turning else MATRIX.expand(5, D, M)
        dq = strength * q * p.square() + q.sin()
        return torch.cat((p * (1 + strength * q.square()), -dq + torch.einsum("bdm,bm->bd", b, u)), -1)

    truth, h = z, 1 / 200
    for _ in range(200):
        a = field(truth)
        b = field(truth + h / 2 * a)
        c = field(truth + h / 2 * b)
        d = field(truth + h * c)
        truth = truth + h / 6 * (a + 2 * b + 2 * c + d)
    system = sj.ControlledHamiltonian(free, matrix)
    errors = [
        (sj.HamiltonianPredictor(system, dt=1 / n, steps=n, integrator=midpoint)(z, control=u) - truth).abs().max()
        for n in (10, 20, 40)
    ]
    assert errors[-1] < 3e-3
    assert all(3.5 < a / b < 4.5 for a, b in itertools.pairwise(errors))
    dq, dp = free.by_hand(*z.chunk(2, -1))
    got = system.with_control(u).gradient(*z.chunk(2, -1))
    torch.testing.assert_close(torch.cat((got[1], -got[0]), -1), field(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat(system.gradient(*z.chunk(2, -1)), -1), torch.cat((dq, dp), -1))


@pytest.mark.parametrize("make", GENERAL.values())
def test_a_general_system_is_not_taken_for_a_separable_one(make):
    torch.manual_seed(0)
    system, (z, u) = make().double(), inputs(4)
    q, p = z.chunk(2, -1)
    for h in (system, system.with_control(u)):
        assert not isinstance(h, AbstractSeparable)
        with pytest.raises(TypeError, match="hamiltonian must be separable"):
            sj.leapfrog(h, q, p, dt=0.1)
    torch.testing.assert_close(system(q, p), system.hamiltonian(q, p), rtol=0, atol=0)
    expected = system.hamiltonian(q, p) - torch.einsum("bd,dm,bm->b", q, MATRIX, u)
    torch.testing.assert_close(system.with_control(u)(q, p), expected, rtol=1e-12, atol=1e-12)
    free = sj.HamiltonianPredictor(system.hamiltonian, integrator=midpoint)
    assert torch.equal(sj.HamiltonianPredictor(system, integrator=midpoint)(z), free(z))
    with pytest.raises(TypeError, match=r"energy only for a constant input_matrix, got B\(q\)"):
        sj.ControlledHamiltonian(system.hamiltonian, Turning()).with_control(u)(q, p)


def test_a_system_in_two_parts_takes_the_same_input_in_both():
    torch.manual_seed(0)
    inner = by_action().double()
    system, (z, u) = sj.ControlledHamiltonian(inner, MATRIX), inputs(4)
    q, p = z.chunk(2, -1)
    driven = system.with_control(u)
    torch.testing.assert_close(driven.force(q), inner.force(q, u) + u @ MATRIX.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(driven(q, p), inner.with_control(u)(q, p) - (q * (u @ MATRIX.T)).sum(-1))


def test_training_finds_the_input_matrix_of_a_general_system():
    """From one frame of random states; potential and coupling are known, ``B`` is not."""
    z, u = (x.float() for x in inputs(64))
    world = sj.ControlledHamiltonian(Coupled().float(), MATRIX.float())
    model = sj.ControlledHamiltonian(Coupled().float().requires_grad_(False), nn.Parameter(torch.zeros(D, M)))
    predictors = [sj.HamiltonianPredictor(h, dt=0.1, integrator=sj.implicit_midpoint) for h in (world, model)]
    target = predictors[0](z, control=u).detach()
    optimizer = torch.optim.Adam([model.input_matrix], lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        (predictors[1](z, control=u) - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(model.input_matrix.detach(), MATRIX.float(), rtol=0, atol=1e-2)


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

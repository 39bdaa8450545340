"""The symplectic network: symplectic for any weights, inverted exactly, and more than a separable step can be."""

import math

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.evaluation import symplecticity_defect
from tests.helpers.systems import omega

D, M = 3, 2
KINDS = {"free": 0, "driven": M}


def net(control_dim=0, *, scale=3.0, layers=3, **options):
    """In float64, with weights so large that no term is small."""
    torch.manual_seed(0)
    predictor = sj.SymplecticNetPredictor(D, layers=layers, hidden_dim=8, control_dim=control_dim, **options).double()
    for x in predictor.parameters():
        x.data.mul_(scale)
    return predictor


def states(*shape, seed=1):
    return torch.randn(*shape, 2 * D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def control_of(kind, *shape):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(*shape, M, dtype=torch.float64, generator=generator) if KINDS[kind] else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh", "softplus"])
@pytest.mark.parametrize("direction", [1, -1])
def test_it_is_symplectic_for_any_weights_and_every_fixed_control(kind, activation, direction):
    predictor = net(KINDS[kind], activation=activation, dt=0.5)
    for u in control_of(kind, 3) if KINDS[kind] else [None]:
        step = lambda z, u=u: predictor(z, direction=direction, control=u)  # noqa: E731
        jacobian = torch.func.jacrev(step)(states())
        torch.testing.assert_close(jacobian.T @ omega(D) @ jacobian, omega(D), rtol=0, atol=1e-12)
        assert (jacobian - torch.eye(2 * D)).abs().max() > 0.1
        assert symplecticity_defect(step, states(4)).max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 3])
def test_each_layers_gradient_is_that_of_its_energy(kind, depth):
    predictor, u = net(KINDS[kind], depth=depth), control_of(kind, 5)
    q, p = (x.requires_grad_() for x in states(5).split(D, -1))
    for layer in predictor._under(u, q):
        (dq,) = torch.autograd.grad(layer.potential(q).sum(), q)
        (dp,) = torch.autograd.grad(layer.kinetic(p).sum(), p)
        torch.testing.assert_close(-layer.force(q), dq, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.velocity(p), dp, rtol=1e-12, atol=1e-12)


def written_out(predictor, q, p, u):
    """The map of the docstring, with the energies written by hand and their gradients through autograd."""

    def gradient(mlp, coefficient, x, *others):
        x = x.detach().requires_grad_()
        h = torch.cat((x, *others), -1)
        for layer in mlp.hidden:
            h = nn.functional.gelu(layer(h))
        energy = 0.5 * coefficient * x.square().sum() + mlp.output(h).sum()
        return torch.autograd.grad(energy, x)[0]

    size = predictor.dt / predictor.layers
    for layer in predictor.hamiltonians:
        p = p - size * gradient(layer.kick, predictor.base_coeff, q, *([] if u is None else [u]))
        q = q + size * gradient(layer.drift, 1.0, p)
    return q, p


@pytest.mark.parametrize("kind", KINDS)
def test_flow_is_the_composition_written_out(kind):
    predictor, u = net(KINDS[kind], dt=0.7, base_coeff=0.4), control_of(kind, 5)
    q, p = states(5).split(D, -1)
    torch.testing.assert_close(predictor.flow(q, p, control=u), written_out(predictor, q, p, u), rtol=1e-12, atol=1e-12)


def test_with_equal_layers_it_is_symplectic_euler():
    """So ``h`` is the time of the whole map, whatever the number of layers."""
    predictor = net(layers=4, dt=0.6)
    for layer in predictor.hamiltonians[1:]:
        layer.load_state_dict(predictor.hamiltonians[0].state_dict())
    q, p = states(5).split(D, -1)
    for sign in (1, -1):
        expected = sj.symplectic_euler(predictor.hamiltonians[0], q, p, dt=sign * 0.15, steps=4)
        torch.testing.assert_close(predictor.flow(q, p, direction=sign), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("layers", [1, 50])
def test_without_its_learned_part_it_is_harmonic_motion(layers):
    predictor = net(layers=layers, scale=0.0, dt=0.1, base_coeff=0.25)
    q, p = states(5).split(D, -1)
    cos, sin = math.cos(0.05), math.sin(0.05)  # frequency √c = 0.5
    expected = torch.cat((cos * q + 2 * sin * p, cos * p - 0.5 * sin * q), -1)
    torch.testing.assert_close(predictor(states(5)), expected, rtol=0, atol=0.01 / layers)
    assert (predictor(states(5)) - expected).abs().max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradient", ["stored", "reversible"])
def test_each_direction_inverts_the_other_exactly(kind, gradient):
    predictor, z, u = net(KINDS[kind], layers=6, dt=0.5, gradient=gradient), states(4, 5), control_of(kind, 4, 5)
    for first in (1, -1):
        there = predictor(z, direction=first, control=u)
        assert (there - z).abs().max() > 0.1
        torch.testing.assert_close(predictor(there, direction=-first, control=u), z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_states_may_go_both_ways_in_one_call(kind):
    predictor, z, u = net(KINDS[kind]), states(2, 5), control_of(kind, 2, 5)
    both = predictor(z, direction=(1, -1), control=u)
    for i, sign in enumerate((1, -1)):
        assert torch.equal(both[i], predictor(z[i], direction=sign, control=None if u is None else u[i]))


# The reversible gradient


def gradients(predictor, z, u, *, gradient, steps=3):
    predictor.gradient = gradient
    leaves = [x.clone().requires_grad_() for x in (z, u) if x is not None]
    controls = leaves[1].tanh().expand(steps, *u.shape) if u is not None else None
    end = predictor.rollout(leaves[0], controls, steps=steps)
    weight = torch.randn(end.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return [end, *torch.autograd.grad((weight * end).sum(), [*leaves, *predictor.parameters()])]


@pytest.mark.parametrize(
    ("kind", "shape"), [("free", ()), *(("driven", shape) for shape in [(4, 5), (1, 1), (5,), ()])]
)
def test_reversible_gradients_of_a_rollout_equal_the_stored_ones(kind, shape):
    """By the states, the weights and a control that broadcasts to the states."""
    predictor, z, u = net(KINDS[kind], layers=5, scale=1.5, dt=0.5), states(4, 5), control_of(kind, *shape)
    reversible, stored = (gradients(predictor, z, u, gradient=mode) for mode in ("reversible", "stored"))
    assert torch.equal(reversible[0], stored[0])
    for got, wanted in zip(reversible, stored, strict=True):
        assert wanted.any()
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def saved(predictor, z, u):
    """Numbers kept for the backward pass, apart from weights."""
    weights = {x.untyped_storage().data_ptr() for x in predictor.parameters()}
    kept = {}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        end = predictor(z, control=u)  # alive, so that no storage is reused
    assert end.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_does_not_grow_with_the_layers(kind):
    z, u = states(50).requires_grad_(), control_of(kind, 50)
    few, many = (
        {gradient: saved(net(KINDS[kind], layers=n, gradient=gradient), z, u) for gradient in ("stored", "reversible")}
        for n in (2, 16)
    )
    assert many["reversible"] == few["reversible"]
    assert many["stored"] > 6 * few["stored"]


def test_the_reversible_gradient_refuses_what_it_cannot_do():
    predictor, z = net(gradient="reversible"), states(3).requires_grad_()
    with pytest.raises(RuntimeError, match="can be differentiated once; use gradient='stored'"):
        torch.autograd.grad(predictor(z).sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="which torch.func cannot transform"):
        torch.func.grad(lambda z: predictor(z).sum())(states(3))
    end = predictor(z)
    with torch.no_grad():
        predictor.hamiltonians[1].drift.output.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        end.sum().backward()


# Control


def test_a_control_broadcasts_and_moves_the_state():
    predictor, z = net(M), states(4, 5)
    u = control_of("driven", 5)
    everywhere = predictor(z, control=u.expand(4, 5, M))
    assert torch.equal(predictor(z, control=u), everywhere)
    assert torch.equal(predictor(z, control=u.unsqueeze(0)), everywhere)
    assert (predictor(z, control=-u) - everywhere).abs().max() > 1e-2
    torch.testing.assert_close(predictor(z, control=u.float()), everywhere, rtol=0, atol=1e-6)
    controls = torch.stack((u, -u, 2 * u))
    frames = predictor.rollout(z, controls)
    expected = z
    for t in range(3):
        expected = predictor(expected, control=controls[t])
        assert torch.equal(frames[t], expected)


def test_a_driven_network_can_be_exported():
    predictor, z, u = net(M), states(5), control_of("driven", 5)
    exported = torch.export.export(predictor, (z,), {"control": u}).module()
    torch.testing.assert_close(exported(z, control=u), predictor(z, control=u))


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_in_the_objectives(kind):
    predictor = net(KINDS[kind], scale=1.0)
    assert predictor.takes_control == (kind == "driven")
    views, frames = states(2, 16), states(4, 16)
    for objective, z, u in (
        (sj.hamjepa_cifar100(predictor), views, control_of(kind, 16)),
        (sj.TrajectoryObjective(predictor, horizon=2, bidirectional=True), frames, control_of(kind, 3, 16)),
    ):
        loss, _ = objective(z, u)
        assert all(g.any() for g in torch.autograd.grad(loss, list(predictor.parameters())))
        if kind == "driven":
            with pytest.raises(ValueError, match="control.* must be given"):
                objective(z)
        else:
            with pytest.raises(TypeError, match="control must be None for a SymplecticNetPredictor"):
                objective(z, z[: len(z) - 1, :, :M] if z is frames else z[0, :, :M])


@pytest.mark.parametrize(
    ("control", "error", "message"),
    [
        (None, ValueError, "control must be given to a SymplecticNetPredictor with control_dim=2, got None"),
        (torch.zeros(4, 5, 3), ValueError, r"control must have shape \(..., 2\) .* got \(4, 5, 3\)"),
        (torch.zeros(4, 2), ValueError, r"broadcast to \(4, 5\), got \(4, 2\)"),
        (torch.zeros(2, 4, 5, 2), ValueError, r"broadcast to \(4, 5\), got \(2, 4, 5, 2\)"),
        (torch.tensor(1.0), ValueError, r"control must have shape \(..., 2\) .* got \(\)"),
        (torch.zeros(5, 2, dtype=torch.int64), TypeError, "control must be a floating-point tensor, got dtype"),
        ([0.0, 1.0], TypeError, "control must be a floating-point tensor, got list"),
    ],
)
def test_a_control_that_does_not_fit_is_named(control, error, message):
    with pytest.raises(error, match=message):
        net(M)(states(4, 5), control=control)


# What it can express


def magnetic(z):
    """A rotation, as in a magnetic field, and a kick: ``q ↦ Rq``, ``p ↦ Rp − ½ sin Rq``, which is symplectic."""
    rotation = torch.tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    q, p = (x @ rotation.T for x in z.chunk(2, -1))
    return torch.cat((q, p - 0.5 * q.sin()), -1)


def test_it_fits_a_symplectic_map_that_a_separable_step_cannot():
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(256, 4, generator=generator), torch.randn(512, 4, generator=generator)
    errors = []
    for make in (
        lambda: sj.SymplecticNetPredictor(2, hidden_dim=32),
        lambda: sj.HamiltonianPredictor(sj.SeparableHamiltonian(2, hidden_dim=32, residual_scale=1.0)),
    ):
        torch.manual_seed(0)
        predictor = make()
        optimizer = torch.optim.Adam(predictor.parameters(), lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            (predictor(train) - magnetic(train)).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            errors.append((predictor(test) - magnetic(test)).square().mean().item())
    assert errors[0] < 0.25 * errors[1]


# Settings


def test_bad_arguments_are_named():
    for options, message in (
        ({"dim": 0}, "dim must be an int >= 1, got 0"),
        ({"layers": 0}, "layers must be an int >= 1, got 0"),
        ({"hidden_dim": 0}, "hidden_dim must be an int >= 1"),
        ({"depth": 1.5}, "depth must be an int >= 1"),
        ({"control_dim": -1}, "control_dim must be an int >= 0, got -1"),
        ({"control_dim": False}, "control_dim must be an int >= 0, got False"),
        ({"dt": 0.0}, "dt must be a finite number > 0"),
        ({"base_coeff": math.inf}, "base_coeff must be a finite number"),
        ({"activation": "relu"}, "activation must be one of 'gelu'"),
        ({"gradient": "adjoint"}, "gradient must be one of 'stored', 'reversible'"),
    ):
        with pytest.raises(ValueError, match=message):
            sj.SymplecticNetPredictor(**{"dim": 2, **options})
    predictor = sj.SymplecticNetPredictor(2)
    with pytest.raises(ValueError, match=r"q must have shape \(..., 2\), got \(5, 3\)"):
        predictor(torch.zeros(5, 6))
    with pytest.raises(ValueError, match="q and p must share a shape"):
        predictor.flow(torch.zeros(5, 2), torch.zeros(4, 2))
    with pytest.raises(TypeError, match="z must be a floating-point tensor"):
        predictor(torch.zeros(5, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="direction must be 1"):
        predictor(torch.zeros(5, 4), direction=0)


def test_a_layer_that_works_through_forward_is_refused():
    predictor = net()
    predictor.hamiltonians[2].kick.hidden[1].register_forward_hook(lambda layer, x, y: 2 * y)
    with pytest.raises(TypeError, match=r"^hidden.1 must be an nn.Linear without hooks"):
        predictor(states(5))


def test_settings_come_back(tmp_path):
    options = {"layers": 2, "hidden_dim": 5, "depth": 3, "control_dim": M, "dt": 0.3, "activation": "tanh",
               "base_coeff": 0.2, "gradient": "reversible"}  # fmt: skip
    predictor = sj.SymplecticNetPredictor(D, **options).double()
    assert predictor.config() == {"dim": D, **options}
    predictor.save_pretrained(tmp_path)
    loaded = sj.SymplecticNetPredictor.from_pretrained(tmp_path)
    u = control_of("driven", 5)
    assert torch.equal(loaded(states(5), control=u), predictor(states(5), control=u))

"""Gradients without stored states: equal to the stored ones."""

import copy

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from tests.helpers.systems import Well

D = 4


def controlled():
    return sj.ControlledHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=6), input_matrix=torch.randn(D, 2))


HAMILTONIANS = {
    "separable": lambda: sj.SeparableHamiltonian(D, hidden_dim=6, residual_scale=1.0),
    "learned mass": lambda: sj.SeparableHamiltonian(D, hidden_dim=6, learn_mass=True),
    "potential": lambda: sj.PotentialHamiltonian(Well()),
    "quadratic": lambda: sj.QuadraticHamiltonian(D),
    "controlled": controlled,
}


def states(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *shape, D, generator=generator, dtype=torch.float64).to(dtype)


def gradients(integrator, hamiltonian, q, p, others=(), *, dt, steps, gradient):
    """Of one random combination of the final state, by q, p, the others and every parameter."""
    q, p = (x.detach().clone().requires_grad_() for x in (q, p))
    inputs = [q, p, *others, *hamiltonian.parameters()]
    end = torch.stack(integrator(hamiltonian, q, p, dt=dt, steps=steps, gradient=gradient))
    weight = torch.randn(end.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(end.dtype)
    return [end, *torch.autograd.grad((weight * end).sum(), inputs, allow_unused=True)]


def worst(a, b):
    """Largest relative difference; a gradient is there in both or in neither."""
    assert [x is None for x in a] == [x is None for x in b]
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None]
    return torch.stack([(x - y).norm() / y.norm().clamp_min(1e-12) for x, y in pairs]).max().item()  # NaN stays NaN


@pytest.mark.parametrize("dt", [0.03, -0.03])
@pytest.mark.parametrize("table", sj.integrators.SPLITTINGS)
@pytest.mark.parametrize("name", HAMILTONIANS)
def test_gradients_of_64_steps_equal_the_stored_ones(name, table, dt):
    torch.manual_seed(0)
    hamiltonian = HAMILTONIANS[name]().double()
    both = [
        gradients(sj.integrators.SPLITTINGS[table], hamiltonian, *states(3, 2), dt=dt, steps=64, gradient=mode)
        for mode in ("reversible", "stored")
    ]
    assert worst(*both) < 1e-10


def test_gradient_by_a_learned_step_and_a_control():
    torch.manual_seed(0)
    system = controlled().double()
    seed = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    raw = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)

    def run(gradient):
        driven = system.with_control(seed.tanh())  # no leaf: its own graph lies behind it
        dt = nn.functional.softplus(raw)
        return gradients(sj.leapfrog, driven, *states(5), [seed, raw], dt=dt, steps=64, gradient=gradient)

    assert worst(run("reversible"), run("stored")) < 1e-10


def test_float32_gradients_are_as_good_as_the_stored_ones():
    torch.manual_seed(0)
    hamiltonian = sj.SeparableHamiltonian(D, hidden_dim=6)
    exact = copy.deepcopy(hamiltonian).double()
    truth = gradients(sj.leapfrog, exact, *states(20), dt=0.05, steps=64, gradient="stored")
    errors = {
        mode: worst(
            [g.double() for g in gradients(
                sj.leapfrog, hamiltonian, *states(20, dtype=torch.float32), dt=0.05, steps=64, gradient=mode
            )],
            truth,
        )
        for mode in ("stored", "reversible")
    }  # fmt: skip
    assert errors["reversible"] < 1e-5
    assert errors["reversible"] < 20 * errors["stored"]


# What is changed in between


@pytest.mark.parametrize("change", ["weight", "residual scale", "geometry"])
def test_a_tensor_changed_before_the_backward_pass_is_refused(change):
    residual, quadratic = sj.SeparableHamiltonian(D, hidden_dim=6), sj.QuadraticHamiltonian(D, geometry=torch.eye(D))
    changed = {"weight": residual.output.weight, "residual scale": residual.residual_scale}
    q, p = states(3).float().requires_grad_()
    hamiltonian = residual if change in changed else quadratic
    end, _ = sj.leapfrog(hamiltonian, q, p, dt=0.05, gradient="reversible")
    with torch.no_grad():
        changed.get(change, quadratic.geometry.matrix).mul_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        end.sum().backward()


def test_the_backward_pass_runs_in_full_precision_under_autocast_too():
    hamiltonian = sj.SeparableHamiltonian(D, hidden_dim=6, residual_scale=1.0)
    q, p = states(20, dtype=torch.float32)
    found = []
    for enabled in (False, True):
        leaves = [x.detach().clone().requires_grad_() for x in (q, p)]
        end = torch.stack(sj.leapfrog(hamiltonian, *leaves, dt=0.05, steps=8, gradient="reversible"))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found.append(torch.autograd.grad(end.square().sum(), [*leaves, *hamiltonian.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# Tensors that are shared, derived, absent or hidden


class Spring(nn.Module):
    """``½ k ‖q‖²`` with a stiffness that is a plain attribute."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, q):
        return 0.5 * (self.k * q**2).sum(-1)


class Springs(nn.Module):
    """The sum of several potentials."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, q):
        return sum(part(q) for part in self.parts)


def assert_as_stored(hamiltonian, others, *, dt=0.1):
    """``others``: tensors that have a gradient besides the parameters; ``hamiltonian`` and ``dt`` may be made anew."""
    both = []
    for mode in ("reversible", "stored"):
        h = hamiltonian() if callable(hamiltonian) and not isinstance(hamiltonian, nn.Module) else hamiltonian
        both.append(gradients(sj.leapfrog, h, *states(5), others, dt=dt, steps=6, gradient=mode))
    assert worst(*both) < 1e-10


def scalar(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def test_a_tensor_held_twice_gets_its_gradient_once():
    k = scalar(0.6)
    assert_as_stored(sj.PotentialHamiltonian(Springs(Spring(k), Spring(k))), [k])


def test_a_step_size_that_is_also_an_attribute_gets_its_gradient_once():
    k = scalar(0.2)
    assert_as_stored(sj.PotentialHamiltonian(Spring(k)), [k], dt=k)


def test_an_attribute_derived_from_a_parameter():
    well, raw = Well().double(), scalar(0.3)
    assert_as_stored(lambda: sj.PotentialHamiltonian(Springs(well, Spring(well.depth.exp() * raw))), [raw])


def test_a_control_that_depends_on_the_weights():
    torch.manual_seed(0)
    system = controlled().double()
    weight = next(system.parameters())
    assert_as_stored(lambda: system.with_control(weight.flatten()[:2].tanh()), [])


def test_a_constant_force():
    slope = torch.randn(D, dtype=torch.float64)
    assert_as_stored(sj.PotentialHamiltonian(lambda q: (q * slope).sum(-1)), [])


def test_a_tensor_replaced_after_the_forward_pass_still_gets_its_gradient():
    k, other = scalar(0.6), scalar(5.0)
    spring = Spring(k)
    q, p = states(5)
    results = []
    for mode in ("reversible", "stored"):
        spring.k = k
        end, _ = sj.leapfrog(sj.PotentialHamiltonian(spring), q, p, dt=0.1, steps=6, gradient=mode)
        spring.k = other
        results.append(torch.autograd.grad(end.square().sum(), k)[0])
        assert spring.k is other
    torch.testing.assert_close(*results)


def test_a_hidden_sibling_of_a_held_tensor_is_refused():
    held, hidden = torch.rand(2, dtype=torch.float64, requires_grad=True).unbind()  # two outputs of one graph node
    hamiltonian = sj.PotentialHamiltonian(Springs(Spring(held), Hidden(lambda q: hidden * q.cos().sum(-1))))
    q, p = states(3).requires_grad_()
    end, _ = sj.leapfrog(hamiltonian, q, p, dt=0.05, gradient="reversible")
    with pytest.raises(RuntimeError, match=r"cannot see a tensor of shape \(2,\)"):
        end.sum().backward()


class Hidden(nn.Module):
    """A function whose captured tensors no module holds."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, q):
        return self.function(q)


# In a predictor, and in an objective


def test_a_whole_objective_learns_the_same():
    torch.manual_seed(0)
    stored = sj.hamjepa_cifar100(sj.HamiltonianPredictor(sj.SeparableHamiltonian(8, hidden_dim=6), steps=16))
    reversible = copy.deepcopy(stored)
    reversible.predictor = sj.HamiltonianPredictor(reversible.predictor.hamiltonian, steps=16, gradient="reversible")
    z = torch.randn(2, 32, 16, requires_grad=True)
    results = [
        [loss, *torch.autograd.grad(loss, [z, *objective.parameters()])]
        for objective in (reversible, stored)
        for loss in (objective(z).loss,)
    ]
    assert worst(*results) < 1e-5


def test_half_precision_and_autocast_are_as_stored():
    hamiltonian = sj.SeparableHamiltonian(D, hidden_dim=6)
    q, p = (x.bfloat16().requires_grad_() for x in states(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ends = [sj.leapfrog(hamiltonian, q, p, dt=0.05, steps=8, gradient=g) for g in ("stored", "reversible")]
        grads = [torch.autograd.grad(torch.stack(end).float().sum(), q)[0] for end in ends]
    assert ends[1][0].dtype == grads[1].dtype == torch.bfloat16
    assert torch.equal(ends[0][0], ends[1][0])
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_the_plain_map(context):
    hamiltonian, (q, p) = HAMILTONIANS["separable"]().double(), states(3)
    with context():
        ends = [sj.leapfrog(hamiltonian, q, p, dt=0.05, gradient=g) for g in ("stored", "reversible")]
    assert torch.equal(ends[0][0], ends[1][0])
    assert not ends[1][0].requires_grad


def test_a_tensor_that_it_cannot_see_is_refused():
    depth = torch.tensor(0.5, requires_grad=True)
    for hidden in (depth, depth.exp()):
        hamiltonian = sj.PotentialHamiltonian(lambda q, hidden=hidden: (hidden * q.cos()).sum(-1))
        q, p = states(3).float().requires_grad_()
        end, _ = sj.leapfrog(hamiltonian, q, p, dt=0.05, gradient="reversible")
        with pytest.raises(RuntimeError, match=r"cannot see a tensor of shape \(\).*parameter of the Hamiltonian"):
            end.sum().backward()


def test_it_differentiates_once_and_says_so():
    hamiltonian = HAMILTONIANS["separable"]().double()
    q, p = states(3).requires_grad_()
    end, _ = sj.leapfrog(hamiltonian, q, p, dt=0.05, gradient="reversible")
    with pytest.raises(RuntimeError, match="can be differentiated once; use gradient='stored'"):
        torch.autograd.grad(end.sum(), q, create_graph=True)


def test_bad_arguments_are_named():
    separable, (q, p) = sj.SeparableHamiltonian(D), states(3)
    with pytest.raises(ValueError, match="gradient must be one of 'stored', 'reversible', got 'adjoint'"):
        sj.leapfrog(separable, q, p, dt=0.1, gradient="adjoint")
    with pytest.raises(ValueError, match="gradient must be one of"):
        sj.HamiltonianPredictor(separable, gradient="adjoint")
    with pytest.raises(ValueError, match="gradient must be 'stored' for an integrator without a gradient argument"):
        sj.HamiltonianPredictor(separable, integrator=sj.implicit_midpoint, gradient="reversible")

"""Gradients through a damped system, and a damping that is learned."""

import numpy as np
import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.integrators import SPLITTINGS
from symplectic_jepa.integrators.reversible import _mean_decay
from tests.helpers.damped import NESTINGS, D, M, learned
from tests.helpers.samples import states
from tests.helpers.systems import by_weights

nestings = pytest.mark.parametrize("nest", NESTINGS.values(), ids=NESTINGS.keys())


def test_mean_decay_and_its_slope_have_all_digits_at_and_around_zero():
    """Against Gauss–Legendre quadrature of ``∫ e^{−sx} ds`` and ``−∫ s e^{−sx} ds`` over 0 ≤ s ≤ 1."""
    x = torch.tensor([-4.0, -0.5, -0.1, -0.0999, -1e-3, 0.0, 1e-9, 1e-3, 0.0999, 0.1, 0.5, 4.0], dtype=torch.float64)
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(30))
    s, w = (nodes + 1) / 2, weights / 2
    e = w * torch.exp(-s * x[:, None])
    x.requires_grad_()
    (slope,) = torch.autograd.grad(_mean_decay(x).sum(), x)
    torch.testing.assert_close(_mean_decay(x), e.sum(-1), rtol=1e-14, atol=0)
    torch.testing.assert_close(slope, -(s * e).sum(-1), rtol=1e-13, atol=0)
    assert _mean_decay(torch.zeros(1)).item() == 1


DTS = {
    "fixed": 0.11,
    "negative": -0.11,
    "learned": torch.tensor(0.11, dtype=torch.float64, requires_grad=True),
    "per state": torch.tensor([[0.11], [-0.2], [0.05]], dtype=torch.float64, requires_grad=True),
}

PAIRS = {
    f"{name}, {step}": (splitting, dt)
    for name, splitting in SPLITTINGS.items()
    for step, dt in DTS.items()
    if splitting.symmetric or isinstance(dt, float)
}


@pytest.mark.parametrize(("splitting", "dt"), PAIRS.values(), ids=PAIRS.keys())
@pytest.mark.parametrize("nest", [None, *NESTINGS.values()], ids=["damped", *NESTINGS])
def test_reversible_gradients_equal_the_stored_ones(splitting, dt, nest):
    """By states, weights, mass, damping, input matrix, control and step size."""
    gamma, control = torch.tensor([0.2, 0.6, 1.5]), torch.randn(3, M, dtype=torch.float64, requires_grad=True)
    system = (nest or sj.DampedHamiltonian)(learned(), gamma, learn=True).double()
    system, others = (system.with_control(control), [control]) if nest else (system, [])
    found = []
    for gradient in ("reversible", "stored"):
        leaves = [x.clone().requires_grad_() for x in states_of_three()]
        end = torch.cat(splitting(system, *leaves, dt=dt, steps=5, gradient=gradient), -1)
        inputs = [*leaves, *others, *system.parameters(), *([dt] if isinstance(dt, torch.Tensor) else [])]
        weight = torch.linspace(-1, 2, end.numel(), dtype=torch.float64).reshape(end.shape)
        found.append([end, *torch.autograd.grad((weight * end).sum(), inputs)])
    assert any(name.endswith("raw_damping") for name, _ in system.named_parameters())
    for reversible, stored in zip(*found, strict=True):
        assert stored.abs().sum() > 0
        torch.testing.assert_close(reversible, stored, rtol=1e-8, atol=1e-9 * stored.abs().max().item())


def states_of_three():
    return torch.randn(2, 3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("splitting", [sj.leapfrog, sj.ruth3], ids=["leapfrog", "ruth3"])
@nestings
def test_gradients_are_those_of_finite_differences(splitting, nest):
    system = nest(learned(), torch.tensor([0.2, 0.6, 1.5]), learn=True).double()
    q, p = states_of_three()[:, :1].requires_grad_()
    u = torch.randn(1, M, dtype=torch.float64, requires_grad=True)
    run, weights = by_weights(system, lambda s, q, p, u: splitting(s.with_control(u), q, p, dt=0.2, steps=1))
    assert torch.autograd.gradcheck(run, (q, p, u, *weights))


def test_second_derivatives_with_respect_to_the_damping():
    (q, p), raw = states_of_three(), torch.tensor([0.0, 0.05, -0.3], dtype=torch.float64, requires_grad=True)
    system = sj.DampedHamiltonian(learned(), 1.0, learn=True)

    def run(raw):
        return torch.func.functional_call(Rollout(system), {"system.raw_damping": raw}, (q, p))

    assert torch.autograd.gradgradcheck(run, (raw,))


class Rollout(nn.Module):
    def __init__(self, system):
        super().__init__()
        self.system = system

    def forward(self, q, p):
        return sj.leapfrog(self.system, q, p, dt=0.2, steps=2)


# A learned damping


@pytest.mark.parametrize("value", [1e-4, 0.3, 50.0, 2000.0])
def test_a_learned_damping_starts_at_its_value(value):
    single = sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), value, learn=True)
    each = sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), torch.full((D,), value), learn=True)
    torch.testing.assert_close(single.damping, torch.full((1,), value), rtol=1e-5, atol=0)
    torch.testing.assert_close(each.damping, torch.full((D,), value), rtol=1e-5, atol=0)
    assert (single.learn, sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), value).learn) == (True, False)


def test_a_learned_damping_finds_the_true_one_and_stays_nonnegative():
    truth = torch.tensor([0.0, 0.2, 0.9], dtype=torch.float64)
    q, p = states(32, D)
    world = sj.HamiltonianPredictor(sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), truth), dt=0.1, steps=5)
    system = sj.DampedHamiltonian(sj.QuadraticHamiltonian(D), torch.full((D,), 0.5), learn=True).double()
    model = sj.HamiltonianPredictor(system, dt=0.1, steps=5)
    z = torch.cat((q, p), -1)
    target = world.rollout(z, steps=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (model.rollout(z, steps=3) - target).square().mean().backward()
        optimizer.step()
        assert (system.damping >= 0).all()
    assert system.damping[0] < 0.05  # softplus comes close to 0, ever more slowly
    torch.testing.assert_close(system.damping.detach()[1:], truth[1:], rtol=0, atol=5e-3)

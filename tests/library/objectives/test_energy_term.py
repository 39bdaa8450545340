"""The energy term moves the map and the end of the rollout, and not the energy that it starts from."""

import pytest
import torch

from symplectic_jepa import HamiltonianPredictor, HamJEPAObjective, SeparableHamiltonian


@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_gradient_of_the_energy_term_by_the_source_stops_at_its_start(weight):
    hamiltonian = SeparableHamiltonian(4, hidden_dim=8, residual_scale=2.0).double()
    phi = HamiltonianPredictor(hamiltonian, dt=0.5, steps=2)
    states = torch.randn(2, 10, 8, dtype=torch.float64, requires_grad=True)
    with_term, without = (HamJEPAObjective(phi, bidirectional=False, energy_weight=w)(states)[0] for w in (weight, 0.0))
    (got,) = torch.autograd.grad(with_term - without, states)

    source = states.detach()[0].requires_grad_()
    start = hamiltonian(*source.detach().chunk(2, -1))  # a number
    drift = hamiltonian(*phi(source).chunk(2, -1)) - start
    (expected,) = torch.autograd.grad(weight * drift.square().mean(), source)
    torch.testing.assert_close(got[0], expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-4
    assert got[1].abs().max() < 1e-12

"""Learned mass and control input: what they change in the map, and what they leave."""

import copy

import pytest
import torch
from torch import nn

from symplectic_jepa import HamiltonianPredictor, QuadraticHamiltonian, SeparableHamiltonian, leapfrog
from symplectic_jepa.evaluation import symplecticity_defect
from symplectic_jepa.hamiltonians import AbstractSeparable, ControlledHamiltonian
from symplectic_jepa.integrators import implicit_midpoint, ruth3, yoshida4
from tests.helpers.oracles import textbook_leapfrog
from tests.helpers.samples import states

D, M = 3, 2


def learned(**kwargs):
    return SeparableHamiltonian(D, hidden_dim=8, residual_scale=1.0, **kwargs).double()


def test_mass_is_off_by_default_and_starts_at_the_identity():
    q, p = states(5, D)
    assert learned().mass is None
    assert learned().velocity(p) is p
    assert not any("mass" in name for name in learned().state_dict())
    h = learned(learn_mass=True)
    plain = copy.deepcopy(h)
    plain.raw_mass = None
    torch.testing.assert_close(h.mass, torch.ones(D, dtype=torch.float64), rtol=1e-7, atol=0)
    torch.testing.assert_close(h(q, p), plain(q, p), rtol=1e-6, atol=1e-6)


def test_kinetic_energy_is_half_p_inverse_mass_p_with_velocity_its_gradient():
    h, (q, p) = learned(learn_mass=True), states(5, D)
    h.raw_mass.data = torch.tensor([-3.0, 0.2, 4.0], dtype=torch.float64)
    mass = torch.log1p(torch.exp(h.raw_mass.detach()))
    assert (h.mass > 0).all()
    torch.testing.assert_close(h.kinetic(p), 0.5 * torch.einsum("bi,i,bi->b", p, 1 / mass, p), rtol=1e-12, atol=0)
    p.requires_grad_()
    (slope,) = torch.autograd.grad(h(q, p).sum(), p)
    torch.testing.assert_close(h.velocity(p), slope, rtol=1e-12, atol=0)


class Turning(nn.Module):
    """A ``B(q)`` with ``B(q)u`` far from a gradient."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, q):
        x, y, z = (self.gain * q).unbind(-1)
        return torch.stack((torch.stack((y, -x, z.sin()), -1), torch.stack((z, x * y, -y), -1)), -1)


MATRIX = torch.tensor([[0.5, -1.0], [0.3, 0.8], [-0.7, 0.2]], dtype=torch.float64)
kinds = pytest.mark.parametrize("kind", ["buffer", "parameter", "module"])


def system(kind="buffer", **kwargs):
    matrix = {"buffer": MATRIX, "parameter": nn.Parameter(MATRIX.clone()), "module": Turning()}[kind]
    return ControlledHamiltonian(learned(**kwargs), matrix)


def matrix_of(system, q):
    b = system.input_matrix
    return b.expand(*q.shape, M) if isinstance(b, torch.Tensor) else b(q)


@kinds
@pytest.mark.parametrize("direction", [1, -1])
def test_controlled_predictor_equals_the_loop_by_hand(kind, direction):
    s, (q, p), u = system(kind, learn_mass=True), states(5, D), torch.randn(5, M, dtype=torch.float64)
    predictor = HamiltonianPredictor(s, dt=0.1, steps=3)
    h = s.hamiltonian

    def total(q):
        return h.force(q) + torch.einsum("bdm,bm->bd", matrix_of(s, q), u)

    expected = torch.cat(textbook_leapfrog(total, q, p, dt=direction * 0.1, steps=3, mass=h.mass), -1)
    got = predictor(torch.cat((q, p), -1), direction=direction, control=u)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@kinds
def test_without_control_or_with_zero_the_system_is_free(kind):
    s, z = system(kind), torch.randn(5, 2 * D, dtype=torch.float64)
    free = HamiltonianPredictor(s.hamiltonian)(z)
    predictor = HamiltonianPredictor(s)
    assert torch.equal(predictor(z), free)
    torch.testing.assert_close(predictor(z, control=torch.zeros(5, M)), free, rtol=0, atol=0)
    assert (predictor(z, control=torch.ones(5, M)) - free).abs().max() > 1e-2
    q, p = z.chunk(2, -1)
    assert torch.equal(s(q, p), s.hamiltonian(q, p))


@kinds
@pytest.mark.parametrize("integrator", [leapfrog, ruth3, yoshida4])
def test_reverse_time_under_the_same_control_is_the_exact_inverse(kind, integrator):
    predictor = HamiltonianPredictor(system(kind), dt=0.1, steps=5, integrator=integrator)
    z, u = torch.randn(5, 2 * D, dtype=torch.float64), torch.randn(5, M, dtype=torch.float64)
    there = predictor(z, control=u)
    torch.testing.assert_close(predictor(there, direction=-1, control=u), z, rtol=1e-12, atol=1e-12)
    assert (predictor(there, direction=-1, control=-u) - z).abs().max() > 1e-2


@pytest.mark.parametrize("integrator", [leapfrog, yoshida4, implicit_midpoint])
def test_constant_input_matrix_keeps_the_map_symplectic(integrator):
    predictor = HamiltonianPredictor(system(), dt=0.2, steps=3, integrator=integrator)
    u = torch.randn(M, dtype=torch.float64)
    defect = symplecticity_defect(lambda z: predictor(z, control=u), torch.randn(4, 2 * D, dtype=torch.float64))
    assert defect.max() < (1e-9 if integrator is implicit_midpoint else 1e-13)


def test_position_dependent_input_matrix_does_not_but_keeps_volume():
    predictor = HamiltonianPredictor(system("module"), dt=0.2, steps=3)
    u = torch.ones(M, dtype=torch.float64)
    z = torch.randn(4, 2 * D, dtype=torch.float64)
    assert symplecticity_defect(lambda z: predictor(z, control=u), z).min() > 1e-3
    j = torch.autograd.functional.jacobian(lambda z: predictor(z, control=u), z[0])
    assert torch.linalg.det(j).item() == pytest.approx(1, abs=1e-12)


def test_driven_force_is_minus_the_gradient_of_the_driven_potential():
    q, u = states(5, D)[0].requires_grad_(), torch.randn(5, M, dtype=torch.float64)
    driven = system().with_control(u)
    assert isinstance(driven, AbstractSeparable)
    (slope,) = torch.autograd.grad(driven.potential(q).sum(), q)
    torch.testing.assert_close(driven.force(q), -slope, rtol=1e-12, atol=1e-12)
    with pytest.raises(TypeError, match=r"energy only for a constant input_matrix, got B\(q\)"):
        system("module").with_control(u).potential(q)


@kinds
def test_gradient_reaches_control_state_and_input_matrix(kind):
    s = system(kind, learn_mass=True)
    predictor = HamiltonianPredictor(s, dt=0.2, steps=2)
    z = torch.randn(2, 2 * D, dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, M, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, u: predictor(z, control=u), (z, u))
    predictor(z, control=u).square().sum().backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in s.parameters())
    assert len(list(s.parameters())) - len(list(s.hamiltonian.parameters())) == (kind != "buffer")


def test_one_action_for_the_batch_and_any_leading_shape():
    s, z = system(), torch.randn(4, 5, 2 * D, dtype=torch.float64)
    predictor = HamiltonianPredictor(s)
    u = torch.randn(M, dtype=torch.float64)
    expected = predictor(z, control=u.expand(4, 5, M))
    torch.testing.assert_close(predictor(z, control=u), expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(predictor(z[0, 0], control=u), expected[0, 0], rtol=1e-12, atol=1e-12)
    rows = torch.randn(5, M, dtype=torch.float64)
    torch.testing.assert_close(predictor(z, control=rows)[2, 3], predictor(z[2, 3], control=rows[3]))


def test_an_integrator_of_the_users_own_is_guarded_by_the_predictor():
    h = SeparableHamiltonian(8, hidden_dim=16, residual_scale=1.0)
    seen = []

    def own(hamiltonian, q, p, *, dt, steps):
        seen.append((q.dtype, torch.is_autocast_enabled("cpu"), hamiltonian.force(q).dtype))
        return q + dt * p, p

    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = HamiltonianPredictor(h, integrator=own)(torch.randn(4, 16).bfloat16())
    assert seen == [(torch.float32, False, torch.float32)]
    assert got.dtype == torch.bfloat16


def test_bad_arguments_are_named():
    q = torch.randn(4, D)
    free = SeparableHamiltonian(D, hidden_dim=4)
    with_matrix = ControlledHamiltonian(free, torch.randn(D, M))
    flat = ControlledHamiltonian(free, lambda q: q)
    for call, error, message in (
        (lambda: ControlledHamiltonian(nn.Identity(), MATRIX), TypeError, "must be a Hamiltonian, got Identity"),
        (lambda: learned(learn_mass=True).velocity(q[:, :1]), ValueError, r"p must have shape \(..., 3\)"),
        (lambda: ControlledHamiltonian(free, 3), TypeError, "a tensor, a module or a function, got int"),
        (lambda: ControlledHamiltonian(free, torch.randn(3)), ValueError, r"\(d, m\), got \(3,\)"),
        (lambda: ControlledHamiltonian(free, torch.ones(3, 2, dtype=torch.int64)), TypeError, "got dtype torch.int64"),
        (lambda: ControlledHamiltonian(free, torch.randn(2, 2)).input_force(q, q), ValueError, r"got \(2, 2\)"),
        (lambda: flat.input_force(q, q), ValueError, r"input_matrix must be .* got \(4, 3\)"),
        (lambda: with_matrix.with_control(3.0), TypeError, "floating-point tensor, got float"),
        (lambda: with_matrix.with_control(torch.ones(2, dtype=torch.int64)), TypeError, "got dtype torch.int64"),
        (lambda: with_matrix.input_force(q, torch.ones(4, 3)), ValueError, r"shape \(..., 2\) .* got \(4, 3\)"),
        (lambda: with_matrix.input_force(q, torch.ones(7, 2)), ValueError, r"broadcast to \(4,\), got \(7, 2\)"),
        (lambda: with_matrix.input_force(q, torch.ones(7, 4, 2)), ValueError, r"got \(7, 4, 2\)"),
        (
            lambda: HamiltonianPredictor(QuadraticHamiltonian(D))(torch.randn(4, 2 * D), control=torch.ones(4, 2)),
            TypeError,
            "control must be None for a QuadraticHamiltonian, which takes no control; wrap it",
        ),
    ):
        with pytest.raises(error, match=message):
            call()

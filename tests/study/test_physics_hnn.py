"""The Hamiltonian neural network example: its systems are right, it runs, and a network of few steps already learns."""

import math

import pytest
import torch
from matplotlib.image import imread
from scipy.integrate import solve_ivp

import symplectic_jepa as sj
from examples.physics import hnn, hnn_report
from examples.physics.systems import SYSTEMS, System, trajectory

systems = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def by_autograd(system, z):
    """``(∂H/∂p, −∂H/∂q)`` of the energy alone."""
    z = z.detach().requires_grad_()
    q, p = sj.split_state(z)
    (slope,) = torch.autograd.grad((system.kinetic(p) + system.potential(q)).sum(), z)
    dq, dp = sj.split_state(slope)
    return sj.join_state(dp, -dq)


@systems
def test_forces_and_velocities_are_the_gradients_of_the_energy(system):
    z = system.starts(50, draws())
    field = sj.join_state(*system.vector_field(*sj.split_state(z)))
    torch.testing.assert_close(field, by_autograd(system, z), rtol=1e-12, atol=1e-12)


def test_energies_are_those_of_the_formulas():
    spring, pendulum, bodies = SYSTEMS
    q, p = (torch.tensor([[x]], dtype=torch.float64) for x in (0.4, 0.3))
    assert spring(q, p).item() == pytest.approx(0.16 + 0.09)
    assert pendulum(q, p).item() == pytest.approx(3 * (1 - math.cos(0.4)) + 0.09)
    q, p = torch.tensor([0.0, 0, 3, 4]), torch.tensor([1.0, 0, 0, 2])
    assert bodies(q, p).item() == pytest.approx(0.5 * (1 + 4) - 1 / 5)


@systems
def test_reference_trajectories_conserve_energy_and_are_the_solution(system):
    start = system.starts(5, draws())
    states = trajectory(system, start, duration=20.0, frames=51)
    assert states.shape == (51, 5, 2 * system.dim)
    assert hnn.energy_error(system, states).abs().max() < 1e-9

    def slope(t, z):
        return by_autograd(system, torch.from_numpy(z)).numpy()

    exact = solve_ivp(slope, (0, 20), start[0].numpy(), method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    torch.testing.assert_close(states[-1, 0], torch.from_numpy(exact.copy()), rtol=0, atol=1e-8)


@systems
def test_observations_are_noisy_states_with_exact_derivatives(system):
    start, z, derivative = system.observe(400, draws())
    clean = trajectory(system, start, duration=system.duration, frames=system.frames).flatten(0, 1)
    assert z.shape == derivative.shape == (system.frames * 400, 2 * system.dim)
    assert (z - clean).std().item() == pytest.approx(system.noise, rel=0.02)
    torch.testing.assert_close(derivative, by_autograd(system, clean))


def test_first_states_lie_in_the_ranges_of_the_paper():
    spring, pendulum, bodies = (system.starts(1000, draws()) for system in SYSTEMS)
    for low, x, high in ((0.2, spring.square().sum(-1), 1.0), (1.3, pendulum.norm(dim=-1), 2.3)):
        assert low <= x.min() < low + 0.01
        assert high - 0.01 < x.max() <= high
    a, b, u, v = bodies.split(2, dim=-1)
    torch.testing.assert_close((a, u), (-b, -v))  # the centre of mass rests at the origin
    assert (a * u).sum(-1).abs().max() < 1e-12
    speed = u.norm(dim=-1) * 2 * a.norm(dim=-1).sqrt()  # relative to that of a circular orbit
    assert speed.mean().item() == pytest.approx(1.0, abs=0.005)
    assert speed.std().item() == pytest.approx(0.05, rel=0.1)


class Exact(torch.nn.Module):
    """A network that knows the spring."""

    def forward(self, z):
        return sj.join_state(*SYSTEMS[0].vector_field(*sj.split_state(z)))


def test_runge_kutta_of_the_baseline_has_order_four():
    z = torch.tensor([[0.6, -0.2]], dtype=torch.float64)
    model = hnn.MLP(1, hidden_dim=4).double()
    model.network = Exact()
    angle = 2.0 * 0.8  # q̇ = 2p, ṗ = −2q turn a state by 2t
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    errors = []
    for steps in (20, 40):
        model.steps = steps
        q, p = model.roll_out(*sj.split_state(z), dt=0.8 / steps)
        errors.append((sj.join_state(q, p) - z @ turn).norm().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.1)


@pytest.mark.slow
def test_training_brings_every_model_nearer_to_the_truth(monkeypatch):
    monkeypatch.setattr(hnn, "FRAMES", 4)
    before, after = (hnn.study(few(SYSTEMS[0]), seed=0, steps=steps)[0] for steps in (1, 100))
    assert before["truth"] == after["truth"]
    for name in ("MLP", "HNN", "separable"):
        for column in ("train", "test"):  # not the energy, which a model that stands still conserves
            assert after[name][column] < 0.7 * before[name][column]


@pytest.mark.slow
def test_the_command_writes_its_table_and_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hnn", "--steps", "2", "--seed", "0", "1", "--out", str(tmp_path)])
    monkeypatch.setattr(hnn, "FRAMES", 4)
    monkeypatch.setattr(hnn, "SYSTEMS", [few(system) for system in SYSTEMS])
    hnn.main()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + 3 * 4
    page = (tmp_path / "hnn.md").read_text()
    assert all(line in page for line in printed)
    for system in SYSTEMS:
        assert all(f"| {cell} |" in page for row in hnn_report.PUBLISHED[system.name].values() for cell in row)
    assert imread(tmp_path / "hnn.png").std() > 0


def few(system):
    """The same system with fewer trajectories."""
    return type("Few", (type(system),), {"train": 8, "test": 3})()


def test_every_system_has_its_published_numbers():
    assert all(isinstance(system, System) for system in SYSTEMS)
    assert {system.name for system in SYSTEMS} == set(hnn_report.PUBLISHED) == set(hnn_report.UNITS)

"""Symplectic ODE-Net on a controlled pendulum [Zhong, Dey and Chakraborty 2020, arXiv:1909.12077].

    python -m examples.physics.symplectic_ode_net    # --help lists the options

We see short trajectories under constant torques ``u``, and learn ``M⁻¹(q)``, ``V(q)`` and ``g(q)`` in

``H = ½ pᵀM⁻¹(q)p + V(q),  q̇ = ∂H/∂p,  ṗ = −∂H/∂q + g(q)u``

from predictions over four frames. There are two tasks: the observations are ``(q, p)``, or ``(cos q, sin q, q̇)``, where
the momentum ``p = M(q)q̇`` is learned too. The baseline, a residual MLP of the same size, is a neural ODE under Euler
steps. The truth is gym's pendulum, a rod of mass and length 1: ``M⁻¹ = 3``, ``V = 5 (1 − cos q)``, ``g = 1``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import symplectic_jepa as sj
from examples.physics.report import Numbers, arguments, markdown, over_seeds, write
from examples.physics.systems import Pendulum

# Controls, counts and times of the authors' second task (experiment-single-embed of their repository).
CONTROLS, STARTS, FRAMES, FRAME = (-2.0, -1.0, 0.0, 1.0, 2.0), 64, 20, 0.05
HORIZON, PREDICTED, FREE = 4, 40, 200  # frames: of a training window, of the prediction error, of the energy error
TASKS = ("(q, p)", "(cos q, sin q, q̇)")
ANGLES = torch.linspace(-math.pi, math.pi, 101)[:, None]

# The authors' results, as printed in the notebooks analyze-single-force and analyze-single-embed of
# github.com/Physics-aware-AI/Symplectic-ODENet at commit 2f2ea3e; their first task starts from a wider range of states.
ERRORS = ("train error", "test error", "prediction error")
PUBLISHED = {
    TASKS[0]: {
        "Naive Baseline": (0.918, 0.884, 19.9),
        "Unstructured SymODEN": (0.113, 0.108, 9.46),
        "SymODEN": (0.0796, 0.0725, 4.31),
    },
    TASKS[1]: {
        "Naive Baseline": (5.68, 5.86, 221.0),
        "Geometric Baseline": (0.212, 0.195, 13.3),
        "Unstructured SymODEN": (1.55, 1.47, 3.68),
        "SymODEN": (0.0325, 0.0242, 0.0948),
    },
}


PENDULUM = Pendulum(gravity=5.0, inverse_mass=3.0)


def simulate(starts: Tensor, controls: Tensor, *, frames: int) -> Tensor:
    """The true states ``(frames, N, 2)`` from float64 states ``(N, 2)``, the first frame, under torques ``(N, 1)``."""
    system = sj.ControlledHamiltonian(PENDULUM, torch.ones(1, 1, dtype=starts.dtype))
    truth = sj.HamiltonianPredictor(system, dt=FRAME / 5, steps=5, integrator=sj.yoshida6)
    return torch.cat((starts[None], truth.rollout(starts, controls.expand(frames - 1, *controls.shape))))


def dataset(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """States ``(T, N, 2)`` and torques ``(N, 1)``: for training and test the same starts under every torque."""
    generator = torch.Generator().manual_seed(seed)
    angle, velocity = 2 * torch.rand(2, 3 * STARTS, generator=generator, dtype=torch.float64) - 1
    train, test, free = torch.stack((math.pi * angle, velocity / 3), -1).split(STARTS)
    torques = torch.tensor(CONTROLS, dtype=torch.float64).repeat_interleave(STARTS)[:, None]

    def observed(starts: Tensor, controls: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        return simulate(starts, controls, frames=frames).float(), controls.float()

    return {
        "train": observed(train.repeat(len(CONTROLS), 1), torques, FRAMES),
        "test": observed(test.repeat(len(CONTROLS), 1), torques, FRAMES),
        "free": observed(free, torch.zeros(STARTS, 1, dtype=torch.float64), FREE + 1),
    }


def observe(task: str, states: Tensor) -> Tensor:
    """The observations of states ``(..., 2)``: these themselves, or ``(cos q, sin q, q̇)``."""
    q, p = sj.split_state(states)
    return states if task == TASKS[0] else torch.cat((q.cos(), q.sin(), 3 * p), -1)


def energy(task: str, x: Tensor) -> Tensor:
    """The true energy ``(...)`` of observations."""
    if task == TASKS[0]:
        return 1.5 * x[..., 1].square() + 5 * (1 - x[..., 0].cos())
    return x[..., 2].square() / 6 + 5 * (1 - x[..., 0])


class Embedded(nn.Module):
    """``(cos q, sin q)``."""

    def forward(self, q: Tensor) -> Tensor:
        return torch.cat((q.cos(), q.sin()), -1)


class SymplecticODENet(nn.Module):
    """Learned mass, potential and input matrix, which read what is observed of the angle."""

    def __init__(self, task: str, *, width: int = 64) -> None:
        super().__init__()
        self.task = task

        def network(*shape: int) -> nn.Sequential:
            embedding, inputs = (nn.Identity(), 1) if task == TASKS[0] else (Embedded(), 2)
            hidden = [nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)]
            return nn.Sequential(embedding, *hidden, nn.Unflatten(-1, shape) if shape else nn.Flatten(-2))

        factor = network(1, 1)
        nn.init.ones_(factor[-2].bias)  # M⁻¹ starts near 1
        self.energy = sj.MassMatrixHamiltonian(factor, network(), floor=0.01)
        self.system = sj.ControlledHamiltonian(self.energy, network(1, 1))
        # At h = 0.05 the iteration contracts by about 0.15, so six reach the rounding of float32.
        midpoint = sj.integrators.ImplicitMidpoint(iterations=6)
        self.predictor = sj.HamiltonianPredictor(self.system, dt=FRAME, steps=1, integrator=midpoint)

    def encode(self, x: Tensor) -> Tensor:
        """Observations to states ``[q | p]``, with ``p = M(q)q̇``."""
        if self.task == TASKS[0]:
            return x
        q = torch.atan2(x[..., 1:2], x[..., 0:1])
        return torch.cat((q, torch.linalg.solve(self.energy.inverse_mass(q), x[..., 2:])), -1)

    def decode(self, z: Tensor) -> Tensor:
        """States to observations, with ``q̇ = M⁻¹(q)p``."""
        if self.task == TASKS[0]:
            return z
        q, p = sj.split_state(z)
        return torch.cat((q.cos(), q.sin(), (self.energy.inverse_mass(q) @ p.unsqueeze(-1)).squeeze(-1)), -1)


class NeuralODE(nn.Module):
    """The baseline. It knows nothing of angles; three observed numbers are padded with a zero to ``[q | p]``."""

    def __init__(self, task: str, *, width: int = 112) -> None:
        super().__init__()
        self.padding = 0 if task == TASKS[0] else 1
        dim = 1 + self.padding
        self.predictor = sj.ResidualMLPPredictor(dim, hidden_dim=width, control_dim=1, dt=FRAME / 4, steps=4)

    def encode(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, self.padding))

    def decode(self, z: Tensor) -> Tensor:
        return z[..., : z.shape[-1] - self.padding]


MODELS: dict[str, Callable[[str], nn.Module]] = {"neural ODE": NeuralODE, "Symplectic ODE-Net": SymplecticODENet}


def predict(model: nn.Module, first: Tensor, controls: Tensor, *, frames: int) -> Tensor:
    """The observations ``(frames, N, k)`` that follow the first one, ``(N, k)``, under constant torques ``(N, 1)``."""
    states = model.predictor.rollout(model.encode(first), controls.expand(frames, *controls.shape))
    return model.decode(states)


def windows(observations: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
    """All parts of `HORIZON` + 1 frames, ``(HORIZON + 1, M, k)``, of ``(T, N, k)``, and their torques ``(M, 1)``."""
    parts = observations.unfold(0, HORIZON + 1, 1).permute(3, 0, 1, 2)
    return parts.flatten(1, 2), controls.repeat(parts.shape[1], 1)


def loss(model: nn.Module, parts: Tensor, controls: Tensor) -> Tensor:
    """Squared error of the predictions from the first frame; of ``(q, p)`` that of a `TrajectoryObjective`."""
    return (predict(model, parts[0], controls, frames=HORIZON) - parts[1:]).square().mean()


def train(model: nn.Module, observations: Tensor, controls: Tensor, *, steps: int, batch: int = 256) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    parts, controls = windows(observations, controls)
    for _ in range(steps):
        chosen = torch.randint(len(controls), (batch,))
        value = loss(model, parts[:, chosen], controls[chosen])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()


def functions(model: SymplecticODENet, q: Tensor) -> dict[str, Tensor]:
    """Learned ``M⁻¹``, ``V`` and ``g`` at angles ``(N, 1)``, each ``(N,)``, in the gauge of the truth.

    ``V`` gets the mean of the true one. Without momenta, ``(M⁻¹, V, g)`` and ``(M⁻¹/α, αV, αg)`` move alike; ``α`` is
    chosen to give ``M⁻¹`` the mean of the true one.
    """
    mass = model.energy.inverse_mass(q).flatten()
    scale = 1.0 if model.task == TASKS[0] else mass.mean() / 3
    potential, force = scale * model.energy.potential(q), scale * model.system.input_matrix(q).flatten()
    return {"M⁻¹": mass / scale, "V": potential - potential.mean() + truth(q)["V"].mean(), "g": force}


def truth(q: Tensor) -> dict[str, Tensor]:
    """True ``M⁻¹``, ``V`` and ``g`` at angles ``(N, 1)``, each ``(N,)``."""
    q = q.flatten()
    return {"M⁻¹": torch.full_like(q, 3.0), "V": 5 * (1 - q.cos()), "g": torch.ones_like(q)}


def evaluate(model: nn.Module, task: str, data: dict[str, tuple[Tensor, Tensor]]) -> tuple[dict[str, float], Tensor]:
    """The errors of a model, and the energy errors ``(FREE + 1, N)`` along the free trajectories."""
    numbers = {}
    for name in ("train", "test"):
        states, controls = data[name]
        x = observe(task, states)
        numbers[f"{name} error"] = _error(predict(model, x[0], controls, frames=FRAMES - 1), x[1:])
    states, controls = data["free"]
    x = observe(task, states)
    predicted = predict(model, x[0], controls, frames=FREE)
    numbers["prediction error"] = _error(predicted[: PREDICTED - 1], x[1:PREDICTED])
    drift = (energy(task, torch.cat((x[:1], predicted))) - energy(task, x)).abs()
    for frames in (PREDICTED, FREE):
        numbers[f"energy error, {frames} frames"] = drift[:frames].mean(0).median().item()
    return numbers, drift


def _error(predicted: Tensor, x: Tensor) -> float:
    """The authors' measure: the squared error of a trajectory, summed over frames and coordinates; its mean."""
    return (predicted - x).square().sum((0, -1)).mean().item()


def run(seed: int, steps: int) -> tuple[dict[str, Numbers], dict[str, dict[str, Tensor]]]:
    """Both tasks: the numbers of the tables, and the curves of the figure."""
    data = dataset(seed)
    tables: dict[str, Numbers] = {"functions": {name: {} for name in ("M⁻¹", "V", "g")}}
    curves = {}
    for task in TASKS:
        tables[task], curves[task] = {}, {}
        for name, build in MODELS.items():
            torch.manual_seed(seed)
            model = build(task)
            train(model, observe(task, data["train"][0]), data["train"][1], steps=steps)
            with torch.no_grad():
                tables[task][name], curves[task][name] = evaluate(model, task, data)
        assert isinstance(model, SymplecticODENet)
        with torch.no_grad():
            curves[task] |= functions(model, ANGLES)
        for name, true in truth(ANGLES).items():
            tables["functions"][name][f"rms error, {task}"] = (curves[task][name] - true).square().mean().sqrt().item()
    return tables, curves


def report(runs: list[dict[str, Numbers]]) -> str:
    """All tables in Markdown, the published numbers beside ours."""
    parts = []
    for task, published in PUBLISHED.items():
        rows = over_seeds([tables[task] for tables in runs])
        blank = ["–"] * (len(rows[0]) - 1 - len(ERRORS))
        rows += [[f"{name} (published)", *(f"{x:g}" for x in errors), *blank] for name, errors in published.items()]
        parts.append(f"Observed: {task}\n\n{markdown(rows)}")
    rows = over_seeds([tables["functions"] for tables in runs])
    rows[0][0] = "learned function"
    return "\n\n".join([*parts, f"Learned functions on q in [−π, π]\n\n{markdown(rows)}"])


def draw(curves: dict[str, dict[str, Tensor]], path: Path) -> None:
    """The learned functions over the true ones, and the median energy error of free motion; one row per task."""
    figure = Figure(figsize=(13, 5.6), layout="constrained", dpi=120)
    for axes, task in zip(figure.subplots(2, 4), TASKS, strict=True):
        for axis, (name, true) in zip(axes, truth(ANGLES).items(), strict=False):
            axis.plot(ANGLES, true, color="black", linewidth=2.5, alpha=0.4, label="truth")
            axis.plot(ANGLES, curves[task][name], "--", color="#AA3377", label="Symplectic ODE-Net")
            axis.set(title=f"{name}(q)", xlabel="q")
            span = max(1.0, float(true.max() - true.min()))
            axis.set_ylim(float(true.min()) - 0.3 * span, float(true.max()) + 0.3 * span)
        axes[0].set_ylabel(f"observed: {task}")
        axes[0].legend(fontsize=8)
        for name, colour in zip(MODELS, ("#CCBB44", "#AA3377"), strict=True):
            axes[3].semilogy(FRAME * torch.arange(1, FREE + 1), curves[task][name][1:].median(1).values, color=colour)
            axes[3].set(title="energy error, free motion", xlabel="time (s)")
        axes[3].axvline(FRAME * HORIZON, color="grey", linewidth=0.8)  # the horizon of training
        axes[3].legend([*MODELS, "horizon of training"], fontsize=8)
    figure.savefig(path)


def main() -> None:
    options = arguments(__doc__, steps=500).parse_args()
    torch.set_num_threads(1)  # for networks this small, threads cost more than they bring
    runs, curves = zip(*(run(seed, options.steps) for seed in options.seed), strict=True)
    text = report(list(runs))
    print(text)
    if options.out:
        write(options.out, "symplectic_ode_net", "Symplectic ODE-Net", options, text)
        draw(curves[0], options.out / "symplectic_ode_net.png")


if __name__ == "__main__":
    main()

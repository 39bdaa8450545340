"""Hamiltonian neural networks [Greydanus et al. 2019, arXiv:1906.01563] from the library's parts.

    python -m examples.physics.hnn    # --help lists the options

We see states ``(q, p)`` of a system with their time derivatives, and learn from them

- MLP: the derivatives ``(q̇, ṗ)`` themselves, the baseline;
- HNN: an energy ``H(q, p)``, any function, whose `vector_field` ``(∂H/∂p, −∂H/∂q)`` is fitted: the paper's network;
- separable: an energy ``H(q, p) = p²/2m + V(q)``, which leapfrog can integrate.

Then each model predicts trajectories from the first states of the test trajectories, and we look at the true energy
along them. The true system stands beside them: its losses are those of the noise alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import symplectic_jepa as sj
from examples.physics.hnn_report import draw, report
from examples.physics.report import Numbers, arguments, write
from examples.physics.systems import SYSTEMS, System, trajectory

# A predicted trajectory has FRAMES * STEPS steps of DT: 20 units of time, one to six periods.
DT, STEPS, FRAMES = 0.04, 5, 100
midpoint = sj.integrators.ImplicitMidpoint(iterations=6)  # enough for float32


class MLP(sj.predictors.SteppedPredictor):
    """A network for the time derivatives. It has no structure to preserve, so Runge-Kutta (order 4) integrates it."""

    def __init__(self, dim: int, *, hidden_dim: int) -> None:
        super().__init__(dt=DT, steps=STEPS)
        hidden = nn.Linear(2 * dim, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, hidden_dim), nn.Tanh()
        self.network = nn.Sequential(*hidden, nn.Linear(hidden_dim, 2 * dim))

    def vector_field(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """``(q̇, ṗ)``, each ``(..., d)``."""
        return sj.split_state(self.network(sj.join_state(q, p)))

    def roll_out(
        self, q: Tensor, p: Tensor, *, dt: float | Tensor, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        z = sj.join_state(q, p)
        for _ in range(self.steps):
            a = self.network(z)
            b = self.network(z + dt / 2 * a)
            c = self.network(z + dt / 2 * b)
            d = self.network(z + dt * c)
            z = z + dt / 6 * (a + 2 * b + 2 * c + d)
        return sj.split_state(z)


def build(system: System) -> dict[str, sj.predictors.Predictor]:
    """The models, as maps over ``STEPS * DT``, and the truth. Two hidden layers of 200 tanh units, as in the paper."""
    size = {"hidden_dim": 200, "activation": "tanh", "base_coeff": 0.0, "residual_scale": 1.0}
    general = sj.GeneralHamiltonian(system.dim, **size)
    separable = sj.SeparableHamiltonian(system.dim, **size, learn_mass=True)
    return {
        "MLP": MLP(system.dim, hidden_dim=200),
        "HNN": sj.HamiltonianPredictor(general, integrator=midpoint, dt=DT, steps=STEPS),
        "separable": sj.HamiltonianPredictor(separable, integrator=sj.leapfrog, dt=DT, steps=STEPS),
        "truth": sj.HamiltonianPredictor(system, integrator=sj.leapfrog, dt=DT, steps=STEPS),
    }


def derivative_error(model: nn.Module, z: Tensor, derivative: Tensor) -> Tensor:
    """The loss: mean squared error of the time derivatives at states ``(N, 2d)``."""
    field = model if isinstance(model, MLP) else model.hamiltonian
    return (sj.join_state(*field.vector_field(*sj.split_state(z))) - derivative).square().mean()


def train(model: nn.Module, z: Tensor, derivative: Tensor, *, steps: int, noisy: bool) -> None:
    """The paper's training: whole batches and weight decay for few noisy data, batches of 200 for many exact ones."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4 if noisy else 0.0)
    for _ in range(steps if noisy else 5 * steps):
        chosen = slice(None) if noisy else torch.randint(len(z), (200,))
        loss = derivative_error(model, z[chosen], derivative[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def energy_error(system: System, states: Tensor) -> Tensor:
    """``H(z_t) − H(z_0)`` in the true energy: ``(T, N, 2d)`` to ``(T, N)``."""
    energy = system(*sj.split_state(states))
    return energy - energy[0]


def study(system: System, *, seed: int, steps: int) -> tuple[Numbers, dict[str, Tensor]]:
    """Train on one system: the three numbers of every model, and the trajectories ``(frames, N, 2d)`` it predicts."""
    draws = torch.Generator().manual_seed(seed)
    _, *seen = system.observe(system.train, draws)
    start, *unseen = system.observe(system.test, draws)
    seen, unseen = [x.float() for x in seen], [x.float() for x in unseen]

    torch.manual_seed(seed)
    numbers, predicted = {}, {}
    for name, model in build(system).items():
        if name != "truth":
            train(model, *seen, steps=steps, noisy=system.noise > 0)
        with torch.no_grad():
            states = torch.cat((start[None], model.rollout(start.float(), steps=FRAMES)))
            numbers[name] = {
                "train": derivative_error(model, *seen).item(),
                "test": derivative_error(model, *unseen).item(),
                "energy": energy_error(system, states).square().mean().item(),
            }
        predicted[name] = states
    predicted["truth"] = trajectory(system, start, duration=DT * STEPS * FRAMES, frames=FRAMES + 1)
    return numbers, predicted


def main() -> None:
    options = arguments(__doc__, steps=2000).parse_args()
    runs: list[dict[str, Numbers]] = []
    figures = {}
    for seed in options.seed:
        runs.append({})
        for system in SYSTEMS:
            runs[-1][system.name], predicted = study(system, seed=seed, steps=options.steps)
            if seed == options.seed[0]:
                figures[system] = predicted, {name: energy_error(system, z) for name, z in predicted.items()}
    text = report(runs)
    print(text)
    if options.out:
        write(options.out, "hnn", "Hamiltonian neural networks", options, text)
        draw(figures, options.out / "hnn.png", frame=DT * STEPS)


if __name__ == "__main__":
    main()

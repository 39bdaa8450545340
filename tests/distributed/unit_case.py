"""FSDP2 units inside a model: ``python unit_case.py STORE 2 RANK OUT``, see test_fsdp.py."""

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import symplectic_jepa as sj
from tests.distributed.ddp_cases import SHARDS, on_this_rank, penalties

D = 6


def hamiltonian():
    return sj.SeparableHamiltonian(D, hidden_dim=8, learn_mass=True, residual_scale=0.5)


def user():
    net = nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, 1, bias=False), nn.Flatten(-2))
    return sj.HamiltonianPredictor(sj.PotentialHamiltonian(net))


def matching(predictor, **settings):
    return sj.HamJEPAObjective(predictor, p_weight=0.2, penalties=penalties(), **settings)


OBJECTIVES = {
    "separable": lambda: matching(sj.HamiltonianPredictor(hamiltonian())),
    "energies": lambda: matching(sj.HamiltonianPredictor(hamiltonian()), energy_weight=0.3),
    "reversible": lambda: matching(sj.HamiltonianPredictor(hamiltonian(), gradient="reversible")),
    "damped": lambda: matching(sj.HamiltonianPredictor(sj.DampedHamiltonian(hamiltonian(), 0.1, learn=True))),
    "user": lambda: matching(user()),
    "implicit": lambda: matching(
        sj.HamiltonianPredictor(sj.GeneralHamiltonian(D, hidden_dim=8), integrator=sj.implicit_midpoint)
    ),
    "MLP": lambda: matching(sj.ResidualMLPPredictor(D, hidden_dim=8)),
    "symplectic net": lambda: matching(sj.SymplecticNetPredictor(D, hidden_dim=8)),
    "trajectory": lambda: sj.TrajectoryObjective(sj.HamiltonianPredictor(hamiltonian()), horizon=1, match="qp"),
}
UNITS = {"predictor": ["predictor"], "Hamiltonian": ["predictor.hamiltonian"], "objective": [""]}
UNITS["both"] = [*UNITS["Hamiltonian"], *UNITS["predictor"]]
# Objective, unit and the first of its parameters.
REFUSED = {
    "layer": ("separable", "hamiltonian.hidden.1", "hamiltonian.hidden.1.weight"),
    "user's layer": ("user", "hamiltonian.potential_fn.0", "hamiltonian.potential_fn.0.weight"),
    "user's potential": ("user", "hamiltonian.potential_fn", "hamiltonian.potential_fn.0.weight"),
    "MLP's layer": ("MLP", "residual.2", "residual.2.weight"),
}


class Model(nn.Module):
    """States, with or without an encoder in front, and an objective."""

    def __init__(self, name, *, encoder):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(2 * D, 2 * D) if encoder else nn.Identity()
        self.objective = OBJECTIVES[name]()
        self.double()

    def forward(self, x):
        return self.objective(self.encoder(x)).loss


def data():
    return torch.randn(2, 24, 2 * D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def run(model, x):
    """Loss and gradients of the second step, so that weights gathered and freed once are gathered again."""
    for _ in range(2):
        model.zero_grad()
        loss = model(x)
        loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    return {"loss": loss.detach()} | {k: g.full_tensor() if hasattr(g, "full_tensor") else g for k, g in grads.items()}


def outside(model, unit, x):
    """Calls of the predictor past ``forward`` and past the objective."""
    predictor, (q, p) = model.objective.predictor, sj.split_state(x)
    values = {"rollout": predictor.rollout(x, steps=2), "flow": torch.cat(predictor.flow(q, p), -1)}
    if unit != "predictor":  # otherwise the Hamiltonian's weights are gathered inside the predictor only
        energy = predictor.hamiltonian
        values |= {"energy": predictor.energy(q, p), "forward": energy(q, p), "slope": energy.gradient(q, p)[0]}
    return values


def cases():
    for name, make in OBJECTIVES.items():
        for unit, parts in UNITS.items():
            if hasattr(make().predictor, "hamiltonian") or unit not in ("Hamiltonian", "both"):
                yield name, unit, parts, True
                if name in ("separable", "user"):  # nothing around the unit, and states without a gradient
                    yield name, unit, parts, False


def refused(action):
    try:
        action()
    except TypeError as error:
        return str(error)
    return "not refused"


def main(rank, world):
    mesh = init_device_mesh("cpu", (world,))
    x = data().split(SHARDS[world], dim=1)[rank]
    results = {}
    for name, unit, parts, root in cases():
        model = Model(name, encoder=root)
        for part in parts:
            fully_shard(model.objective.get_submodule(part), mesh=mesh)
        if root:
            fully_shard(model, mesh=mesh)
        try:
            results[name, unit, root] = run(model, x)
        except TypeError as error:
            results[name, unit, root] = str(error)
            continue
        if unit != "objective":
            results["outside", name, unit, root] = {k: v.detach() for k, v in outside(model, unit, data()[0]).items()}
    for label, (name, part, _) in REFUSED.items():
        for root in (False, True):
            model = Model(name, encoder=root)
            fully_shard(model.objective.predictor.get_submodule(part), mesh=mesh)
            if root:
                fully_shard(model, mesh=mesh)
            results["refused", label, root] = refused(lambda model=model: run(model, x))
    energy = hamiltonian()  # without a predictor
    fully_shard(energy.hidden[1], mesh=mesh)
    results["refused", "layer alone"] = refused(lambda: energy.force(torch.randn(3, D)))
    return results


if __name__ == "__main__":
    on_this_rank(main)

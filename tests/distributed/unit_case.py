"""FSDP2 units inside the predictor: ``python unit_case.py STORE 1 RANK OUT``, see test_distributed.py."""

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

import symplectic_jepa as sj
from tests.distributed.ddp_cases import on_this_rank


def separable():
    return sj.HamiltonianPredictor(sj.SeparableHamiltonian(4, hidden_dim=6, learn_mass=True))


def user():
    potential = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1, bias=False), nn.Flatten(-2))
    return sj.HamiltonianPredictor(sj.PotentialHamiltonian(potential))


def residual():
    return sj.ResidualMLPPredictor(4, hidden_dim=6)


# The unit, and the first of its parameters.
UNITS = {
    "layer": (separable, "hamiltonian.hidden.1", "hamiltonian.hidden.1.weight"),
    "hamiltonian": (separable, "hamiltonian", "hamiltonian.raw_mass"),
    "predictor": (separable, "", "hamiltonian.raw_mass"),
    "user's layer": (user, "hamiltonian.potential_fn.0", "hamiltonian.potential_fn.0.weight"),
    "user's potential": (user, "hamiltonian.potential_fn", "hamiltonian.potential_fn.0.weight"),
    "MLP's layer": (residual, "residual.2", "residual.2.weight"),
    "MLP": (residual, "", "residual.0.weight"),
}


def build(make):
    torch.manual_seed(0)
    return sj.HamJEPAObjective(make())


def run(objective):
    loss = objective(torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(1))).loss
    loss.backward()
    grads = {name: x.grad for name, x in objective.named_parameters()}
    return {"loss": loss.detach()} | {k: g.full_tensor() if hasattr(g, "full_tensor") else g for k, g in grads.items()}


def refused(action):
    try:
        action()
    except TypeError as error:
        return str(error)
    return "not refused"


def main(rank, world):
    mesh = init_device_mesh("cpu", (world,))
    results = {}
    for name, (make, unit, _) in UNITS.items():
        for whole in (False, True):
            objective = build(make)
            fully_shard(objective.predictor.get_submodule(unit), mesh=mesh)
            if whole:
                fully_shard(objective, mesh=mesh)
            results[name, whole] = refused(lambda objective=objective: run(objective))
    hamiltonian = sj.SeparableHamiltonian(4, hidden_dim=6)  # without a predictor
    fully_shard(hamiltonian.hidden[1], mesh=mesh)
    results["layer", None] = refused(lambda: hamiltonian.force(torch.randn(3, 4)))
    for make in (separable, user, residual):
        root, registered = build(make), build(make)
        fully_shard(root, mesh=mesh)
        results[make.__name__, "root"] = run(root)
        if make is not user:  # FSDP2 frees a unit's weights after the first of two backward passes
            fully_shard(registered.predictor, mesh=mesh)
            register_fsdp_forward_method(registered.predictor, "flow")
            results[make.__name__, "registered"] = run(registered)
    return results


if __name__ == "__main__":
    on_this_rank(main)

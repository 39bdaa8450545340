"""Two processes that share the weights, compared with one process that has them all."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import symplectic_jepa as sj

BF16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def build():
    """Encoder and objective in one module, equal on every rank."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 32))
    energy = sj.SeparableHamiltonian(16, residual_scale=1.0)
    return nn.Sequential(encoder, sj.hamjepa_cifar100(sj.HamiltonianPredictor(energy)))


def shard(model, mesh, policy):
    """Make units of the encoder, the predictor and the rest; only the encoder in bfloat16, if at all."""
    encoder, objective = model
    fully_shard(encoder, mesh=mesh, mp_policy=policy)
    fully_shard(objective.predictor, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def loss_and_gradient(model, views):
    """One backward pass; the gradient whole."""
    loss, _ = model(views)
    loss.backward()
    grads = [p.grad for p in model.parameters()]
    whole = [g.full_tensor() if hasattr(g, "full_tensor") else g for g in grads]
    return loss.detach(), torch.cat([g.flatten() for g in whole])


def main():
    """Every rank compares, rank 0 prints."""
    torch.manual_seed(1)
    views = torch.randn(2, 24, 48)
    dist.init_process_group("gloo")
    rank, mesh = dist.get_rank(), init_device_mesh("cpu", (2,))
    mine = views.split([7, 17], dim=1)[rank]
    exact = shard(build().double(), mesh, MixedPrecisionPolicy())
    found = {
        "float64": loss_and_gradient(exact, mine.double()),
        "bfloat16 encoder": loss_and_gradient(shard(build(), mesh, BF16), mine),
    }
    dist.destroy_process_group()  # from here on, each process is on its own

    wanted = loss_and_gradient(build().double(), views.double())
    lines = [f"{'relative difference':20} loss  gradient"]
    for name, values in found.items():
        off = [((a - b).norm() / b.norm()).item() for a, b in zip(values, wanted, strict=True)]
        lines.append(f"{name:18} {off[0]:6.0e} {off[1]:9.0e}")
        assert max(off) < (1e-12 if name == "float64" else 0.1), "the objective depends on the sharding"
    if rank == 0:
        print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Two ranks with unequal shards, compared with a single process."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import symplectic_jepa as sj

SHARDS = [7, 17]  # images on each rank


class Local(nn.Module):
    """A floor under the variances, from this rank's samples."""

    def share(self, sums):
        """Do nothing."""

    def forward(self, states):
        """Map states (V, B, D) to a loss and no terms."""
        z = states.flatten(0, 1)
        sums = torch.stack([torch.ones_like(z), z, z.square()]).sum(1)
        self.share(sums)
        count, first, second = sums
        variance = second / count - (first / count).square()
        return (1 - variance).relu().mean(), {}


class InPlace(Local):
    """The same floor, from sums over all ranks that autograd does not see."""

    def share(self, sums):
        """Overwrite them with their sum over the ranks."""
        if dist.is_initialized():
            dist.all_reduce(sums)


def hamjepa():
    """The paper's objective; its predictor has weights too."""
    energy = sj.SeparableHamiltonian(16, residual_scale=1.0)
    return sj.hamjepa_cifar100(sj.HamiltonianPredictor(energy))


LOSSES = {
    "local statistics": Local,
    "summed in place": InPlace,
    "HamJEPAObjective": hamjepa,
}


def build(make_loss):
    """Encoder and loss in one module, equal on every rank."""
    torch.manual_seed(0)
    encoder = nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 32)
    return nn.Sequential(*encoder, make_loss()).double()


def loss_and_gradient(model, views):
    """One backward pass."""
    loss, _ = model(views)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    return loss.detach(), gradient


def main():
    """Every rank compares, rank 0 prints."""
    torch.manual_seed(1)
    views = torch.randn(2, sum(SHARDS), 48, dtype=torch.float64)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    mine = views.split(SHARDS, dim=1)[rank]
    found = {}
    for name, make_loss in LOSSES.items():
        model = DistributedDataParallel(build(make_loss))
        found[name] = loss_and_gradient(model, mine)
    dist.destroy_process_group()  # from here on, each process is on its own

    lines = [f"{'relative difference':20} loss  gradient"]
    for name, make_loss in LOSSES.items():
        wanted = loss_and_gradient(build(make_loss), views)
        pairs = zip(found[name], wanted, strict=True)
        off = [((a - b).norm() / b.norm()).item() for a, b in pairs]
        lines.append(f"{name:18} {off[0]:6.0e} {off[1]:9.0e}")
    assert max(off) < 1e-12, "the objective depends on the ranks"
    if rank == 0:
        print("\n".join(lines))


if __name__ == "__main__":
    main()

"""HamJEPA on several processes in one file, with a check that its statistics are those of the global batch.

    torchrun --nproc-per-node 2 examples/data_parallel.py

It runs on GPUs (nccl) or on a CPU (gloo). Each process takes a share of every batch, `DistributedDataParallel` averages
the gradients, and the objective sums its statistics over the processes: energies, variances, covariances. So loss and
gradient equal those of one process with the whole batch. The first step checks this.
"""

import argparse
import math
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import symplectic_jepa as sj

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--batch", type=int, default=128, help="images per step, of all processes together")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

gpu = torch.cuda.is_available()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
dist.init_process_group("nccl" if gpu else "gloo")
rank, ranks = dist.get_rank(), dist.get_world_size()
show = print if rank == 0 else lambda *words: None
torch.manual_seed(args.seed)  # the same on every rank: all of them draw the same data and weights


def stripes(count, size=32):
    """Images (count, 3, size, size) and labels (count,): the orientation of the stripes, in steps of 22.5 degrees."""
    labels = torch.arange(count) % 8
    angle = (labels * math.pi / 8)[:, None, None]
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    frequency, phase = 8 + 8 * torch.rand(count, 1, 1), 2 * math.pi * torch.rand(count, 1, 1)
    wave = torch.sin(frequency * (x * angle.cos() + y * angle.sin()) + phase)
    colour, background = torch.randn(2, count, 3, 1, 1)
    images = background + colour * wave[:, None] + 0.5 * torch.randn(count, 3, size, size)
    return images.to(device), labels.to(device)


def augment(images):
    """Crop each image at random, change the contrast and brightness of its channels, add noise."""
    n = len(images)
    scale = 0.6 + 0.4 * torch.rand(n, 1, 1)  # side of the crop relative to the image's
    centre = (1 - scale) * (2 * torch.rand(n, 2, 1) - 1)
    window = torch.cat((scale * torch.eye(2), centre), dim=2).to(device)
    grid = nn.functional.affine_grid(window, list(images.shape), align_corners=False)
    images = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = torch.randn(2, n, 3, 1, 1, device=device)
    return (1 + 0.5 * contrast) * images + 0.5 * brightness + 0.2 * torch.randn_like(images)


class Model(nn.Module):
    """Views to loss and terms: encoder and objective in one module, so that DDP sees the parameters of both."""

    def __init__(self, sync=True):
        super().__init__()
        layers = []
        for inputs, outputs, stride in ((3, 32, 2), (32, 64, 2), (64, 128, 2), (128, 128, 1)):
            convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
            layers += [convolution, nn.GroupNorm(8, outputs), nn.ReLU()]
        backbone = nn.Sequential(*layers)
        self.encoder = sj.PhaseSpaceTokenEncoder(backbone, in_channels=128, token_channels=64, grid=2).eval()
        predictor = sj.HamiltonianPredictor(sj.SeparableHamiltonian(128))
        self.objective = sj.hamjepa_cifar100(predictor, seed=args.seed, sync=sync)

    def forward(self, views):  # (2, B, 3, H, W)
        return self.objective(self.encoder(views.flatten(0, 1)).unflatten(0, (2, -1)))


def backward(model, views):
    """Loss, terms, and the gradient as one vector."""
    model.zero_grad()
    loss, terms = model(views)
    loss.backward()
    return loss.detach(), terms, torch.cat([p.grad.flatten() for p in model.parameters()])


(train_images, train_labels), (test_images, test_labels) = stripes(2048), stripes(1024)
model, alone = (Model(sync=sync).to(device) for sync in (True, False))  # `alone` asks no other process
alone.load_state_dict(model.state_dict())
# BatchNorm has its own statistics, and they are local, so the backbone has GroupNorm. The encoder's, after the
# token projection, is synchronized on GPUs, which PyTorch cannot do on a CPU. For the check it is in eval mode.
data_parallel = DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(model) if gpu else model)

views = augment(train_images[: args.batch].repeat(2, 1, 1, 1)).unflatten(0, (2, -1))
loss, _, gradient = backward(data_parallel, views[:, rank::ranks])
loss_alone, _, gradient_alone = backward(alone, views)
off = (loss / loss_alone - 1).abs(), (gradient - gradient_alone).norm() / gradient_alone.norm()
show(f"first step            {'loss':>10} {'|gradient|':>10}")
show(f"{ranks:2} processes          {loss:10.6f} {gradient.norm():10.6f}")
show(f" 1 process            {loss_alone:10.6f} {gradient_alone.norm():10.6f}")
show(f"relative difference   {off[0]:10.0e} {off[1]:10.0e}\n")

model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=5e-4)
names = ["prediction", *model.objective.penalties]
show("epoch       loss", *(f"{name:>10}" for name in names))
for epoch in range(args.epochs):
    for index in torch.randperm(len(train_images)).split(args.batch):
        views = augment(train_images[index].repeat(2, 1, 1, 1)).unflatten(0, (2, -1))  # the same on every rank
        loss, terms, _ = backward(data_parallel, views[:, rank::ranks])
        optimizer.step()
    show(f"{epoch:5}", *(f"{x:10.4f}" for x in (loss, *(terms[name] for name in names))))

if rank == 0:
    print(f"\n{'features':20} {'kNN@20':>7} {'linear':>7}")
    model.encoder.eval()
    for name, readout in {"raw pixels": nn.Flatten(), "untrained encoder": alone.encoder, "qp": model.encoder}.items():
        with torch.no_grad():
            data = readout(train_images), train_labels, readout(test_images), test_labels
        knn, probe = sj.evaluation.knn_sweep(*data, ks=[20])[20], sj.evaluation.linear_probe(*data)
        print(f"{name:20} {knn.top1:7.1f} {probe.top1:7.1f}")
dist.destroy_process_group()

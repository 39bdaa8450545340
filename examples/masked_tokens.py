"""Masked-token prediction in one file: I-JEPA's task, its predictor a Hamiltonian flow driven by the target's position.

    python examples/masked_tokens.py
    python examples/masked_tokens.py --floors 0    # predicts better, from states that know less

An image is a grid of 4 x 4 tiles, all with stripes of one orientation, the class. Phase, frequency, colours and noise
are drawn anew for every tile: only the orientation can be predicted. From the mean state of the visible tiles the flow
predicts the states of the hidden ones, given by a slow copy of the encoder. Its control input is their position.
"""

import argparse
import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import symplectic_jepa as sj

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--floors", type=float, default=1.0, help="factor of the floors that prevent collapse")
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)  # for a network this small, threads on a busy machine cost more than they bring
device = "cuda" if torch.cuda.is_available() else "cpu"

TILES, VISIBLE, TILE, WIDTH = 16, 6, 8, 64  # tiles of an image, how many are visible, pixels per side of one; 2d


def tiled_stripes(count):
    """Tiles (count, TILES, 3, TILE, TILE) and labels (count,): the orientation, in steps of 22.5 degrees."""
    labels = torch.arange(count) % 8
    angle = (labels * math.pi / 8)[:, None, None, None]
    y, x = torch.meshgrid(torch.linspace(-1, 1, TILE), torch.linspace(-1, 1, TILE), indexing="ij")
    frequency, phase = torch.rand(2, count, TILES, 1, 1)
    wave = torch.sin((4 + 2 * frequency) * (x * angle.cos() + y * angle.sin()) + 2 * math.pi * phase)
    colour, background = torch.randn(2, count, TILES, 3, 1, 1)
    tiles = background + colour * wave[:, :, None] + 0.2 * torch.randn(count, TILES, 3, TILE, TILE)
    return tiles.to(device), labels.to(device)


class TokenEncoder(nn.Module):
    """A small ViT: the tiles of images (B, TILES, 3, TILE, TILE) at positions (B, N) to states [q | p], (B, N, 2d)."""

    def __init__(self):
        super().__init__()
        convolutions = nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.embed = nn.Sequential(*convolutions, nn.GELU(), nn.Flatten(), nn.Linear(64 * (TILE // 4) ** 2, WIDTH))
        self.position = nn.Parameter(0.02 * torch.randn(TILES, WIDTH))
        self.block = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tiles, positions):
        tiles = tiles.take_along_dim(positions[..., None, None, None], 1)
        tokens = self.embed(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])
        return self.norm(self.block(tokens + self.position[positions]))


def encode(tiles):
    """Mean state of all tiles, by the slow encoder: (B, 2d)."""
    with torch.no_grad():
        return torch.cat([target_encoder(x, everywhere).mean(1) for x in tiles.split(512)])


def evaluate(name, train_features, test_features):
    """Add a row to the final table: the accuracy of kNN with k = 20 and of a linear probe, in percent."""
    data = train_features, train_labels, test_features, test_labels
    knn, probe = sj.evaluation.knn_sweep(*data, ks=[20])[20], sj.evaluation.linear_probe(*data)
    table.append(f"{name:20} {knn.top1:7.1f} {probe.top1:7.1f}")


(train_tiles, train_labels), (test_tiles, test_labels) = tiled_stripes(2048), tiled_stripes(1024)
everywhere = torch.arange(TILES, device=device)[None]

encoder = TokenEncoder().to(device)
target_encoder = AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(0.97))
input_matrix = nn.Parameter(torch.randn(WIDTH // 2, TILES) / 8)  # B: a force on the d momenta for each position
system = sj.ControlledHamiltonian(sj.SeparableHamiltonian(WIDTH // 2, residual_scale=1.0), input_matrix)
predictor = sj.HamiltonianPredictor(system, dt=0.2, steps=4).to(device)
floors = sj.Floors(energy=1.0, std=0.5, log_det=-1.5, participation=0.3, top_share=0.2, proj_dim=32)
penalties = nn.ModuleDict(sj.hamjepa_penalties(q=floors, p=floors, seed=args.seed)).to(device)

table = [f"{'features':20} {'kNN@20':>7} {'linear':>7}"]
evaluate("raw pixels", train_tiles.flatten(1), test_tiles.flatten(1))
evaluate("untrained encoder", encode(train_tiles), encode(test_tiles))

optimizer = torch.optim.AdamW([*encoder.parameters(), *predictor.parameters()], lr=1e-3, weight_decay=1e-2)
print("epoch       loss prediction     floors     |dL/dB|  participation ratio")
for epoch in range(args.epochs):
    log = []
    for index in torch.randperm(len(train_tiles), device=device).split(args.batch):
        tiles = train_tiles[index]
        order = torch.rand(tiles.shape[:2], device=device).argsort(1)  # of the tiles, its own for each image
        visible, hidden = order[:, :VISIBLE], order[:, VISIBLE:]
        context = encoder(tiles, visible).mean(1)  # (B, 2d)
        with torch.no_grad():
            target = target_encoder(tiles, everywhere).take_along_dim(hidden[..., None], 1)
        control = nn.functional.one_hot(hidden, TILES).to(context)  # u: (B, N, TILES)
        predicted = predictor(context[:, None].expand_as(target), control=control)
        prediction = (predicted - target).square().mean()
        floor = sum(penalty.weight * penalty(context[None]) for penalty in penalties.values())
        loss = prediction + args.floors * floor
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        target_encoder.update_parameters(encoder)
        log.append(torch.stack([loss, prediction, floor, input_matrix.grad.norm()]).detach())
    rank = sj.evaluation.spectrum(encode(test_tiles)).participation_ratio
    print(f"{epoch:5}", *(f"{mean:10.4f}" for mean in torch.stack(log).mean(0)), f"{rank:10.1f}", flush=True)

train_states, test_states = encode(train_tiles), encode(test_tiles)
for name, a, b in zip("qp", sj.split_state(train_states), sj.split_state(test_states), strict=True):
    evaluate(name, a, b)
evaluate("qp", train_states, test_states)
print("", *table, sep="\n")

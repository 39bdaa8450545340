"""HamJEPA in your own training loop: data, augmentation, model, loss, training, evaluation and checkpoint in one file.

    python examples/own_loop.py    # --help lists the options

The images show stripes in eight orientations, the classes. Phase, frequency, colours and noise are random, so images
of one class have few pixels in common. To train on your own data, replace `stripes` and `augment`.
"""

import argparse
import math

import torch
from torch import nn

import symplectic_jepa as sj

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--method", choices=("hamjepa", "mlp_hjepa"), default="hamjepa")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--batch", type=int, default=128, help="images per step, each in two views")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", help="folder to save the trained encoder in")
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)  # for a network this small, threads on a busy machine cost more than they bring
device = "cuda" if torch.cuda.is_available() else "cpu"


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


def build_backbone():
    """Any module from images to a feature map (B, C, h, w) or to tokens (B, N, C) will do."""
    layers = []
    for inputs, outputs, stride in ((3, 32, 2), (32, 64, 2), (64, 128, 2), (128, 128, 1)):
        convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


@torch.no_grad()
def encode(encoder, images):
    return torch.cat([encoder.eval()(batch) for batch in images.split(512)])


def evaluate(name, train_features, test_features):
    """Add a row to the final table: the accuracy of kNN with k = 20 and of a linear probe, in percent."""
    data = train_features, train_labels, test_features, test_labels
    knn, probe = sj.evaluation.knn_sweep(*data, ks=[20])[20], sj.evaluation.linear_probe(*data)
    table.append(f"{name:20} {knn.top1:7.1f} {probe.top1:7.1f}")


(train_images, train_labels), (test_images, test_labels) = stripes(2048), stripes(1024)

# The state z = [q | p]: tokens on a 2 x 2 grid with 64 channels each, so q and p have 2 * 2 * 64 / 2 = 128 coordinates.
encoder = sj.PhaseSpaceTokenEncoder(build_backbone(), in_channels=128, token_channels=64, grid=2).to(device)
flow = sj.HamiltonianPredictor(sj.SeparableHamiltonian(128))
predictor = flow if args.method == "hamjepa" else sj.ResidualMLPPredictor(128)
objective = sj.hamjepa_cifar100(predictor, seed=args.seed).to(device)

table = [f"{'features':20} {'kNN@20':>7} {'linear':>7}"]
evaluate("raw pixels", train_images.flatten(1), test_images.flatten(1))
evaluate("untrained encoder", encode(encoder, train_images), encode(encoder, test_images))

parameters = [*encoder.parameters(), *objective.parameters()]
steps = len(train_images) // args.batch
optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=5e-4)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=args.epochs * steps, pct_start=0.1)

names = ["loss", "prediction", *objective.penalties]
print("epoch", *(f"{name:>10}" for name in names))
for epoch in range(args.epochs):
    objective.set_residual_scale(0.02 * min(1, (epoch + 1) / 5))  # the learned part of the energy fades in
    encoder.train()
    log = []
    for index in torch.randperm(len(train_images), device=device).split(args.batch)[:steps]:
        views = augment(train_images[index].repeat(2, 1, 1, 1))  # two views of each image: (2 * B, 3, H, W)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            states = encoder(views).unflatten(0, (2, -1))  # (2, B, 2d)
        loss, terms = objective(states)  # in float32, whatever autocast says
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        log.append(torch.stack([loss.detach(), *(terms[name] for name in names[1:])]))
    print(f"{epoch:5}", *(f"{mean:10.4f}" for mean in torch.stack(log).mean(0)), flush=True)

train_states, test_states = encode(encoder, train_images), encode(encoder, test_images)
for name, a, b in zip("qp", sj.split_state(train_states), sj.split_state(test_states), strict=True):
    evaluate(name, a, b)
evaluate("qp", train_states, test_states)
print("", *table, sep="\n")

if args.out:
    encoder.save_pretrained(args.out)  # weights and settings; a backbone of your own is built again by you
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(args.out, backbone=build_backbone()).to(device)
    assert torch.equal(encode(loaded, test_images), test_states)
    print(f"\nsaved to {args.out}, and the same states after loading")

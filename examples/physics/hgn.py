"""A small Hamiltonian generative network on videos of a pendulum [Toth et al. 2020, arXiv:1909.13789].

    python -m examples.physics.hgn    # --help lists the options

The first frames of a video give a state ``[q | p]``; a learned energy ``H = ½‖p‖² + V(q)`` moves it, by leapfrog; a
decoder draws every frame from ``q`` alone, so that ``p`` can only be a momentum. The baseline has the same encoder and
decoder around a residual MLP. It is a plain autoencoder, the "deterministic" variant of the paper, because we measure
predictions and draw no samples.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import symplectic_jepa as sj
from examples.physics.report import Numbers, arguments, markdown, over_seeds, write
from examples.physics.systems import Pendulum

PIXELS, FRAME = 32, 0.1
SEEN, HORIZON, PREDICTED = 4, 12, 60  # frames: that the encoder reads, to predict in training, to predict in the test
TRAIN, TEST, LENGTH = 512, 64, 32  # videos for training and test, and frames of a training video
DIM = 1  # of q and of p; in a trial with 2, errors beyond the horizon were two to four times as large
STEPS = 600
RADIUS, WIDTH = 0.6, 0.2  # of the rod and of the bob, where the image is [−1, 1]²

# Pixel MSE · 10⁴ over 30 frames of the pendulum, training and test videos: the paper's numbers as quoted, and those of
# the replication, in table 1 of Balsells Rodas, Canal Anton and Taschin 2021, doi:10.5281/zenodo.4835278. They have
# 50,000 videos in colour, noise in the states, and hours on a GPU, so only the order of magnitude compares.
PUBLISHED = (
    ("published", "training", "test"),
    ("HGN (Leapfrog), reads the whole video", "4.9 ± 1.86", "11.72 ± 4.14"),
    ("HGN (Determ), reads the whole video", "0.79 ± 1.24", "10.68 ± 3.19"),
    ("replication, HGN (Leapfrog), reads the whole video", "14.89 ± 0.05", "14.97 ± 0.10"),
    ("replication, HGN (Leapfrog), reads 5 frames", "44.29 ± 0.19", "44.12 ± 0.42"),
)
SPANS = {f"frames 1–{HORIZON}": (0, HORIZON), f"frames {HORIZON + 1}–{PREDICTED}": (HORIZON, PREDICTED)}


def simulate(count: int, frames: int, generator: torch.Generator) -> Tensor:
    """True states ``(frames, count, 2)`` in float64, from the circles of radius 1.3 to 2.3 in the phase plane."""
    radius, turn = torch.rand(2, count, 1, generator=generator, dtype=torch.float64)
    angle = 2 * math.pi * turn
    start = (1.3 + radius) * torch.cat((angle.cos(), angle.sin()), -1)
    flow = sj.HamiltonianPredictor(Pendulum(), dt=FRAME / 10, steps=10, integrator=sj.yoshida6)
    return torch.cat((start[None], flow.rollout(start, steps=frames - 1)))


def render(q: Tensor) -> Tensor:
    """Images ``(..., PIXELS, PIXELS)`` of the bob at angles ``(..., 1)``: a Gaussian, 1 at its centre."""
    line = (torch.arange(PIXELS, dtype=q.dtype) + 0.5) * 2 / PIXELS - 1
    x, y = RADIUS * q.sin(), -RADIUS * q.cos()  # y points upwards
    columns, rows = (line - x).square(), (line.flip(0) - y).square()
    return torch.exp(-(rows.unsqueeze(-1) + columns.unsqueeze(-2)) / (2 * WIDTH**2))


def angle(frames: Tensor) -> Tensor:
    """The angle ``(...)`` of the brightest part of images, their centre of mass; the inverse of `render`."""
    line = (torch.arange(PIXELS, dtype=frames.dtype) + 0.5) * 2 / PIXELS - 1
    bright = frames.clamp(min=0).square()  # squared, so that a faint background does not pull it to the middle
    x, y = (bright.sum(-2) * line).sum(-1), (bright.sum(-1) * line.flip(0)).sum(-1)
    return torch.atan2(x, -y)


def video_energy(frames: Tensor) -> Tensor:
    """True energies ``(T − 2, B)`` of videos ``(T, B, h, w)``: the velocity is a central difference of the angle."""
    q = angle(frames)
    turned = q[2:] - q[:-2]
    velocity = torch.atan2(turned.sin(), turned.cos()) / (2 * FRAME)
    return velocity.square() / 4 + 3 * (1 - q[1:-1].cos())  # p = q̇ / 2


class VideoModel(nn.Module):
    """Encoder of `SEEN` frames, predictor and decoder of ``q``."""

    def __init__(self, predictor: sj.predictors.Predictor, *, width: int = 16) -> None:
        super().__init__()
        features = 2 * width * 4 * 4
        backbone = nn.Sequential(
            *(nn.Conv2d(SEEN, width, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(2 * width, 2 * width, 4, 2, 1), nn.ReLU(), nn.Flatten()),
        )
        self.encoder = sj.PhaseSpaceVectorEncoder(backbone, features=features, dim=DIM)
        self.predictor = predictor
        self.decoder = nn.Sequential(
            *(nn.Linear(DIM, 128), nn.ReLU()),
            *(nn.Linear(128, features), nn.ReLU(), nn.Unflatten(-1, (2 * width, 4, 4))),
            *(nn.ConvTranspose2d(2 * width, 2 * width, 4, 2, 1), nn.ReLU()),
            *(nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU()),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),
        )

    def states(self, seen: Tensor, *, frames: int) -> Tensor:
        """States ``(frames + 1, B, 2d)`` of the last frame seen and of those to come, from ``(SEEN, B, h, w)``."""
        z = self.encoder(seen.transpose(0, 1))
        return torch.cat((z[None], self.predictor.rollout(z, steps=frames)))

    def draw(self, states: Tensor) -> Tensor:
        """Images ``(..., h, w)`` of states ``(..., 2d)``."""
        q, _ = sj.split_state(states)
        return self.decoder(q.flatten(0, -2)).reshape(*states.shape[:-1], PIXELS, PIXELS)


def predictors() -> dict[str, sj.predictors.Predictor]:
    """Both maps over one frame, two steps of ``h = 0.125``, in which a harmonic latent state turns by 0.25 rad."""
    energy = sj.SeparableHamiltonian(DIM, hidden_dim=64, base_coeff=1.0, residual_scale=1.0, activation="tanh")
    return {
        "HGN": sj.HamiltonianPredictor(energy, dt=0.125, steps=2),
        "residual MLP": sj.ResidualMLPPredictor(DIM, hidden_dim=64, dt=0.125, steps=2),
    }


def train(model: VideoModel, videos: Tensor, *, steps: int, batch: int = 16) -> None:
    """Minimise the squared error of the last frame seen and of the next `HORIZON`, from random frames."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(videos.shape[1], (batch,))
        first = int(torch.randint(len(videos) - SEEN - HORIZON + 1, ()))
        clip = videos[first : first + SEEN + HORIZON, chosen]
        images = model.draw(model.states(clip[:SEEN], frames=HORIZON))
        loss = (images - clip[SEEN - 1 :]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def evaluate(truth: Tensor, predicted: Tensor) -> dict[str, float]:
    """Errors of videos ``(1 + PREDICTED, N, h, w)``, the first frame being the last one seen."""
    pixels = 1e4 * (predicted - truth).square().mean((1, 2, 3))
    energy = (video_energy(predicted) - video_energy(truth)).abs().mean(1)
    numbers = {"pixel MSE · 10⁴, frame seen": pixels[0].item()}
    numbers |= {f"pixel MSE · 10⁴, {name}": pixels[1:][slice(*span)].mean().item() for name, span in SPANS.items()}
    return numbers | {f"energy error, {name}": energy[slice(*span)].mean().item() for name, span in SPANS.items()}


def run(seed: int, steps: int) -> tuple[Numbers, dict[str, Tensor]]:
    """The numbers of the table, and the videos of the figure: the true one, "truth", and the predicted ones."""
    generator = torch.Generator().manual_seed(seed)
    videos = render(simulate(TRAIN, LENGTH, generator)[..., :1]).float()
    test = render(simulate(TEST, SEEN + PREDICTED, generator)[..., :1]).float()
    seen, truth = test[:SEEN], test[SEEN - 1 :]
    drawn = {"truth": truth, "persistence": truth[:1].expand_as(truth)}
    for name in predictors():
        torch.manual_seed(seed)
        model = VideoModel(predictors()[name])
        train(model, videos, steps=steps)
        with torch.no_grad():
            drawn[name] = model.draw(model.states(seen, frames=PREDICTED))
    return {name: evaluate(truth, video) for name, video in drawn.items() if name != "truth"}, drawn


def draw(videos: dict[str, Tensor], path: Path) -> None:
    """The first test video over the predicted ones, every fourth frame, and the energy over time in each."""
    times = FRAME * torch.arange(PREDICTED + 1)
    shown = {name: video[:, 0] for name, video in videos.items() if name != "persistence"}
    figure = Figure(figsize=(11, 6), layout="constrained", dpi=120)
    *panels, below = figure.subplots(len(shown) + 1, 1, height_ratios=[1] * len(shown) + [3])
    for axis, (name, video) in zip(panels, shown.items(), strict=True):
        axis.imshow(torch.cat(list(video[::4]), dim=1).numpy(), cmap="gray", vmin=0, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.axvline((HORIZON / 4 + 1) * PIXELS - 0.5, color="#CCBB44")  # after the last frame of the training horizon
    styles = {"truth": ("black", "-"), "HGN": ("#AA3377", "--"), "residual MLP": ("#4477AA", ":")}
    for name, video in shown.items():
        colour, line = styles[name]
        below.plot(times[1:-1], video_energy(video[:, None]), line, color=colour, label=name)
    below.axvline(FRAME * HORIZON, color="#CCBB44", label="horizon of training")
    below.set(xlabel="time since the last frame seen (s)", ylabel="energy in the video")
    below.legend(fontsize=8)
    figure.savefig(path)


def main() -> None:
    options = arguments(__doc__, steps=STEPS).parse_args()
    runs, videos = zip(*(run(seed, options.steps) for seed in options.seed), strict=True)
    text = f"{markdown(over_seeds(runs))}\n\nPixel MSE · 10⁴ over 30 frames\n\n{markdown(PUBLISHED)}"
    print(text)
    if options.out:
        write(options.out, "hgn", "Hamiltonian generative network", options, text)
        draw(videos[0], options.out / "hgn.png")


if __name__ == "__main__":
    main()

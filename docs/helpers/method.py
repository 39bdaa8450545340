"""The figures of ``method.md``, drawn from what the library and the examples compute."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import itertools
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

import symplectic_jepa as sj
from docs.helpers.drawing import BLUE, GREY, RED, svg
from examples.images.datasets import ImageData, load_data
from examples.model.build import JEPA, build_model, explicit_euler
from examples.recipe.schema import Recipe, load_recipe
from examples.system.files import load_checkpoint
from examples.system.ranks import Ranks
from examples.training.loop import make_crops, make_views, train

ALONE = Ranks(0, 1, torch.device("cpu"))
PENDULUM = sj.PotentialHamiltonian(lambda q: (1 - q.cos()).sum(-1))


def drawn(figure: Callable[[], Figure]) -> str:
    """One of the figures below as HTML; its docstring describes what it shows, and becomes the alt text."""
    return svg(figure(), " ".join((inspect.getdoc(figure) or "").split()))


@functools.cache
@torch.enable_grad()
def trained(*settings: str) -> tuple[Recipe, ImageData, JEPA]:
    """The recipe ``textures``, trained now, on half the images for two epochs."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):  # no progress bar
        cut = ("data.train_size=2560", "data.batch_size=64", "train.epochs=2", "optim.warmup_epochs=1")
        cut += (f"train.out={folder}/run",)
        recipe = load_recipe("textures", [*cut, *settings])
        data = load_data(recipe.data)
        out = train(recipe, data, ALONE)
        model = build_model(recipe, data.train_images.shape[1:])
        model.load_state_dict(load_checkpoint(out / "checkpoint.pt", ALONE.device)["model"])
    return recipe, data, model.eval()


@functools.cache
@torch.no_grad()
def two_views(*settings: str, count: int = 512) -> tuple[Tensor, Tensor, Tensor]:
    """Test images ``(B, …)``, their two augmented views and the states of these views, both ``(2, B, …)``."""
    recipe, data, model = trained(*settings)
    crops = make_crops(recipe.augment, recipe.data, recipe.local_scale, data)
    views = make_views(crops, recipe.train.seed, ALONE)(data.test_images[:count], None, 0)
    return data.test_images[:count], views, model.encoder(views.flatten(0, 1)).unflatten(0, (2, count))


def views_figure() -> Figure:
    """Six images and two views of each."""
    data = trained()[1]
    images, views, _ = two_views()
    figure, rows = plt.subplots(3, 6, figsize=(7, 3.7))
    batches = (images[:6] / 255, pixels(views[0, :6], data), pixels(views[1, :6], data))
    for row, batch, name in zip(rows, batches, ("image", "view a", "view b"), strict=True):
        for axis, image in zip(row, batch, strict=True):
            show(axis, image)
        row[0].set_ylabel(name)
    return figure


@torch.no_grad()
def states_figure() -> Figure:
    """Two views: positions and momenta as tokens by channels, positions predicted from the other, squared error."""
    _, data, model = trained()
    _, views, states = two_views()
    predictor = model.objective.predictor
    figure, rows = plt.subplots(2, 5, figsize=(7.4, 3.4))
    for row, (source, target, sign, name) in zip(rows, ((1, 0, -1, "a"), (0, 1, 1, "b")), strict=True):
        q, p = sj.split_state(states[target])
        predicted, _ = sj.split_state(predictor(states[source], direction=sign))
        show(row[0], pixels(views[target, 0], data))
        row[0].set_ylabel(f"view {name}")
        other = "b" if name == "a" else "a"
        titles = (f"q of {name}", f"p of {name}", f"q predicted from {other}", "squared error")
        for axis, x, title in zip(row[1:], (q, p, predicted, (predicted - q).square()), titles, strict=True):
            tokens = x[0].unflatten(0, (16, 16))
            squared = title == "squared error"
            axis.imshow(tokens, cmap="Greys" if squared else "RdBu", vmin=0 if squared else -2.5, vmax=2.5)
            axis.set(xticks=[], yticks=[], title=title)
            axis.grid(visible=False)
        row[1].set_ylabel("16 tokens")
    rows[1][1].set_xlabel("16 channels")
    return figure


def leapfrog_figure() -> Figure:
    """Two leapfrog steps of the pendulum in the phase plane, with an arrow for every kick and drift."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    level_sets(axis, (0.2, 3.4), (0.0, 2.0))
    h = 0.8
    start = (torch.tensor([0.8], dtype=torch.float64), torch.tensor([1.75], dtype=torch.float64))
    q, p = start
    points = [(q, p)]
    for kick, drift in ((h / 2, h), (h, h), (h / 2, 0.0)):  # adjacent half-kicks are merged
        p = p + kick * PENDULUM.force(q)
        points.append((q, p))
        if drift:
            q = q + drift * PENDULUM.velocity(p)
            points.append((q, p))
    assert torch.equal(torch.stack(points[-1]), torch.stack(sj.leapfrog(PENDULUM, *start, dt=h, steps=2)))
    labels = (  # with offsets from the middle of the arrow
        ("half-kick", (-48, -4)),
        ("drift", (-10, 6)),
        ("two half-kicks, one force", (6, -3)),
        ("drift", (-10, 6)),
        ("half-kick", (6, -3)),
    )
    for (a, b), (name, offset) in zip(itertools.pairwise(points), labels, strict=True):
        colour = RED if "kick" in name else BLUE
        ends = (a[0].item(), a[1].item()), (b[0].item(), b[1].item())
        axis.annotate("", ends[1], ends[0], arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.6})
        middle = [(x + y) / 2 for x, y in zip(*ends, strict=True)]
        axis.annotate(name, middle, offset, textcoords="offset points", color=colour, fontsize=8)
    axis.plot(*torch.stack([torch.cat(points[0]), torch.cat(points[-1])]).T, "o", color="k", markersize=5)
    axis.annotate("(q, p)", torch.cat(points[0]).tolist(), (-14, 8), textcoords="offset points")
    axis.annotate("after two steps", torch.cat(points[-1]).tolist(), (8, -6), textcoords="offset points")
    axis.set(xlabel="q", ylabel="p", aspect="equal")
    return figure


def area_figure() -> Figure:
    """A disc of pendulum states keeps its area and energy under leapfrog; both grow under explicit Euler."""
    angle = torch.linspace(0, 2 * torch.pi, 200, dtype=torch.float64)
    q0, p0 = 0.35 * angle.cos()[:, None], 1.1 + 0.35 * angle.sin()[:, None]
    figure, (left, right, energies) = plt.subplots(1, 3, figsize=(7.6, 2.9), width_ratios=(1, 1, 0.9))
    for axis, integrator, name, colour in (
        (left, sj.leapfrog, "leapfrog", RED),
        (right, explicit_euler, "explicit Euler", BLUE),
    ):
        level_sets(axis, (-2.6, 2.6), (-2.6, 2.6))
        q, p = q0, p0
        first = polygon_area(q, p)
        drift = []
        for time in range(61):
            if time % 12 == 0:
                axis.fill(q[:, 0], p[:, 0], color=colour, alpha=0.35)
            drift.append(PENDULUM(q, p).mean())
            q, p = integrator(PENDULUM, q, p, dt=0.1, steps=1)
        axis.set(title=f"{name}: area × {polygon_area(q, p) / first:.3f}", xlabel="q", aspect="equal")
        energies.plot(torch.arange(61) * 0.1, torch.stack(drift) / drift[0], color=colour, label=name)
    left.set_ylabel("p")
    energies.set(title="mean energy, relative", xlabel="time")
    energies.legend()
    return figure


def matching_figure() -> Figure:
    """Two states of the pendulum, the prediction of each for the other, and the differences that the loss squares."""
    predictor = sj.HamiltonianPredictor(PENDULUM, dt=0.4, steps=2)
    z_a, z_b = (torch.tensor([z], dtype=torch.float64) for z in ((-0.7, 1.5), (0.8, 1.2)))
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.9), sharey=True)
    ways = (
        (axes[0], z_a, z_b, 1, "Φₕ(a), forward in time, against b"),
        (axes[1], z_b, z_a, -1, "Φ₋ₕ(b), in reverse time, against a"),
    )
    for axis, source, target, direction, title in ways:
        level_sets(axis, (-1.6, 1.4), (0.5, 2.2))
        path = [source]
        for _ in range(20):  # the same flow in finer steps, for the line
            path.append(sj.HamiltonianPredictor(PENDULUM, dt=0.04, steps=1)(path[-1], direction=direction))
        axis.plot(*torch.cat(path).T, color=RED, linewidth=1.4)
        (q, p), (goal_q, goal_p) = predictor(source, direction=direction)[0].tolist(), target[0].tolist()
        axis.plot([q, goal_q], [p, p], color=BLUE, linestyle=":", linewidth=2, label="q̂ − q, weight 1")
        axis.plot([goal_q] * 2, [p, goal_p], color=GREY, linestyle=":", linewidth=2, label="p̂ − p, weight 0.2")
        axis.plot(q, p, "o", color=RED, markersize=5)
        for z, name in ((z_a, "a"), (z_b, "b")):
            axis.plot(*z.T, "o", color="k", markersize=5)
            axis.annotate(name, z[0].tolist(), (-3, -13), textcoords="offset points")
        axis.set(title=title, xlabel="q")
    axes[0].set_ylabel("p")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@torch.no_grad()
def collapse_figure() -> Figure:
    """Spectrum of q after training with and without the floors, and a table.

    Without floors, matching loss, spread and effective rank are much smaller; the symplectic defect is rounding error
    in both runs.
    """
    figure, (spectra, numbers) = plt.subplots(1, 2, figsize=(7.6, 2.9), width_ratios=(1, 1.25))
    rows = []
    for name, settings, colour in (("with floors", (), RED), ("without", ("regularizer=none",), BLUE)):
        model, states = trained(*settings)[2], two_views(*settings)[2]
        q, _ = sj.split_state(states[0])
        spectra.semilogy(sj.evaluation.spectrum(q).eigenvalues.clamp_min(1e-12), color=colour, label=name)
        loss = model.objective.prediction_loss(states[0], states[1])
        predictor = model.objective.predictor.double()
        defect = sj.evaluation.symplecticity_defect(predictor, states[0, :1].double()).max()
        predictor.float()
        rank = sj.evaluation.effective_rank(sj.evaluation.spectrum(q).eigenvalues)
        rows.append([name, f"{loss:.3f}", f"{q.std(0).mean():.3f}", f"{rank:.1f}", f"{defect:.0e}"])
    spectra.set(xlabel="index", ylabel="eigenvalue", title="spectrum of the covariance of q", ylim=(1e-6, None))
    spectra.legend()
    numbers.axis("off")
    header = ["", "matching\nloss", "std of q", "effective\nrank", "symplectic\ndefect"]
    draw_table(numbers, header, rows)
    return figure


def clouds() -> dict[str, Tensor]:
    """States ``(1024, 64)`` that are healthy, or degenerate in one way each."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 64, generator=generator)
    turn = torch.linalg.qr(torch.randn(64, 64, generator=generator)).Q
    few = (torch.arange(64) < 4).float()
    spike = torch.where(torch.arange(64) == 0, 7.0, 0.5)
    dead = torch.where(torch.arange(64) < 8, 0.02, 1.0)

    def scaled(y: Tensor) -> Tensor:  # to meet the energy budget
        return y / y.square().mean().sqrt()

    decaying = torch.linspace(0, -2, 64).exp()
    heavy = x.sign() * x.abs().pow(1.6)  # anything but Gaussian
    return {
        "isotropic\nGaussian": scaled(x),
        "neither,\nhealthy": scaled((heavy * decaying) @ turn),
        "shrunk": 0.1 * x,
        "8 dead co-\nordinates": scaled(x * dead),
        "rank 4": scaled((x * few) @ turn),
        "one spike": scaled((x * spike) @ turn),
        "off centre": scaled(x + 1),
    }


def floors_figure() -> Figure:
    """Seven clouds of states with their spectra, and the value of each penalty on each.

    At least one penalty detects each kind of collapse; on the two healthy clouds none is active.
    """
    penalties: dict[str, Callable[[Tensor], Tensor]] = {
        "energy budget": sj.EnergyBudget(1.0),
        "variance floor": sj.VarianceFloor(0.2),
        "log-det floor": sj.ProjectedLogDetFloor(-1.5),
        "participation floor": sj.ParticipationRatioFloor(0.12),
        "largest share": sj.TopEigenvalueCeiling(0.35),
        "mean penalty": sj.MeanPenalty(),
        "SIGReg": sj.SIGReg(slices=64, knots=9),
    }
    found = clouds()
    values = torch.tensor([[penalty(x).item() for x in found.values()] for penalty in penalties.values()])
    figure, axes = plt.subplots(2, 1, figsize=(7.6, 4.4), height_ratios=(1, 2.6))
    for i, x in enumerate(found.values()):
        spectrum = sj.evaluation.spectrum(x).eigenvalues.clamp_min(1e-4)
        place = i + torch.linspace(-0.4, 0.4, len(spectrum))
        axes[0].fill_between(place, 1e-4, spectrum, color=GREY, alpha=0.6, linewidth=0)
    axes[0].set(yscale="log", ylabel="eigenvalues", xticks=[], xlim=(-0.5, len(found) - 0.5))
    active = values > torch.tensor([2e-3] * 6 + [5.0])[:, None]
    axes[1].imshow(torch.where(active, 1.0, torch.nan), cmap="Reds", vmin=0, vmax=1.6, alpha=0.6, aspect="auto")
    for row, column in itertools.product(*map(range, values.shape)):
        value = values[row, column].item()
        text = "0" if value < 1e-3 else f"{value:.0f}" if value >= 100 else f"{value:.2g}"
        axes[1].text(column, row, text, ha="center", va="center", fontsize=8)
    axes[1].set_xticks(range(len(found)), found)
    axes[1].set_yticks(range(len(penalties)), penalties)
    axes[1].grid(visible=False)
    axes[1].tick_params(length=0)
    return figure


def level_sets(axis: Any, q_range: tuple[float, float], p_range: tuple[float, float]) -> None:
    """Level sets of the pendulum's energy as thin lines."""
    q, p = torch.linspace(*q_range, 120), torch.linspace(*p_range, 120)
    energy = PENDULUM(*(x[..., None] for x in torch.meshgrid(q, p, indexing="xy")))
    axis.contour(q, p, energy, levels=12, colors=GREY, linewidths=0.6, alpha=0.6)
    axis.grid(visible=False)


def polygon_area(q: Tensor, p: Tensor) -> Tensor:
    """The area of a closed polygon of states ``(N, 1)``."""
    return 0.5 * (q * p.roll(-1, 0) - p * q.roll(-1, 0)).sum().abs()


def draw_table(axis: Any, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draw text in a grid, without borders."""
    for y, row in enumerate((header, *rows)):
        for x, text in enumerate(row):
            axis.text(
                (x + (x > 0)) / (len(header) + 1),
                0.75 - 0.25 * y,
                text,
                transform=axis.transAxes,
                fontsize=8,
                va="center",
            )


def pixels(view: Tensor, data: ImageData) -> Tensor:
    """A normalised view as an image with values from 0 to 1."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (data.mean, data.std))
    return (view * std + mean).clamp(0, 1)


def show(axis: Any, image: Tensor) -> None:
    """Show an image ``(3, H, W)`` without axes."""
    axis.imshow(image.permute(1, 2, 0))
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)

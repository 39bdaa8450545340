"""The study's grid: its cells, by scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from examples.recipe.text import Settings, assignments

SEEDS = (42, 43, 44)
UNTRAINED = "untrained"  # the cell with raw pixels and the encoder before training
METHODS = ("sigreg", "mlp_hjepa", "hamjepa")
PAIR = ("sigreg", "hamjepa")
ABLATED, POTENTIAL = "-ablations", "-potential"  # suffixes for tables of variants
VARIANTS = (ABLATED, POTENTIAL)

# Each changes one setting of the HamJEPA recipe.
ABLATIONS: dict[str, tuple[str, ...]] = {
    "symplectic-euler": ("predictor.integrator=symplectic_euler",),
    "explicit-euler": ("predictor.integrator=explicit_euler",),
    "yoshida4": ("predictor.integrator=yoshida4",),
    "steps-1": ("predictor.steps=1",),
    "steps-4": ("predictor.steps=4",),
    "steps-8": ("predictor.steps=8",),
    "match-qp": ("hamjepa.match=qp", "hamjepa.p_weight=0"),
    "one-direction": ("hamjepa.bidirectional=false",),
    "forward-time": ("hamjepa.reverse_time=false",),
    "no-budget": ("hamjepa.budget=0",),
    "no-variance": ("hamjepa.variance=0",),
    "no-log-det": ("hamjepa.q.log_det=null", "hamjepa.p.log_det=null"),
    "no-participation": ("hamjepa.q.participation=null", "hamjepa.p.participation=null"),
    "no-top-share": ("hamjepa.q.top_share=null", "hamjepa.p.top_share=null"),
    "no-mean": ("hamjepa.mean=0",),
    "base-0": ("predictor.base_coeff=0",),
    "sigreg": ("regularizer=sigreg",),
    "vicreg": ("regularizer=vicreg",),
    "barlow-twins": ("regularizer=barlow_twins",),
    "kerjepa": ("regularizer=kerjepa",),
    "coding-rate": ("regularizer=coding_rate",),
    "no-regularizer": ("regularizer=none",),
}


def potentials(lr: float) -> dict[str, tuple[str, ...]]:
    """Does the learned potential matter? Variants of HamJEPA without it, and others in which it learns faster.

    ``lr`` is the recipe's learning rate.
    """
    unscaled = ("predictor.residual_scale=1", "predictor.residual_warmup_epochs=0")
    return {
        "identity": ("predictor.dt=1e-6",),  # plain matching of the two views
        "residual-0": ("predictor.residual_scale=0",),
        "quadratic": ("predictor.hamiltonian=quadratic",),
        "base-0": ABLATIONS["base-0"],
        "scale-1": unscaled,
        "lr-x10": (f"predictor.lr={10 * lr:g}",),
        "lr-x100": (f"predictor.lr={100 * lr:g}",),
        "scale-1-lr-x10": (*unscaled, f"predictor.lr={10 * lr:g}"),
        "eps-1e-12": ("optim.eps=1e-12",),
    }


def base_table(table: str) -> str:
    """The table with the recipe that a table of variants changes; any other table is its own."""
    for suffix in VARIANTS:
        table = table.removesuffix(suffix)
    return table


@dataclass(frozen=True)
class Cell:
    """One run: a row of ``table`` with one seed."""

    table: str
    name: str
    seed: int
    recipe: str
    overrides: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its folder, relative to the study's."""
        return f"{self.table}/{self.name}-s{self.seed}"

    def settings(self, out: str) -> Settings:
        """Settings that belong to this cell, for a run in ``out``."""
        fixed = {"train.seed": str(self.seed), "train.out": out, "train.resume": "true"}
        return assignments(self.overrides) | fixed


def _methods(
    table: str, names: Sequence[str], recipe: str, overrides: Sequence[str], seeds: Sequence[int]
) -> list[Cell]:
    cells = [Cell(table, UNTRAINED, seed, recipe, tuple(overrides)) for seed in seeds]
    return cells + [Cell(table, name, seed, recipe, (*overrides, f"method={name}")) for seed in seeds for name in names]


def _variants(
    table: str, variants: Mapping[str, Sequence[str]], recipe: str, overrides: Sequence[str], seeds: Sequence[int]
) -> list[Cell]:
    """Variants of HamJEPA in ``table``, to be compared with its cells of the same seeds."""
    cells = []
    for seed in seeds:
        for name, switch in variants.items():
            changed = {pair.partition("=")[0] for pair in switch}
            kept = [pair for pair in overrides if pair.partition("=")[0] not in changed]
            cells.append(Cell(table, name, seed, recipe, (*kept, *switch)))
    return cells


def _full() -> list[Cell]:
    """The paper's own tables, and the ablations at 30 epochs."""
    short, long = (("evaluation.every=3", "train.epochs=30"), ("evaluation.every=5", "train.epochs=80"))
    return [
        *_methods("cifar100-30", PAIR, "cifar100", short, SEEDS),
        *_methods("cifar100-80", METHODS, "cifar100", long, SEEDS[:1]),
        *_methods("imagenet100-45", PAIR, "imagenet100", ("evaluation.every=5", "train.epochs=45"), SEEDS[:1]),
        *_variants("cifar100-30" + ABLATED, ABLATIONS, "cifar100", short, SEEDS[:1]),
        *_variants("cifar100-30" + POTENTIAL, potentials(5e-4), "cifar100", short, SEEDS),
    ]


def _gpu_short() -> list[Cell]:
    """The 30-epoch CIFAR-100 table with the same recipe; each step is compiled and replayed as one CUDA graph."""
    graph = ("train.compile=true", "train.cuda_graph=true")
    fast = ("train.epochs=30", "evaluation.every=10", "train.log_every=50", *graph)
    return _methods("cifar100-30", PAIR, "cifar100", fast, SEEDS)


def _cpu_10() -> list[Cell]:
    """The first ten classes on two cores. Warm-ups still take a third of the schedule."""
    small = (
        "data.classes=10", "data.batch_size=128", "train.epochs=20", "optim.warmup_epochs=7",
        "predictor.residual_warmup_epochs=7", "evaluation.every=2",
    )  # fmt: skip
    return [
        *_methods("cifar100-10classes", METHODS, "cifar100", small, SEEDS),
        *_variants("cifar100-10classes" + ABLATED, ABLATIONS, "cifar100", small, SEEDS[:1]),
        *_variants("cifar100-10classes" + POTENTIAL, potentials(5e-4), "cifar100", small, SEEDS),
    ]


def _textures() -> list[Cell]:
    """Every kind of cell on the embedded data, about a minute each: a rehearsal of the study."""
    small = ("evaluation.every=1",)
    return [
        *_methods("textures", METHODS, "textures", small, SEEDS),
        *_variants("textures" + ABLATED, ABLATIONS, "textures", small, SEEDS[:1]),
        *_variants("textures" + POTENTIAL, potentials(1e-3), "textures", small, SEEDS),
    ]


SCALES: dict[str, Callable[[], list[Cell]]] = {
    "full": _full,
    "gpu-short": _gpu_short,
    "cpu-10": _cpu_10,
    "textures": _textures,
}

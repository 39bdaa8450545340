"""The schema of a recipe: every knob under one name, unknown keys rejected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from examples.recipe.checks import check

RECIPES = Path(__file__).parent


@dataclass
class Data:
    name: str = "cifar100"  # cifar100, textures or imagenet100
    root: str = "data"  # where torchvision keeps CIFAR-100; imagenet100: the folder of train and val
    classes: int | None = None  # keep the first so many classes
    train_size: int = 5000  # textures: images drawn for training
    test_size: int = 1000  # textures: images drawn for testing
    image_size: int = 256  # imagenet100: shorter side of the packed images
    crop: int = 224  # imagenet100: side of the centre crop that is evaluated
    cache: str = "data/packed"  # imagenet100: where decoded images are kept
    cache_gib: float = 64.0  # at most
    workers: int | None = None  # processes that decode; default: one per core
    corrupt_share: float = 1e-5  # of the images may be unreadable; they are left out and listed
    batch_size: int = 512  # images per step, each seen in every view; the last incomplete batch is dropped
    global_views: int = 2
    local_views: int = 0


@dataclass
class AugmentConfig:
    """One kind of view. The defaults are the paper's CIFAR recipe; ImageNet has scale 0.4 and kernel 23."""

    size: int = 32
    scale: tuple[float, float] = (0.3, 1.0)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)  # brightness, contrast, saturation, hue
    jitter_prob: float = 0.8
    grayscale_prob: float = 0.2
    blur_prob: float = 0.5
    blur_kernel: int = 3
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_prob: float = 0.2
    solarize_threshold: float = 128 / 255

    def __post_init__(self) -> None:
        self._require("size", lambda v: isinstance(v, int) and v >= 1, "an int >= 1")
        for name in ("flip", "jitter_prob", "grayscale_prob", "blur_prob", "solarize_prob", "solarize_threshold"):
            self._require(name, lambda v: 0 <= v <= 1, "between 0 and 1")
        self._require("scale", lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1, "a pair 0 < low <= high <= 1")
        self._require("blur_sigma", lambda v: len(v) == 2 and 0 < v[0] <= v[1], "a pair 0 < low <= high")
        wanted = "four strengths between 0 and 1, the last (hue) at most 0.5"
        self._require("jitter", lambda v: len(v) == 4 and 0 <= min(v) <= max(v) <= 1 and v[3] <= 0.5, wanted)
        odd = range(1, 2 * self.size, 2)  # a border reflects once
        self._require("blur_kernel", lambda v: v in odd, f"an odd int from 1 to {odd[-1]} for size {self.size}")

    def _require(self, name: str, holds: Callable[..., bool], wanted: str) -> None:
        if not holds(value := getattr(self, name)):
            raise ValueError(f"{name} must be {wanted}, got {value!r}")


@dataclass
class Encoder:
    backbone: str = "resnet18"  # resnet18 or small_cnn
    stem: str = "cifar"  # resnet18: cifar or imagenet
    mode: str = "tokens"  # tokens, or global (average pool and a linear layer; baseline only)
    token_layer: int = 3
    token_channels: int = 32
    grid: int | None = None  # pool the token grid to this side
    global_dim: int = 2048  # mode global: size of the embedding
    projector: str = "identity"  # identity, or mlp (baseline only)
    projector_hidden: int = 2048
    projector_dim: int = 512


@dataclass
class Predictor:
    hamiltonian: str = "separable"  # separable, quadratic (no parameters) or general (needs implicit_midpoint)
    integrator: str = "leapfrog"  # a name of SPLITTINGS, implicit_midpoint, or explicit_euler (ablation only)
    dt: float = 0.05
    steps: int = 2
    learn_mass: bool = False  # a learned kinetic metric; see SeparableHamiltonian for the reason against it
    learn_dt: bool = False  # refused by the objective: dt -> 0 minimises the loss
    hidden_dim: int = 256
    depth: int = 2
    activation: str = "gelu"
    base_coeff: float = 0.1
    residual_scale: float = 0.02
    residual_warmup_epochs: int = 10
    lr: float | None = None  # own learning rate; default: optim.lr


@dataclass
class Floors:
    """Targets on one half of the state; see `symplectic_jepa.Floors`."""

    energy: float | None = 1.0
    std: float | None = 0.2
    log_det: float | None = -1.5
    participation: float | None = 0.12
    top_share: float | None = 0.35
    proj_dim: int = 128
    eps: float = 1e-4
    refresh_every: int = 16


@dataclass
class HamJEPA:
    match: str = "q"
    p_weight: float = 0.2
    bidirectional: bool = True
    backward: str = "reverse"
    energy_weight: float = 0.0
    detach_target: bool = True
    budget: float = 0.2
    variance: float = 0.5
    spectrum: float = 0.5
    mean: float = 0.05
    q: Floors = field(default_factory=Floors)
    p: Floors = field(default_factory=lambda: Floors(participation=0.16, top_share=0.30))
    clip_grad: float | None = 1.0


@dataclass
class SIGReg:
    weight: float = 0.02
    slices: int = 64
    knots: int = 9
    t_max: float = 3.0
    views: str = "separate"  # separate or stacked
    convention: str = "sum"  # sum: L + weight * R; convex: (1 - weight) * L + weight * R
    clip_grad: float | None = None


@dataclass
class Optim:
    lr: float = 5e-4
    weight_decay: float = 5e-4
    warmup_epochs: int = 10
    warmup_factor: float = 0.01  # of lr, at the first step
    final_factor: float = 0.001  # of lr, at the last step
    regularizer_warmup_epochs: int = 0  # ramp of all penalties' weights


@dataclass
class Train:
    epochs: int = 30
    precision: str = "bf16"  # bf16 autocast of the encoder, or fp32
    compile: bool = False  # the model's forward and backward through torch.compile, as one graph
    cuda_graph: bool = False  # forward, backward and optimizer recorded once and replayed; one GPU
    device: str = "auto"  # auto, cpu, cuda, …
    seed: int = 42
    log_every: int = 10  # steps
    checkpoint_every: int = 1  # epochs; the last one is always kept
    out: str = "runs/${data.name}-${method}-s${train.seed}"
    resume: bool = False


@dataclass
class Evaluation:
    ks: list[int] = field(default_factory=lambda: [1, 5, 10, 20, 50, 100, 200])
    probe_epochs: int = 50
    every: int | None = None  # epochs between evaluations during the training; default: none


@dataclass
class Recipe:
    method: str = "hamjepa"  # hamjepa, mlp_hjepa (the residual-MLP ablation) or sigreg
    regularizer: str = "default"  # the method's own, or another of examples/model/penalties.py in its place
    regularizer_weight: float | None = None  # of another one; default: as in examples/model/penalties.py
    data: Data = field(default_factory=Data)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    local_scale: tuple[float, float] = (0.05, 0.3)  # crop scale of local views
    encoder: Encoder = field(default_factory=Encoder)
    predictor: Predictor = field(default_factory=Predictor)
    hamjepa: HamJEPA = field(default_factory=HamJEPA)
    sigreg: SIGReg = field(default_factory=SIGReg)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)


def load_recipe(name: str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by name (``cifar100``) or path and apply overrides (``train.epochs=80``).

    Raises:
        SystemExit: naming the file, or the key that is unknown or has a wrong type, and what is known.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise SystemExit(f"recipe {name!r} not found at {path}; known recipes: {known}")
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(Recipe), OmegaConf.load(path), OmegaConf.from_dotlist(overrides or [])
        )
        recipe = cast(Recipe, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        message, key = str(error).splitlines()[0], error.full_key
        raise SystemExit(f"recipe {path.name}: {f'{key}: ' if key else ''}{message}") from error
    except ValueError as error:  # AugmentConfig's own, the only part that checks itself
        raise SystemExit(f"recipe {path.name}: augment.{error}") from error
    check(recipe)
    return recipe


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML, for the run's folder and its checkpoints."""
    return OmegaConf.to_yaml(OmegaConf.structured(recipe), resolve=True)

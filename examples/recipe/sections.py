"""The sections of a recipe: every setting with its default, its bounds and its meaning, in one line.

pydantic, because there a bound stands beside its default, and every error has the key, the value and what was expected.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from symplectic_jepa.integrators import SPLITTINGS

CLASSES = {"cifar100": 100, "textures": 8}  # of imagenet100 as many as there are folders
HEADLINE_K = 20  # neighbours of the kNN accuracy in the tables

Family = Literal[
    "sigreg", "vicreg", "barlow_twins", "coding_rate", "kerjepa", "kerjepa_sliced", "ham_sigreg", "ham_sigreg_radial"
]
Regularizer = Literal["default", "none", Family]  # the method's own, none, or another system's in its place
FAMILY: tuple[str, ...] = get_args(Family)


def _true_or_false(value: Any) -> bool:
    if value not in ("true", "false") and not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value in ("true", True)


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("must be a pair low <= high")
    return value


Switch = Annotated[bool, BeforeValidator(_true_or_false)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Part = Annotated[float, Field(gt=0, le=1)]
Scale = Annotated[tuple[Part, Part], AfterValidator(_rising)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class Data(Section):
    name: Literal["cifar100", "textures", "imagenet100"] = "cifar100"
    root: Text = "data"  # where torchvision keeps CIFAR-100; imagenet100: the folder of train and val
    classes: Annotated[int, Field(ge=2)] | None = None  # keep the first N classes
    train_size: Annotated[int, Field(ge=HEADLINE_K)] = 5000  # textures: images drawn for training
    test_size: Count = 1000  # textures: images drawn for testing
    image_size: Count = 256  # imagenet100: shorter side of the packed images
    crop: Count = 224  # imagenet100: side of the centre crop that is evaluated
    cache: Text = "data/packed"  # imagenet100: where decoded images are kept
    cache_gib: Weight = 64.0  # at most
    workers: Whole | None = None  # processes that decode; default: one per core
    corrupt_share: Share = 1e-5  # of the images may be unreadable; they are left out and listed
    batch_size: Count = 512  # images per step, each seen in every view; the last incomplete batch is dropped
    global_views: Count = 2
    local_views: Whole = 0

    @field_validator("classes")
    @classmethod
    def _as_many_as_there_are(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value > (most := CLASSES.get(info.data.get("name", ""), value)):
            raise ValueError(f"must be between 2 and {most} for {info.data['name']}")
        return value

    @field_validator("crop")
    @classmethod
    def _within_the_image(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("name") == "imagenet100" and value > info.data.get("image_size", value):
            raise ValueError(f"must be at most data.image_size, {info.data['image_size']}")
        return value


class AugmentConfig(Section):
    """One kind of view. The defaults are the paper's CIFAR recipe; ImageNet has scale 0.4 and kernel 23."""

    size: Count = 32
    scale: Scale = (0.3, 1.0)
    flip: Share = 0.5
    jitter: tuple[Share, Share, Share, Annotated[float, Field(ge=0, le=0.5)]] = (0.4, 0.4, 0.2, 0.1)
    jitter_prob: Share = 0.8  # of brightness, contrast, saturation and hue, whose strengths these are
    grayscale_prob: Share = 0.2
    blur_prob: Share = 0.5
    blur_kernel: Count = 3
    blur_sigma: Annotated[tuple[Positive, Positive], AfterValidator(_rising)] = (0.1, 2.0)
    solarize_prob: Share = 0.2
    solarize_threshold: Share = 128 / 255

    @field_validator("blur_kernel")
    @classmethod
    def _reflects_once(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("size", value)
        if value % 2 == 0 or value > 2 * size - 1:
            raise ValueError(f"must be an odd number from 1 to {2 * size - 1} for size {size}")
        return value


class Encoder(Section):
    backbone: Literal["resnet18", "small_cnn"] = "resnet18"
    stem: Literal["cifar", "imagenet"] = "cifar"  # of resnet18
    mode: Literal["tokens", "global"] = "tokens"  # global: average pool and a linear layer; baseline only
    token_layer: Annotated[int, Field(ge=2, le=4)] = 3  # of resnet18
    token_channels: Annotated[int, Field(ge=2, multiple_of=2)] = 32
    grid: Count | None = None  # pool the token grid to this side
    global_dim: Count = 2048  # mode global: size of the embedding
    projector: Literal["identity", "mlp"] = "identity"  # mlp: baseline only
    projector_hidden: Count = 2048
    projector_dim: Count = 512


class Predictor(Section):
    hamiltonian: Literal["separable", "quadratic", "general"] = "separable"  # quadratic has no parameters
    integrator: Literal[(*SPLITTINGS, "implicit_midpoint", "explicit_euler")] = "leapfrog"  # the last: ablation only
    dt: Positive = 0.05
    steps: Count = 2
    learn_mass: Switch = False  # a learned kinetic metric; see SeparableHamiltonian for the reason against it
    learn_dt: Switch = False  # always refused: dt -> 0 minimises the loss
    hidden_dim: Count = 256
    depth: Count = 2
    activation: Literal["gelu", "silu", "tanh", "softplus"] = "gelu"
    base_coeff: float = 0.1
    residual_scale: float = 0.02
    residual_warmup_epochs: Whole = 10
    lr: Weight | None = None  # own learning rate; default: optim.lr

    @field_validator("integrator", "learn_mass")
    @classmethod
    def _fits_the_hamiltonian(cls, value: Any, info: ValidationInfo) -> Any:
        hamiltonian = info.data.get("hamiltonian")
        if info.field_name == "learn_mass" and value and hamiltonian != "separable":
            raise ValueError(f"must be false with hamiltonian={hamiltonian}: the mass is separable's")
        if info.field_name == "integrator" and hamiltonian == "general" and value != "implicit_midpoint":
            raise ValueError("must be implicit_midpoint with hamiltonian=general, which does not split")
        return value

    @field_validator("learn_dt")
    @classmethod
    def _never(cls, value: bool) -> bool:
        if value:
            raise ValueError("must be false: dt -> 0 minimises the matching loss")
        return value


class Floors(Section):
    """Targets of the penalties on positions; null leaves one out."""

    energy: Positive | None = 1.0
    std: Positive | None = 0.2
    log_det: float | None = -1.5
    participation: Share | None = 0.12
    top_share: Share | None = 0.35
    proj_dim: Count = 128
    eps: Positive = 1e-4
    refresh_every: Count = 16


class MomentumFloors(Floors):
    participation: Share | None = 0.16
    top_share: Share | None = 0.30


class HamJEPA(Section):  # also of mlp_hjepa
    match: Literal["q", "qp"] = "q"
    p_weight: Weight = 0.2
    bidirectional: Switch = True
    reverse_time: Switch = True  # of the backward direction; false: forward time in both
    energy_weight: Weight = 0.0
    detach_target: Switch = True
    budget: Weight = 0.2
    variance: Weight = 0.5
    spectrum: Weight = 0.5
    mean: Weight = 0.05
    q: Floors = Floors()
    p: MomentumFloors = MomentumFloors()
    clip_grad: Positive | None = 1.0
    clip: Literal["all", "encoder"] = "all"  # encoder: the predictor's gradient is not clipped

    @field_validator("p_weight")
    @classmethod
    def _once(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("match") == "qp":
            raise ValueError("must be 0 with hamjepa.match=qp, which matches p already")
        return value


class SIGReg(Section):
    weight: Weight = 0.02
    slices: Count = 64
    knots: Annotated[int, Field(ge=2)] = 9
    t_max: Positive = 3.0
    views: Literal["separate", "stacked"] = "separate"
    convention: Literal["sum", "convex"] = "sum"  # L + weight * R, or (1 - weight) * L + weight * R
    clip_grad: Positive | None = None


class Optim(Section):
    lr: Weight = 5e-4
    weight_decay: Weight = 5e-4
    warmup_epochs: Whole = 10
    warmup_factor: Weight = 0.01  # of lr, at the first step
    final_factor: Weight = 0.001  # of lr, at the last step
    regularizer_warmup_epochs: Whole = 0  # ramp of all penalties' weights


class Train(Section):
    epochs: Count = 30
    precision: Literal["bf16", "fp32"] = "bf16"  # bf16: autocast of the encoder
    compile: Switch = False  # the model's forward and backward through torch.compile, as one graph
    cuda_graph: Switch = False  # forward, backward and optimizer recorded once and replayed; one GPU
    device: Text = "auto"  # auto, cpu, cuda, …
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    log_every: Count = 10  # steps
    checkpoint_every: Count = 1  # epochs; the last one is always kept
    out: Text | None = None  # default: runs/NAME-METHOD-sSEED
    resume: Switch = False

    @field_validator("device")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            torch.device("cpu" if value == "auto" else value)
        except RuntimeError as error:
            raise ValueError("must be auto or a device of PyTorch") from error
        return value


class Evaluation(Section):
    ks: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 5, 10, 20, 50, 100, 200)
    probe_epochs: Count = 50
    every: Count | None = None  # epochs between evaluations during the training; default: none

    @field_validator("ks")
    @classmethod
    def _with_the_headline(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if HEADLINE_K not in value:
            raise ValueError(f"must contain {HEADLINE_K}, the tables' number of neighbours")
        return value

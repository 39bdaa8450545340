"""The sections of a recipe. Each setting is one line: its default, its bounds and its meaning.

We use pydantic because it keeps a bound next to its default, and its errors name key, value and expectation.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from symplectic_jepa.encoders import Stem
from symplectic_jepa.hamiltonians.mlp import Activation
from symplectic_jepa.integrators import SPLITTINGS
from symplectic_jepa.objectives.hamjepa import Match
from symplectic_jepa.objectives.lejepa import Convention
from symplectic_jepa.objectives.penalty import Views

CLASSES = {"cifar100": 100, "textures": 8}  # the others have as many as their files
PACKED = "root image_size crop cache cache_gib workers corrupt_share square"
STREAMED = "root image_size crop workers square train_size test_size epoch_size shuffle"
READS = {  # keys of `Data` that not every data set reads; one of your own may read them all
    "cifar100": "root",
    "textures": "train_size test_size",
    "imagenet100": PACKED,
    "folder": PACKED,
    "webdataset": STREAMED,
    "huggingface": f"{STREAMED} stream",
}
SOME = tuple(dict.fromkeys(" ".join(READS.values()).split()))
HEADLINE_K = 20  # neighbours for the kNN accuracy in the tables

Regularizer = Literal[  # default: the method's own; the others replace it
    "default", "none", "sigreg", "vicreg", "barlow_twins", "coding_rate", "kerjepa", "kerjepa_sliced", "ham_sigreg",
    "ham_sigreg_radial",
]  # fmt: skip


def _true_or_false(value: Any) -> bool:
    if value not in ("true", "false") and not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value in ("true", True)


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("must be a pair low <= high")
    return value


def _data_set(value: str) -> str:
    if value not in READS and not re.fullmatch(r"[\w.]+:\w+", value):
        raise ValueError(f"must be {', '.join(READS)} or an import path such as my_package.my_module:MyImages")
    return value


def _backbone(value: str) -> str:
    if value not in ("resnet18", "small_cnn") and not re.fullmatch(r"timm:[\w.-]+", value):
        raise ValueError("must be resnet18, small_cnn or a model of timm such as timm:vit_small_patch16_224")
    return value


def _path(value: str) -> str:
    if "\0" in value or max(len(os.fsencode(part)) for part in value.split("/")) > 255:
        raise ValueError("must be a path")
    return os.path.expanduser(value)


# Upper bounds are far above what is useful. They refuse a slip of the keyboard before it fills the memory.
Switch = Annotated[bool, BeforeValidator(_true_or_false)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Whole = Annotated[int, Field(ge=0, le=10**9)]
Few = Annotated[int, Field(ge=1, le=1000)]
Fewer = Annotated[int, Field(ge=0, le=1000)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Width = Annotated[int, Field(ge=1, le=2**17)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
File = Annotated[Text, AfterValidator(_path)]  # ~ is expanded
Part = Annotated[float, Field(gt=0, le=1)]
Scale = Annotated[tuple[Part, Part], AfterValidator(_rising)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class Data(Section):
    name: Annotated[str, AfterValidator(_data_set)] = "cifar100"  # or an import path, see examples/images/contract.py
    root: File = "data"  # cifar100: torchvision's folder; folder: any tree of images; imagenet100: with train and val
    classes: Annotated[int, Field(ge=2)] | None = None  # keep the first N classes
    validation: Share = 0.0  # share of the training images to evaluate on, instead of the test images
    train_size: Annotated[int, Field(ge=HEADLINE_K, le=10**7)] = (
        5000  # textures: images drawn; streams: first ones, for the kNN bank
    )
    test_size: Annotated[int, Field(ge=2, le=10**7)] = 1000  # the same of the test images
    image_size: Pixels = 256  # folders: shorter side of the packed images
    crop: Pixels = 224  # all but cifar100 and textures: side of the centre crop used for evaluation
    cache: File = "data/packed"  # folders: where to put the decoded images
    cache_gib: Weight = 64.0  # folders: most disk space that they may use
    workers: Fewer | None = None  # decoding processes; default: one per core
    corrupt_share: Share = 1e-5  # folders: most unreadable images, as a share; they are skipped and listed
    square: Switch = False  # keep the centre square alone, so that batches contain no padding
    stream: Switch = False  # huggingface: read in order, shard by shard, instead of by index; webdataset always does
    epoch_size: Count | None = None  # streams: images per epoch
    shuffle: Count = 2000  # streams: samples in memory, of which a random one comes next
    batch_size: Count = 512  # images per step, before views; the last incomplete batch is dropped
    global_views: Few = 2
    local_views: Fewer = 0

    @property
    def streamed(self) -> bool:
        """Whether training images are read in order."""
        return self.name == "webdataset" or (self.name == "huggingface" and self.stream)

    @field_validator("classes")
    @classmethod
    def _available(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value > (most := CLASSES.get(info.data.get("name", ""), value)):
            raise ValueError(f"must be between 2 and {most} for {info.data['name']}")
        return value

    @field_validator("crop")
    @classmethod
    def _fits_the_image(cls, value: int, info: ValidationInfo) -> int:
        if "image_size" in READS.get(info.data.get("name", ""), "") and value > info.data.get("image_size", value):
            raise ValueError(f"must be at most data.image_size, {info.data['image_size']}")
        return value


class AugmentConfig(Section):
    """One kind of view. The defaults are the paper's CIFAR recipe."""

    size: Pixels = 32
    scale: Scale = (0.3, 1.0)
    flip: Share = 0.5
    jitter: tuple[Share, Share, Share, Annotated[float, Field(ge=0, le=0.5)]] = (0.4, 0.4, 0.2, 0.1)  # strengths
    jitter_prob: Share = 0.8  # probability; the strengths are for brightness, contrast, saturation and hue
    grayscale_prob: Share = 0.2
    blur_prob: Share = 0.5
    blur_kernel: Pixels = 3
    blur_sigma: Annotated[tuple[Positive, Positive], AfterValidator(_rising)] = (0.1, 2.0)
    solarize_prob: Share = 0.2
    solarize_threshold: Share = 128 / 255

    @field_validator("blur_kernel")
    @classmethod
    def _fits_the_size(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("size", value)
        if value % 2 == 0 or value > 2 * size - 1:
            raise ValueError(f"must be an odd number from 1 to {2 * size - 1} for size {size}")
        return value


class Encoder(Section):
    backbone: Annotated[str, AfterValidator(_backbone)] = "resnet18"  # resnet18, small_cnn or timm:NAME
    stem: Stem = "cifar"  # for resnet18
    mode: Literal["tokens", "global"] = "tokens"  # global: average pooling and a linear layer; sigreg only
    token_layer: Annotated[int, Field(ge=2, le=4)] = 3  # for resnet18
    token_channels: Annotated[int, Field(ge=2, le=2**16, multiple_of=2)] = 32
    grid: Few | None = None  # pool the token grid to this side length
    global_dim: Width = 2048  # size of the embedding with mode=global
    projector: Literal["identity", "mlp"] = "identity"  # mlp: sigreg only
    projector_hidden: Width = 2048
    projector_dim: Width = 512


class Predictor(Section):
    hamiltonian: Literal["separable", "quadratic", "general"] = "separable"  # quadratic has no parameters
    integrator: Literal[(*SPLITTINGS, "implicit_midpoint", "explicit_euler")] = "leapfrog"  # explicit_euler: ablation
    dt: Positive = 0.05
    steps: Few = 2
    learn_mass: Switch = False  # learned kinetic metric; SeparableHamiltonian explains why it is off
    learn_dt: Switch = False  # true is always refused: dt -> 0 minimises the loss
    hidden_dim: Width = 256
    depth: Few = 2
    activation: Activation = "gelu"
    base_coeff: float = 0.1
    residual_scale: float = 0.02
    residual_warmup_epochs: Whole = 10
    lr: Weight | None = None  # separate learning rate; default: optim.lr


class Floors(Section):
    """Targets of the penalties on positions; null disables one."""

    energy: Positive | None = 1.0
    std: Positive | None = 0.2
    log_det: float | None = -1.5
    participation: Share | None = 0.12
    top_share: Share | None = 0.35
    proj_dim: Width = 128
    eps: Positive = 1e-4
    refresh_every: Count = 16
    bias_correction: Switch = False  # compare estimates of the distribution, which do not depend on the batch size


class MomentumFloors(Floors):
    participation: Share | None = 0.16
    top_share: Share | None = 0.30


class HamJEPA(Section):  # also used by mlp_hjepa
    match: Match = "q"
    p_weight: Weight = 0.2
    bidirectional: Switch = True
    reverse_time: Switch = True  # reverse time in the backward direction; false: forward time in both
    energy_weight: Weight = 0.0
    detach_target: Switch = True
    budget: Weight = 0.2
    variance: Weight = 0.5
    spectrum: Weight = 0.5
    mean: Weight = 0.05
    q: Floors = Floors()
    p: MomentumFloors = MomentumFloors()
    clip_grad: Positive | None = 1.0
    clip: Literal["all", "encoder"] = "all"  # encoder: do not clip the predictor's gradient


class SIGReg(Section):
    weight: Weight = 0.02
    slices: Width = 64
    knots: Annotated[int, Field(ge=2, le=10**4)] = 9
    t_max: Positive = 3.0
    views: Views = "separate"
    convention: Convention = "sum"  # L + weight * R, or (1 - weight) * L + weight * R
    clip_grad: Positive | None = None


class Optim(Section):
    lr: Positive = 5e-4
    weight_decay: Weight = 5e-4
    eps: Positive = 1e-8  # added to the root of AdamW's second moment
    warmup_epochs: Whole = 10
    warmup_factor: Weight = 0.01  # first step's learning rate / lr
    final_factor: Weight = 0.001  # last step's learning rate / lr
    regularizer_warmup_epochs: Whole = 0  # linear ramp of every penalty weight


class Train(Section):
    epochs: Count = 30
    parallel: Literal["ddp", "fsdp"] = "ddp"  # fsdp: the ranks share the weights and write sharded checkpoints
    precision: Literal["bf16", "fp32"] = "bf16"  # bf16: the encoder runs under autocast
    compile: Switch = False  # compile the model with torch.compile, as one graph
    cuda_graph: Switch = False  # record the whole step once and replay it; one GPU
    device: Text = "auto"  # auto, cpu, cuda, …
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    log_every: Count = 10  # steps
    checkpoint_every: Count = 1  # epochs; the last epoch is always saved
    checkpoint_steps: Count | None = None  # steps between further checkpoints; default: none
    timeout: Annotated[float, Field(gt=0, le=10**7)] = 600.0  # seconds that a collective of several ranks may take
    out: File | None = None  # default: runs/NAME-METHOD-sSEED
    resume: Switch = False


class Evaluation(Section):
    ks: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 5, 10, 20, 50, 100, 200)
    probe_epochs: Count = 50
    every: Count | None = None  # epochs between evaluations during training; default: none

    @field_validator("ks")
    @classmethod
    def _includes_the_headline(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if HEADLINE_K not in value:
            raise ValueError(f"must contain {HEADLINE_K}, which the tables report")
        return value

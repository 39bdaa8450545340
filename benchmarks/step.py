"""The whole training step on CIFAR images: that of the examples, and the textbook's."""

from __future__ import annotations

import functools
import statistics

import numpy as np
import torch
from torch import Tensor, nn

import symplectic_jepa as sj
from benchmarks import textbook
from benchmarks.measure import Function
from benchmarks.workloads import Target, Work
from examples.images.augment import Augment
from examples.model.build import build_model, build_optimizer
from examples.recipe.schema import Recipe, load_recipe
from examples.training.loop import train_step
from examples.training.step_clock import StepClock

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def recipe_of(pairs: int, *overrides: str) -> Recipe:
    return load_recipe("cifar100", [f"data.batch_size={pairs}", *overrides])


def random_images(count: int) -> Tensor:
    """Random uint8 ``(N, 3, 32, 32)``: no run time depends on the content of the pixels."""
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class OurStep:
    """Augmentation and training step of the examples, on resident uint8 images."""

    def __init__(self, recipe: Recipe, images: Tensor, *, compiled: bool = False) -> None:
        torch.manual_seed(0)
        self.images, self.device = images, images.device
        self.model = build_model(recipe, images.shape[1:]).to(images.device)
        self.optimizer = build_optimizer(self.model, recipe.optim, recipe.predictor.lr)
        self.augment = Augment(recipe.augment, MEAN, STD)
        self.generator = torch.Generator(images.device).manual_seed(0)
        self.clock = StepClock(images.device)
        if not compiled:
            self.clock.attach(self.model)
        model = torch.compile(self.model, fullgraph=True) if compiled else self.model
        self.train = functools.partial(train_step, model, self.optimizer, clip=recipe.hamjepa.clip_grad)

    def views(self) -> Tensor:
        return torch.stack([self.augment(self.images, self.generator) for _ in range(2)])

    def __call__(self) -> Tensor:
        views = self.views()
        self.clock.mark("data")
        return self.train(views, clock=self.clock)[0]

    def split(self, repeats: int) -> dict[str, float]:
        """Median seconds of each part of the step."""
        parts: list[dict[str, float]] = []
        for _ in range(repeats):
            self.clock.start()
            self()
            parts.append(self.clock.stop())
        return {name: statistics.median(part[name] for part in parts) for name in parts[0]}


class TextbookStep:
    """The textbook version: PIL images, float32, contiguous tensors, everything computed, nothing fused."""

    def __init__(self, recipe: Recipe, images: Tensor) -> None:
        torch.manual_seed(0)
        self.images = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
        self.device = images.device
        self.encoder = textbook.Encoder().to(images.device)
        self.hamiltonian = textbook.Hamiltonian(sj.SeparableHamiltonian(1024)).to(images.device)
        parameters = [*self.encoder.parameters(), *self.hamiltonian.parameters()]
        o = recipe.optim
        self.optimizer = torch.optim.AdamW(parameters, lr=o.lr, weight_decay=o.weight_decay, foreach=False)
        self.augment = textbook.Augment(recipe.augment, MEAN, STD)
        k = min(128, 1024, 2 * len(images) - 1)
        self.projections = {
            half: torch.linalg.qr(torch.randn(1024, k, device=images.device)).Q.contiguous() for half in ("q", "p")
        }
        self.clip = recipe.hamjepa.clip_grad

    def __call__(self) -> Tensor:
        views = torch.cat([self.augment(self.images) for _ in range(2)]).to(self.device)
        states = self.encoder(views).unflatten(0, (2, len(self.images)))
        loss = textbook.objective(self.hamiltonian, states, self.projections)
        self.optimizer.zero_grad()
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.clip, foreach=False)
        self.optimizer.step()
        return loss.detach()


CONVOLUTIONS = "convolutions"  # the floor: the encoder's convolutions alone, forward and backward


def convolutions(step: OurStep) -> Function:
    """The encoder's convolutions of one step, in its precision and memory layout, and nothing else."""
    shapes: list[tuple[nn.Conv2d, torch.Size]] = []
    hooks = [
        module.register_forward_hook(lambda m, inputs, _: shapes.append((m, inputs[0].shape)))
        for module in step.model.encoder.modules()
        if isinstance(module, nn.Conv2d)
    ]
    step()
    for hook in hooks:
        hook.remove()
    layers = []
    for i, (module, shape) in enumerate(shapes):
        x = torch.randn(shape, device=step.device, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        w = module.weight.detach().bfloat16().requires_grad_()
        layers.append((x.requires_grad_(i > 0), w, {"stride": module.stride, "padding": module.padding}))

    def run() -> None:
        for x, w, how in layers:
            y = torch.nn.functional.conv2d(x, w, **how)
            torch.autograd.grad(y, [x, w] if x.requires_grad else [w], y)

    return run


def training_step(device: torch.device, *, smoke: bool = False) -> Work:
    """64 pairs of CIFAR images through the paper's encoder, including augmentation."""
    pairs = 4 if smoke else 64
    images = random_images(pairs).to(device)
    recipe = recipe_of(pairs)
    ours = OurStep(recipe, images)
    seconds = ours.split(1 if smoke else 5)
    return Work(
        f"whole training step, ResNet-18, CIFAR, {pairs} pairs, bf16, augmentation included",
        {
            "textbook": TextbookStep(recipe, images),
            "eager": ours,
            "float32": OurStep(recipe_of(pairs, "train.precision=fp32"), images),
            CONVOLUTIONS: convolutions(ours),
        },
        [Target("textbook", "eager", 4.0, floor=CONVOLUTIONS)],
        {f"{name}, ms of the eager step": 1000 * span for name, span in seconds.items()},
    )

"""The training loop for every method: one process or several ranks; eager, compiled or as a CUDA graph."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from examples.images.augment import Augment
from examples.images.datasets import ImageData, fingerprint
from examples.images.packed import batches
from examples.measurement.features import check_data, progress
from examples.measurement.learned_force import predictor_weights
from examples.model.build import JEPA, build_model, build_optimizer
from examples.recipe.schema import Recipe
from examples.recipe.sections import AugmentConfig, Data, Train
from examples.system.lock import locked
from examples.training.cuda_graph import CapturedStep
from examples.training.nan_guard import FiniteGuard
from examples.training.ranks import Ranks
from examples.training.run_folder import Log, open_run, save_run
from examples.training.schedules import Schedules
from examples.training.step_clock import StepClock
from examples.training.stop import Stop


def train(recipe: Recipe, data: ImageData, mine: Ranks) -> Path:
    """Train to the last epoch, from the last checkpoint if ``train.resume``; return the run's folder.

    All randomness is a function of the seed and the step, so a resumed run equals an uninterrupted one bit for bit on
    the same machine. With several ranks, each takes its share of every batch.

    Raises:
        SystemExit: if another process works in the folder, or a file of the run is unusable.
        StoppedError: after SIGTERM, SIGUSR1 or SIGINT, once the step is finished and saved.
        NotFiniteError: if a value of the training is not finite.
    """
    check_data(recipe, data, mine.size)
    with locked(recipe.out) if mine.main else nullcontext():
        return _train(recipe, data, mine)


def _train(recipe: Recipe, data: ImageData, mine: Ranks) -> Path:
    images_hash = fingerprint(recipe.data, data)
    data = data.to(mine.device)
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe, data.train_images.shape[1:]).to(mine.device)
    initial = predictor_weights(model)
    optimizer = build_optimizer(model, recipe.optim, recipe.predictor.lr)
    size = recipe.data.batch_size
    steps_per_epoch = len(data.train_images) // size
    schedules = Schedules(recipe.optim, recipe.predictor, epochs=recipe.train.epochs, steps_per_epoch=steps_per_epoch)
    out, step, spent = open_run(recipe, model, optimizer, mine, data=images_hash, total=schedules.total)
    began = time.perf_counter() - spent
    views = make_views(make_crops(recipe.augment, recipe.data, recipe.local_scale, data), recipe.train.seed, mine)
    clock = StepClock(mine.device)
    run_step = make_step(model, optimizer, mine, clock=clock, settings=recipe.train, **clipping(recipe))
    guard = FiniteGuard(mine.device)
    every = recipe.evaluation.every

    def track() -> None:
        """Evaluate, after the checkpoint so that no failure here loses it. A resumed run does it again."""
        if every and schedules.due(step, every):
            log.write_curves(step, step // steps_per_epoch, progress(model, data, initial, mine))

    with Log(out, mine, total=schedules.total, step=step) as log, Stop(mine) as stop:
        track()
        while step < schedules.total:
            whole = epoch_batches(data.train_labels, size, seed=recipe.train.seed, step=step)
            shares = [batch.tensor_split(mine.size)[mine.rank] for batch in whole]
            reader = batches(data.train_images, shares)
            for _ in shares:
                logged = step % recipe.train.log_every == 0 or step + 1 == schedules.total
                if logged:
                    clock.start()
                schedules.apply(step, optimizer, model.objective)
                images = views(*next(reader), step)
                clock.mark("data")
                loss, terms, norm = run_step(images)
                guard.watch(step, {**terms, "loss": loss, "gradient norm": norm})
                if logged:
                    guard.check()
                    record = {"loss": loss, **terms, "grad_norm": norm, "lr": optimizer.param_groups[0]["lr"]}
                    log.write(step, step / steps_per_epoch, record, seconds=clock.stop(), images=size)
                step += 1
                log.bar.update()
                if stopped := stop.asked(together=logged):
                    break
            guard.check()
            if mine.main and (stopped or schedules.due(step, recipe.train.checkpoint_every)):
                log.sync()
                spent = time.perf_counter() - began
                save_run(out, recipe, model, optimizer, data=images_hash, step=step, seconds=spent)
            if stopped:
                raise stop.end(step, schedules.total, resumes=recipe.train.resume)
            track()
    return out


Step = tuple[Tensor, dict[str, Tensor], Tensor]  # loss, terms, gradient norm


def clipping(recipe: Recipe) -> dict[str, Any]:
    """The method's gradient clipping, as arguments of `train_step`."""
    if recipe.method == "sigreg":
        return {"clip": recipe.sigreg.clip_grad}
    return {"clip": recipe.hamjepa.clip_grad, "clip_all": recipe.hamjepa.clip == "all"}


def make_step(
    model: JEPA, optimizer: torch.optim.Optimizer, mine: Ranks, *, clock: StepClock, settings: Train, **clipping: Any
) -> Callable[[Tensor], Step]:
    """``step(images)``, eager, compiled, recorded as a CUDA graph, or both."""
    step_model = parallel(model, mine)
    if settings.compile:
        step_model = torch.compile(step_model, fullgraph=mine.size == 1)  # DDP breaks the graph at its buckets
    elif not settings.cuda_graph:
        clock.attach(model)
    step = functools.partial(train_step, step_model, optimizer, **clipping)
    if not settings.cuda_graph:
        return functools.partial(step, clock=clock)
    if mine.size > 1:
        raise SystemExit(f"train.cuda_graph must be false with several processes, got true with {mine.size}")
    recorded: list[CapturedStep[Step]] = []

    def graphed(images: Tensor) -> Step:
        if not recorded:
            recorded.append(CapturedStep(step, images, model, optimizer))
        output = recorded[0](images)
        clock.mark("step")
        return output

    return graphed


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    *,
    clip: float | None,
    clip_all: bool = True,
    clock: StepClock | None = None,
) -> Step:
    """One step on views ``(V, B, 3, H, W)``, without waiting for the device. The norm covers all gradients.

    ``clip_all=False`` clips only the optimizer's first group, the encoder's.
    """
    loss, terms = model(images)
    optimizer.zero_grad(set_to_none=True)
    if clock:
        clock.mark(clock.passes[0])
    loss.backward()
    if clock:
        clock.mark(clock.passes[1])
    clipped, *others = [group["params"] for group in optimizer.param_groups]
    free = [p for group in others for p in group]
    if clip_all:
        clipped, free = clipped + free, []
    norm = nn.utils.clip_grad_norm_(clipped, float("inf") if clip is None else clip)
    if free:
        norm = norm.hypot(nn.utils.clip_grad_norm_(free, float("inf")))
    optimizer.step()
    if clock:
        clock.mark("optimizer")
    return loss.detach(), terms, norm


def parallel(model: JEPA, mine: Ranks) -> nn.Module:
    """The model, wrapped to average gradients over the ranks if there are several.

    The objective already uses statistics of the global batch. BatchNorm does so on GPUs only: PyTorch's synchronised
    BatchNorm does not run on CPUs, where each rank normalises with its own share.
    """
    if mine.size == 1:
        return model
    if mine.device.type == "cuda":
        model.encoder = nn.SyncBatchNorm.convert_sync_batchnorm(model.encoder)
        model.projector = nn.SyncBatchNorm.convert_sync_batchnorm(model.projector)
    return DistributedDataParallel(model)


def epoch_batches(labels: Tensor, size: int, *, seed: int, step: int) -> list[Tensor]:
    """The epoch's remaining index batches, from ``step`` on; one permutation per (seed, epoch)."""
    steps_per_epoch = len(labels) // size
    epoch, done = divmod(step, steps_per_epoch)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    return list(order[: steps_per_epoch * size].split(size)[done:])


def make_crops(augment: AugmentConfig, views: Data, local_scale: tuple[float, float], data: ImageData) -> list[Augment]:
    """One augmentation per view, global views first."""
    local = augment.model_copy(update={"scale": local_scale})
    configs = [augment] * views.global_views + [local] * views.local_views
    return [Augment(config, data.mean, data.std) for config in configs]


def make_views(crops: Sequence[Augment], seed: int, mine: Ranks) -> Callable[[Tensor, Tensor | None, int], Tensor]:
    """Return ``views(images, sizes, step)`` → ``(V, B, 3, H, W)``, random by (seed, step, rank)."""
    generator = torch.Generator(mine.device)

    def views(images: Tensor, sizes: Tensor | None, step: int) -> Tensor:
        # Modulo the range of a generator's seeds, which seeds above four million would leave.
        generator.manual_seed(((seed * 1_000_000_007 + step) * 4096 + mine.rank) % 2**64)
        return torch.stack([crop(images, generator, sizes) for crop in crops])

    return views

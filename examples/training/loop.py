"""The training loop for every method: one process or several ranks; eager, compiled or as a CUDA graph."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from examples.images.augment import Augment
from examples.images.datasets import ImageData, fingerprint
from examples.images.reading import Selected, batches
from examples.measurement.features import check_data, progress
from examples.measurement.learned_force import predictor_weights
from examples.model.build import JEPA, build_model, build_optimizer
from examples.recipe.schema import Recipe
from examples.recipe.sections import AugmentConfig, Data, Train
from examples.system.lock import locked
from examples.system.ranks import Ranks
from examples.training.cuda_graph import CapturedStep
from examples.training.nan_guard import FiniteGuard
from examples.training.run_folder import Log, open_run, refuse_disagreement, save_run
from examples.training.schedules import Schedules
from examples.training.sharded import shard
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
    images_hash = fingerprint(recipe.data, data)
    refuse_disagreement(recipe, mine, data=images_hash)
    check_data(recipe, data, mine.size)
    with locked(recipe.out) if mine.main else nullcontext():
        return _train(recipe, data.to(mine.device), mine, images_hash)


def _train(recipe: Recipe, data: ImageData, mine: Ranks, images_hash: str) -> Path:
    torch.manual_seed(recipe.train.seed)
    model = prepared(build_model(recipe, data.train_images.shape[1:]).to(mine.device), recipe.train, mine)
    initial = predictor_weights(model)
    optimizer = build_optimizer(model, recipe.optim, recipe.predictor.lr)
    size = recipe.data.batch_size
    per_epoch = data.epoch_size // size
    schedules = Schedules(recipe.optim, recipe.predictor, epochs=recipe.train.epochs, steps_per_epoch=per_epoch)
    out, step, spent = open_run(recipe, model, optimizer, mine, data=images_hash, total=schedules.total)
    began = time.perf_counter() - spent
    views = make_views(make_crops(recipe.augment, recipe.data, recipe.local_scale, data), recipe.train.seed, mine)
    clock = StepClock(mine.device)
    run_step = make_step(model, optimizer, mine, clock=clock, settings=recipe.train, **clipping(recipe))
    guard = FiniteGuard(mine.device)

    def track() -> None:
        """Evaluate, after the checkpoint so that no failure here loses it. A resumed run does it again."""
        if recipe.evaluation.every and schedules.due(step, recipe.evaluation.every):
            guard.check()
            log.write_curves(step, step // per_epoch, progress(model, data, initial, mine))

    with Log(out, mine, total=schedules.total, step=step) as log, Stop(mine) as stop:
        track()
        while step < schedules.total:
            reader = read_epoch(data, size, recipe.train.seed, step, mine)
            for _ in range(per_epoch - step % per_epoch):
                logged = step % recipe.train.log_every == 0 or step + 1 == schedules.total
                if logged:
                    clock.start()
                schedules.apply(step, optimizer, model.objective)
                images = views(*next(reader), step, size)
                clock.mark("data")
                loss, terms, norm = run_step(images)
                guard.watch(step, {**terms, "loss": loss, "gradient norm": norm})
                if logged:
                    guard.check()
                    record = {"loss": loss, **terms, "grad_norm": norm, "lr": optimizer.param_groups[0]["lr"]}
                    log.write(step, step / per_epoch, record, seconds=clock.stop(), images=size)
                step += 1
                log.bar.update()
                stopped = stop.asked(together=logged)
                if stopped or schedules.due(step, recipe.train.checkpoint_every, recipe.train.checkpoint_steps):
                    guard.check()
                    log.sync()
                    seconds = time.perf_counter() - began
                    save_run(out, recipe, model, optimizer, mine, data=images_hash, step=step, seconds=seconds)
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
    distributed = mine.size > 1 and settings.parallel == "ddp"
    step_model = DistributedDataParallel(model) if distributed else model
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
    norm = clip_norm(clipped, clip)
    if free:
        norm = norm.hypot(clip_norm(free, None))
    optimizer.step()
    if clock:
        clock.mark("optimizer")
    return loss.detach(), terms, norm


def clip_norm(parameters: list[Tensor], most: float | None) -> Tensor:
    """Clip the gradients to the norm ``most``; return the norm before, over the shards of all ranks."""
    norm = nn.utils.clip_grad_norm_(parameters, float("inf") if most is None else most)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def prepared(model: JEPA, settings: Train, mine: Ranks) -> JEPA:
    """The model, ready for several ranks if there are several: with synchronised BatchNorm, or sharded, or both.

    The objective already uses statistics of the global batch. BatchNorm does so on GPUs only: PyTorch's synchronised
    BatchNorm does not run on CPUs, where each rank normalises with its own share.
    """
    if mine.size > 1 and mine.device.type == "cuda":
        model.encoder = nn.SyncBatchNorm.convert_sync_batchnorm(model.encoder)
        model.projector = nn.SyncBatchNorm.convert_sync_batchnorm(model.projector)
    if mine.size > 1 and settings.parallel == "fsdp":
        shard(model, mine)
    return model


def read_epoch(data: ImageData, size: int, seed: int, step: int, mine: Ranks) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images and sizes of this rank's shares of the epoch's remaining batches, from ``step`` on."""
    if data.stream is not None:
        return data.stream.batches(seed=seed, step=step, rank=mine.rank, ranks=mine.size)
    whole = epoch_batches(data.train_images, size, seed=seed, step=step)
    return batches(data.train_images, [batch.tensor_split(mine.size)[mine.rank] for batch in whole])


def epoch_batches(images: Tensor | Selected, size: int, *, seed: int, step: int) -> list[Tensor]:
    """The epoch's remaining index batches, from ``step`` on; one permutation per (seed, epoch)."""
    steps_per_epoch = len(images) // size
    epoch, done = divmod(step, steps_per_epoch)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(images), generator=generator).to(images.device)
    return list(order[: steps_per_epoch * size].split(size)[done:])


def make_crops(augment: AugmentConfig, views: Data, local_scale: tuple[float, float], data: ImageData) -> list[Augment]:
    """One augmentation per view, global views first."""
    local = augment.model_copy(update={"scale": local_scale})
    configs = [augment] * views.global_views + [local] * views.local_views
    return [Augment(config, data.mean, data.std) for config in configs]


def make_views(crops: Sequence[Augment], seed: int, mine: Ranks) -> Callable[..., Tensor]:
    """Return ``views(images, sizes, step, count)`` → ``(V, B, 3, H, W)``, random by (seed, step).

    ``images`` are this rank's share of a batch of ``count``, by default the whole batch.
    """
    generator = torch.Generator(mine.device)

    def views(images: Tensor, sizes: Tensor | None, step: int, count: int | None = None) -> Tensor:
        # The factor only keeps the views of older runs. Seeds above four million would leave a generator's range.
        generator.manual_seed((seed * 1_000_000_007 + step) * 4096 % 2**64)
        share = {"count": count, "rank": mine.rank, "ranks": 1 if count is None else mine.size}
        return torch.stack([crop(images, generator, sizes, **share) for crop in crops])

    return views

"""The training loop, the only one: every method, one process or several ranks, eager, compiled or a CUDA graph."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from examples.images.augment import Augment, AugmentConfig
from examples.images.datasets import ImageData
from examples.images.packed import batches
from examples.measurement.features import progress
from examples.model.build import JEPA, build_model, build_optimizer
from examples.recipe.schema import Recipe
from examples.training.cuda_graph import CapturedStep
from examples.training.nan_guard import FiniteGuard
from examples.training.ranks import Ranks
from examples.training.run_folder import Log, open_run, save_run
from examples.training.schedules import Schedules
from examples.training.step_clock import StepClock


def train(recipe: Recipe, data: ImageData, mine: Ranks) -> Path:
    """Run the recipe to its last epoch, from the last checkpoint if ``train.resume``; return the run's folder.

    Everything random is a function of the seed and the step, so a run that was stopped and resumed equals one that was
    not, bit for bit on the same machine. Each of several ranks takes its share of every batch.
    """
    data = data.to(mine.device)
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe, data.train_images.shape[1:]).to(mine.device)
    optimizer = build_optimizer(recipe, model)
    steps_per_epoch = len(data.train_images) // recipe.data.batch_size
    if not steps_per_epoch:
        raise SystemExit(
            f"data.batch_size must be at most the {len(data.train_images)} training images, "
            f"got {recipe.data.batch_size}"
        )
    if recipe.data.batch_size < mine.size:
        raise SystemExit(f"data.batch_size must be at least the {mine.size} ranks, got {recipe.data.batch_size}")
    schedules = Schedules(recipe, steps_per_epoch)
    out, step, spent = open_run(recipe, model, optimizer, mine)
    began = time.perf_counter() - spent
    views = make_views(recipe, data, mine)
    clock = StepClock(mine.device)
    run_step = make_step(recipe, model, optimizer, mine, clock)
    guard = FiniteGuard(mine.device)
    with Log(out, mine, total=schedules.total, step=step) as log:
        while step < schedules.total:
            shares = [
                batch.tensor_split(mine.size)[mine.rank] for batch in epoch_batches(recipe, data, step, steps_per_epoch)
            ]
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
                    seconds = clock.stop()
                    record = {"loss": loss, **terms, "grad_norm": norm}
                    record["lr"] = optimizer.param_groups[0]["lr"]
                    values = {key: value.item() for key, value in record.items()}
                    values |= {f"{name}_seconds": span for name, span in seconds.items()}
                    log.write(
                        step,
                        step / steps_per_epoch,
                        values,
                        images_per_second=recipe.data.batch_size / sum(seconds.values()),
                    )
                step += 1
                log.bar.update()
            last = step == schedules.total
            guard.check()
            epoch, every = step // steps_per_epoch, recipe.evaluation.every
            if mine.main and every and (last or epoch % every == 0):
                log.write_curves(step, epoch, progress(recipe, model.encoder, data))
            if mine.main and (last or epoch % recipe.train.checkpoint_every == 0):
                save_run(out, recipe, model, optimizer, step=step, seconds=time.perf_counter() - began)
    return out


Step = tuple[Tensor, dict[str, Tensor], Tensor]  # the loss, its terms and the gradient norm


def make_step(
    recipe: Recipe, model: JEPA, optimizer: torch.optim.Optimizer, mine: Ranks, clock: StepClock
) -> Callable[[Tensor], Step]:
    """``step(images)`` as the recipe says: eager, compiled, recorded as a CUDA graph, or both."""
    clip = recipe.sigreg.clip_grad if recipe.method == "sigreg" else recipe.hamjepa.clip_grad
    step_model = parallel(model, mine)
    if recipe.train.compile:
        step_model = torch.compile(step_model, fullgraph=mine.size == 1)  # DDP cuts the graph at its buckets
    elif not recipe.train.cuda_graph:
        clock.attach(model)
    step = functools.partial(train_step, step_model, optimizer, clip=clip)
    if not recipe.train.cuda_graph:
        return functools.partial(step, clock=clock)
    if mine.device.type != "cuda" or mine.size > 1:
        raise SystemExit(
            f"train.cuda_graph needs one process on a CUDA device, got {mine.size} on {mine.device.type!r}"
        )
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
    clock: StepClock | None = None,
) -> Step:
    """One step on views ``(V, B, 3, H, W)``, without waiting for the device."""
    loss, terms = model(images)
    optimizer.zero_grad(set_to_none=True)
    if clock:
        clock.mark(clock.passes[0])
    loss.backward()
    if clock:
        clock.mark(clock.passes[1])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, float("inf") if clip is None else clip)
    optimizer.step()
    if clock:
        clock.mark("optimizer")
    return loss.detach(), terms, norm


def parallel(model: JEPA, mine: Ranks) -> nn.Module:
    """The model whose ``backward`` averages gradients over the ranks; the model itself for a single process.

    The objective's statistics are those of the global batch already. BatchNorm's are on GPUs; PyTorch's
    synchronised BatchNorm does not run on CPUs, where each rank normalises by its own share.
    """
    if mine.size == 1:
        return model
    if mine.device.type == "cuda":
        model.encoder = nn.SyncBatchNorm.convert_sync_batchnorm(model.encoder)
        model.projector = nn.SyncBatchNorm.convert_sync_batchnorm(model.projector)
    return DistributedDataParallel(model)


def epoch_batches(recipe: Recipe, data: ImageData, step: int, steps_per_epoch: int) -> list[Tensor]:
    """Index batches of the epoch that ``step`` is in, from ``step`` on; a permutation per (seed, epoch)."""
    epoch, done = divmod(step, steps_per_epoch)
    generator = torch.Generator().manual_seed(recipe.train.seed * 1_000_003 + epoch)
    order = torch.randperm(len(data.train_images), generator=generator).to(data.train_labels.device)
    size = recipe.data.batch_size
    return list(order[: steps_per_epoch * size].split(size)[done:])


def make_views(recipe: Recipe, data: ImageData, mine: Ranks) -> Callable[[Tensor, Tensor | None, int], Tensor]:
    """Return ``views(images, sizes, step)``: ``(V, B, 3, H, W)``, global views first; random by (seed, step, rank)."""
    crops = [Augment(recipe.augment, data.mean, data.std)] * recipe.data.global_views
    if recipe.data.local_views:
        local = AugmentConfig(**{**vars(recipe.augment), "scale": recipe.local_scale})
        crops += [Augment(local, data.mean, data.std)] * recipe.data.local_views
    generator = torch.Generator(mine.device)

    def views(images: Tensor, sizes: Tensor | None, step: int) -> Tensor:
        generator.manual_seed((recipe.train.seed * 1_000_000_007 + step) * 4096 + mine.rank)
        return torch.stack([crop(images, generator, sizes) for crop in crops])

    return views

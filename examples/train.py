"""Pretrain an encoder by a recipe, then evaluate it: ``python -m examples.train cifar100 method=sigreg``."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from examples.augment import Augment, AugmentConfig
from examples.checkpoint import load_checkpoint, save_atomically, truncate_log, write_atomically
from examples.config import Recipe, load_recipe, to_yaml
from examples.data import ImageData, load_data, pick_device
from examples.evaluate import evaluate
from examples.figures import summary_figure
from examples.methods import build_model, build_optimizer
from examples.schedules import Schedules


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", help="name in examples/recipes, or path of a YAML file")
    parser.add_argument("overrides", nargs="*", help="settings as key=value, e.g. method=sigreg train.epochs=80")
    arguments = parser.parse_intermixed_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    out = train(recipe)
    evaluate(out)
    summary_figure([out], out / "summary.png")


def train(recipe: Recipe, data: ImageData | None = None) -> Path:
    """Run the recipe to its last epoch, from the last checkpoint if ``train.resume``; return the run's folder.

    Everything random is a function of the seed and the step, so a run that was stopped and resumed equals one that was
    not, bit for bit on the same machine.
    """
    device = pick_device(recipe.train.device)
    data = (load_data(recipe.data) if data is None else data).to(device)
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe, data.train_images.shape[1:]).to(device)
    optimizer = build_optimizer(recipe, model)
    steps_per_epoch = len(data.train_images) // recipe.data.batch_size
    if not steps_per_epoch:
        raise SystemExit(
            f"data.batch_size must be at most the {len(data.train_images)} training images, "
            f"got {recipe.data.batch_size}"
        )
    schedules = Schedules(recipe, steps_per_epoch)
    out, step = open_run(recipe, model, optimizer, device)

    views = make_views(recipe, data)
    clip = recipe.sigreg.clip_grad if recipe.method == "sigreg" else recipe.hamjepa.clip_grad
    writer = SummaryWriter(out / "tensorboard", purge_step=step)
    log = (out / "metrics.jsonl").open("a")
    with log, writer, tqdm(total=schedules.total, initial=step, desc=out.name, unit="step") as bar:
        while step < schedules.total:
            for batch in epoch_batches(recipe, data, step, steps_per_epoch):
                began = time.perf_counter()
                schedules.apply(step, optimizer, model["objective"])
                images = views(data.train_images[batch], step)
                augmented = time.perf_counter()
                loss, terms, norm = train_step(
                    model, optimizer, images, batch_size=len(batch), precision=recipe.train.precision, clip=clip
                )
                if step % recipe.train.log_every == 0 or step + 1 == schedules.total:
                    record = {"loss": loss, **terms, **model["objective"].statistics(), "grad_norm": norm}
                    values = {key: value.item() for key, value in record.items()}
                    ended = time.perf_counter()
                    values |= {
                        "lr": optimizer.param_groups[0]["lr"],
                        "data_seconds": augmented - began,
                        "step_seconds": ended - augmented,
                    }
                    report(values, step, step / steps_per_epoch, log, writer)
                    bar.set_postfix(loss=f"{values['loss']:.4f}", images=f"{len(batch) / (ended - began):.0f}/s")
                step += 1
                bar.update()
            log.flush()
            if step == schedules.total or step // steps_per_epoch % recipe.train.checkpoint_every == 0:
                save_atomically(out / "checkpoint.pt", checkpoint(recipe, model, optimizer, step))
    return out


def train_step(
    model: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    *,
    batch_size: int,
    precision: str,
    clip: float | None,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """One step on views ``(V · B, 3, H, W)``; return the loss, its terms and the gradient norm, without waiting."""
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        embeddings = model["projector"](model["encoder"](images))
    loss, terms = model["objective"](embeddings.unflatten(0, (-1, batch_size)))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, float("inf") if clip is None else clip)
    optimizer.step()
    return loss.detach(), terms, norm


def epoch_batches(recipe: Recipe, data: ImageData, step: int, steps_per_epoch: int) -> list[Tensor]:
    """Index batches of the epoch that ``step`` is in, from ``step`` on; a permutation per (seed, epoch)."""
    epoch, done = divmod(step, steps_per_epoch)
    generator = torch.Generator().manual_seed(recipe.train.seed * 1_000_003 + epoch)
    order = torch.randperm(len(data.train_images), generator=generator).to(data.train_images.device)
    size = recipe.data.batch_size
    return list(order[: steps_per_epoch * size].split(size)[done:])


def make_views(recipe: Recipe, data: ImageData) -> Any:
    """Return ``views(images, step)``: all views stacked, global ones first; randomness from (seed, step)."""
    crops = [Augment(recipe.augment, data.mean, data.std)] * recipe.data.global_views
    if recipe.data.local_views:
        local = AugmentConfig(**{**vars(recipe.augment), "scale": recipe.local_scale})
        crops += [Augment(local, data.mean, data.std)] * recipe.data.local_views
    generator = torch.Generator(data.train_images.device)

    def views(images: Tensor, step: int) -> Tensor:
        generator.manual_seed(recipe.train.seed * 1_000_000_007 + step)
        stacked = torch.cat([crop(images, generator) for crop in crops])
        return stacked.contiguous(memory_format=torch.channels_last)

    return views


def open_run(
    recipe: Recipe, model: nn.ModuleDict, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[Path, int]:
    """Make the run's folder, or restore its checkpoint; return the folder and the first step to do.

    Raises:
        SystemExit: if a run is there and ``train.resume`` is not set, or it was made by another recipe.
    """
    out = Path(recipe.train.out)
    path = out / "checkpoint.pt"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        truncate_log(out / "metrics.jsonl", 0)
        write_atomically(out / "recipe.yaml", to_yaml(recipe))
        return out, 0
    if not recipe.train.resume:
        raise SystemExit(
            f"{out} already holds a run: continue it with train.resume=true, or choose another folder with train.out="
        )
    state = load_checkpoint(path, device)
    changed = differing_keys(state["recipe"], to_yaml(recipe))
    if changed:
        raise SystemExit(f"{path} was made by another recipe; these keys differ: {', '.join(changed)}")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    truncate_log(out / "metrics.jsonl", state["step"])
    return out, state["step"]


def checkpoint(recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "recipe": to_yaml(recipe),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def differing_keys(old: str, new: str) -> list[str]:
    """Keys whose values differ, but for those that do not change the training."""
    free = {"train.resume", "train.out", "train.device", "train.log_every", "train.checkpoint_every", "data.root"}
    a, b = (flatten(OmegaConf.to_container(OmegaConf.create(text))) for text in (old, new))
    return sorted(
        key for key in a.keys() | b.keys() if a.get(key) != b.get(key) and key not in free and "evaluation." not in key
    )


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {key: value for k, branch in tree.items() for key, value in flatten(branch, f"{prefix}{k}.").items()}


def report(values: dict[str, float], step: int, epoch: float, log: Any, writer: SummaryWriter) -> None:
    log.write(json.dumps({"step": step, "epoch": round(epoch, 4), **values}) + "\n")
    for key, value in values.items():
        writer.add_scalar(key, value, step)


if __name__ == "__main__":
    main()

"""A run's folder: recipe, checkpoint, logs."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from examples.images.datasets import refuse_other_data
from examples.model.build import JEPA
from examples.recipe.schema import Recipe, read_recipe, to_yaml
from examples.recipe.text import flat
from examples.system.checkpoint import load_run, restore, unusable
from examples.system.files import read_text, save_atomically, truncate_log, write_atomically, writing
from examples.system.ranks import Ranks
from examples.system.sharded import last_checkpoint, read_info
from examples.training import sharded
from examples.training.nan_guard import check_state

MACHINES = ("train.out", "data.root", "data.cache", "data.cache_gib", "data.workers")  # may differ between ranks
# Keys that do not change what is learned. The number of ranks is not part of a recipe.
FREE = (
    *MACHINES, "train.resume", "train.device", "train.log_every", "train.checkpoint_every", "train.checkpoint_steps",
    "train.timeout", "train.compile", "train.cuda_graph",
)  # fmt: skip

METRICS = "metrics.jsonl"  # losses and terms of single steps
CURVES = "curves.jsonl"  # evaluations during training


def open_run(
    recipe: Recipe, model: JEPA, optimizer: torch.optim.Optimizer, ranks: Ranks, *, data: str, total: int
) -> tuple[Path, int, float]:
    """Create the run's folder or restore its checkpoint; return the folder, the next step and the seconds spent so far.

    With several ranks, all restore the checkpoint of rank 0, whose folder alone is used.

    ``data`` is the images' fingerprint, ``total`` the schedule's number of steps. Evaluation
    settings and this machine's paths may change when a run is resumed.

    Raises:
        SystemExit: if the folder contains a run, and ``train.resume`` is not set or the run used another recipe or
            other images; if its checkpoint is unusable; or if it contains something else.
    """
    out = recipe.out
    path = last_checkpoint(out)
    step, seconds = 0, 0.0
    if name := ranks.from_main(path.name if path.suffix != ".pt" or path.is_file() else None):
        if not recipe.train.resume:
            raise SystemExit(f"{out} already contains a run: set train.resume=true to resume it, or another train.out")
        path = out / name
        if sharding := not name.endswith(".pt"):
            state = read_info(path, rank=ranks.rank, ranks=ranks.size)
        else:
            state = load_run(path, ranks.device, ranks.read)
        if changed := differing_keys(state["recipe"], recipe, str(path)):
            raise SystemExit(f"{path} was made with another recipe; these keys differ: {', '.join(changed)}")
        refuse_other_data(state.get("data"), data, recipe.data, path)
        if state["step"] > total:
            raise unusable(path, f"its step must be at most {total}, got {state['step']}")
        if sharding:
            sharded.restore(path, model, optimizer)
        else:
            restore(path, state, model, optimizer)
        step, seconds = state["step"], state["seconds"]
    elif ranks.main:
        refuse_others(recipe)
    if ranks.main:
        write_atomically(out / "recipe.yaml", to_yaml(recipe))
        truncate_log(out / METRICS, step)
        truncate_log(out / CURVES, step)  # what belongs to the checkpoint itself is measured again
    return out, step, seconds


def refuse_disagreement(recipe: Recipe, ranks: Ranks, *, data: str) -> None:
    """Refuse ranks with different settings or images, as on machines that do not share a disk.

    Raises:
        SystemExit: naming the key and the rank.
    """
    settings = {key: value for key, value in flat(recipe.model_dump()).items() if key not in MACHINES}
    ranks.agree({**settings, f"images in {recipe.data.root} (SHA-256)": data})


def refuse_others(recipe: Recipe) -> None:
    """Refuse a folder without a checkpoint, unless it is empty or its run ended before the first one.

    Raises:
        SystemExit: naming the files, or the keys in which the run's recipe differs.
    """
    out, settings = recipe.out, recipe.out / "recipe.yaml"
    names = {path.name for path in out.iterdir() if path.name[0] != "."}
    # The recipe is written first: without it, files with the names of our logs are not ours.
    own = {settings.name, METRICS, CURVES, "tensorboard"} if settings.is_file() else set()
    if others := names - own:
        raise SystemExit(
            f"{out} (train.out) has no checkpoint to resume but contains {', '.join(sorted(others)[:5])}: move these "
            "away, or choose another folder"
        )
    if names and not recipe.train.resume:
        raise SystemExit(f"{out} already contains a run: set train.resume=true to resume it, or another train.out")
    if names and (changed := differing_keys(read_text(settings), recipe, str(settings))):
        raise SystemExit(f"{settings} is of another recipe; these keys differ: {', '.join(changed)}")


def save_run(
    out: Path,
    recipe: Recipe,
    model: JEPA,
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
    *,
    data: str,
    step: int,
    seconds: float,
) -> None:
    """Write the checkpoint: tensors and primitives only. Rank 0 does so, or all ranks if they share the weights.

    Raises:
        NotFiniteError: if the state contains NaN or infinity. The last checkpoint is kept.
    """
    state = {"step": step, "seconds": seconds, "recipe": to_yaml(recipe), "data": data}
    if recipe.train.parallel == "fsdp":
        sharded.save(out, model, optimizer, state)
    elif ranks.main:
        check_state(model, optimizer, step)
        state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        save_atomically(out / "checkpoint.pt", state)


def differing_keys(text: str, recipe: Recipe, where: str) -> list[str]:
    """Dotted keys that affect training and differ from an older recipe; settings added since then get their defaults.

    Raises:
        SystemExit: naming ``where`` and the key, if the text contains a key that no longer exists.
    """
    old, new = (flat(r.model_dump()) for r in (read_recipe(text, where), recipe))
    return sorted(k for k in new if old[k] != new[k] and affects_training(k))


def affects_training(key: str) -> bool:
    """Whether a setting changes what is learned."""
    return key not in FREE and not key.startswith("evaluation.")


class Log:
    """Progress bar, JSON lines and TensorBoard on rank 0; other ranks log nothing."""

    def __init__(self, out: Path, ranks: Ranks, *, total: int, step: int) -> None:
        self.out = out
        self.bar = tqdm(total=total, initial=step, desc=out.name, unit="step", disable=not ranks.main)
        self.lines = (out / METRICS).open("a") if ranks.main else None
        self.tensorboard = SummaryWriter(out / "tensorboard", purge_step=step) if ranks.main else None

    def write(
        self, step: int, epoch: float, record: dict[str, Tensor], *, seconds: dict[str, float], images: int
    ) -> None:
        """Log a step on ``images`` images: its numbers, and the seconds of its parts."""
        if self.lines is None or self.tensorboard is None:
            return
        values = {key: value.item() for key, value in record.items()}
        values |= {f"{name}_seconds": span for name, span in seconds.items()}
        with writing(self.out / "metrics.jsonl"):
            self.lines.write(json.dumps({"step": step, "epoch": round(epoch, 4), **values}) + "\n")
            self.lines.flush()
        with writing(self.out / "tensorboard"):
            for key, value in values.items():
                self.tensorboard.add_scalar(key, value, step)
        self.bar.set_postfix(loss=f"{values['loss']:.4f}", images=f"{images / sum(seconds.values()):.0f}/s")

    def write_curves(self, step: int, epoch: float, record: dict[str, Any]) -> None:
        """Log the `progress` after ``step`` steps."""
        if self.tensorboard is None:
            return
        with writing(self.out / CURVES), (self.out / CURVES).open("a") as lines:
            lines.write(json.dumps({"step": step, "epoch": round(epoch, 4), **record}) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
        with writing(self.out / "tensorboard"):
            for group, values in {**record["readouts"], "dynamics": record["dynamics"]}.items():
                for key, value in values.items():
                    self.tensorboard.add_scalar(f"{group}/{key}", value, step)

    def sync(self) -> None:
        """Put on the disk what precedes a checkpoint: a resumed run does not write it again."""
        if self.lines is not None and self.tensorboard is not None:
            with writing(self.out / "metrics.jsonl"):
                os.fsync(self.lines.fileno())
            with writing(self.out / "tensorboard"):
                self.tensorboard.flush()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        if self.lines is not None and self.tensorboard is not None:
            for file in (self.lines, self.tensorboard):
                with suppress(OSError):  # already reported, by the write that failed
                    file.close()

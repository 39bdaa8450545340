"""Frozen features and their evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from examples.images.augment import Augment, normalize
from examples.images.datasets import ImageData, fingerprint, load_data, refuse_other_data
from examples.images.reading import Selected, batches
from examples.measurement.learned_force import learned_force, predictor_weights
from examples.measurement.shared import ALONE, gather, share, share_training, weights_from_main, world
from examples.model.build import JEPA, build_model
from examples.recipe.schema import METHODS, Recipe, read_recipe
from examples.recipe.sections import HEADLINE_K, AugmentConfig, Evaluation
from examples.system.checkpoint import load_run, restore
from examples.system.files import read_text, save_atomically, write_atomically
from examples.system.machine import pick_device
from examples.system.ranks import Ranks
from examples.system.sharded import last_checkpoint
from symplectic_jepa import PhaseSpaceTokenEncoder, evaluation, split_state
from symplectic_jepa.theory import isotropy_report

READOUTS = ("q", "p", "qp")  # of a token encoder
VIEWED = 5000  # test images whose two views are compared
FITTED = 10_000  # most training images that a geometry is fitted to, evenly spaced
CHUNK = 1024  # test images that kNN compares at a time
Features = tuple[Tensor, Tensor]  # of the training and the test images


def evaluate(
    run: Path, data: ImageData | None = None, mine: Ranks | None = None, *, chunk_size: int = CHUNK
) -> dict[str, Any]:
    """Evaluate a run's last checkpoint; write ``metrics.json`` and ``diagnostics.pt`` into its folder.

    Several ranks share the work: each must call this, and rank 0 alone reads and writes the folder. ``chunk_size`` is
    that of `evaluation.knn_sweep`.
    """
    path = last_checkpoint(run)
    recipe = run_recipe(run) if mine is None or mine.main else None
    if mine is None:
        assert recipe is not None
        mine = Ranks(0, 1, pick_device(recipe.train.device))
    recipe = mine.from_main(recipe)
    assert recipe is not None
    device = mine.device
    state = load_run(path, device) if mine.main else {}
    data = load_data(recipe.data) if data is None else data
    check_data(recipe, data)
    if mine.main:
        refuse_other_data(state.get("data"), fingerprint(recipe.data, data), recipe.data, path)
    data = share_training(data, mine).to(device)
    torch.manual_seed(recipe.train.seed)  # so that the parameters start as they did in training
    model = build_model(recipe, data.train_images.shape[1:]).to(device)
    initial = predictor_weights(model)
    if mine.main:
        restore(path, state, model)
    weights_from_main(model, mine)
    method = METHODS[recipe.method]
    features = {f"{method}-{name}": x for name, x in encode(model, data, mine=mine).items()}
    rows, diagnostics = measure(features, data, recipe.evaluation, mine, chunk_size=chunk_size)
    for name, (a, b) in two_views(model, recipe.augment, data).items():
        rows[f"{method}-{name}"]["alignment"] = evaluation.alignment(a, b).item()
        rows[f"{method}-{name}"]["uniformity"] = evaluation.uniformity(a).item()
    for name, (train, _) in features.items():
        if data.train_labels is not None:
            rows[name]["isotropy"] = isotropy(train, data.train_labels, mine)
    metrics = {
        "method": method,
        "steps": state.get("step"),
        "evaluated_on": "validation" if recipe.data.validation else "test",
        "train_seconds": state.get("seconds"),
        "protocol": f"frozen encoder, no augmentation, no projector; kNN cosine, unweighted vote; linear probe "
        f"LayerNorm + Linear, {recipe.evaluation.probe_epochs} epochs, last epoch",
        "torch": torch.__version__,
        "classes": len(data.class_names),
        "class_list_sha256": hashlib.sha256("\n".join(data.class_names).encode(errors="surrogateescape")).hexdigest(),
        "readouts": rows,
        "dynamics": learned_force(model, initial, whole_states(features)),
    }
    if mine.main:
        save_atomically(run / "diagnostics.pt", diagnostics)
        write_atomically(run / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def run_recipe(run: Path) -> Recipe:
    """The recipe in a run's folder."""
    return read_recipe(read_text(run / "recipe.yaml"), str(run / "recipe.yaml"))


def check_data(recipe: Recipe, data: ImageData, ranks: int = 1) -> None:
    """Refuse settings that do not fit the data, before anything is trained or measured.

    Raises:
        SystemExit: naming the key, its value and the bound.
    """
    train, test = len(data.train_images), len(data.test_images)
    size, most = recipe.data.batch_size, max(recipe.evaluation.ks)
    if not ranks <= size <= (most_images := data.epoch_size):
        raise SystemExit(f"data.batch_size must be from {ranks} (ranks) to {most_images} (training images), got {size}")
    if data.train_labels is not None and most > train:
        raise SystemExit(f"evaluation.ks must be at most {train} (training images), got {most}")
    if test < 2:
        raise SystemExit(f"data.test_size, data.classes or data.root must leave at least 2 test images, got {test}")
    if data.train_labels is not None and len(data.train_labels.unique()) < 2:
        raise SystemExit("data.root or data.classes must leave training images of at least 2 classes, got 1")


def isotropy(features: Tensor, labels: Tensor, mine: Ranks = ALONE) -> dict[str, float] | None:
    """`isotropy_report` of all ranks' features, with the labels as tasks; None if they have collapsed to a point."""
    features, labels = gather(features, mine, FITTED), gather(labels[:, None], mine, FITTED).squeeze(1)
    if (features == features[0]).all():
        return None
    report = isotropy_report(features, labels)
    return {name: getattr(report, name).item() for name in ("price", "regret", "worst_case_ratio")}


def progress(model: JEPA, data: ImageData, initial: Sequence[Tensor], mine: Ranks) -> dict[str, Any]:
    """What is tracked during training: metrics by readout, and `learned_force`. Every rank must call it.

    ``initial`` is `predictor_weights` before the first step. Returns the encoder to train mode.
    """
    rows = {}
    weights_from_main(model, mine)
    data, group = share_training(data, mine), world(mine)
    features = encode(model, data, mine=mine)
    for name, (train, test) in features.items():
        spread = evaluation.spectrum(train, process_group=group)
        rows[name] = {"effective_rank": spread.effective_rank, "participation_ratio": spread.participation_ratio}
        if data.train_labels is not None and data.test_labels is not None:
            given = train, data.train_labels, test, data.test_labels
            knn = evaluation.knn_sweep(*given, ks=[HEADLINE_K], process_group=group)[HEADLINE_K]
            rows[name] = {"knn": knn.top1, **rows[name]}
    model.encoder.train()
    return {"readouts": rows, "dynamics": learned_force(model, initial, whole_states(features))}


def baselines(recipe: Recipe, data: ImageData) -> dict[str, Any]:
    """The two baseline rows: raw pixels, and the same encoder before training."""
    device = pick_device(recipe.train.device)
    data = data.to(device)
    torch.manual_seed(recipe.train.seed)
    states = encode(build_model(recipe, data.train_images.shape[1:]).to(device), data)
    pixels = raw_pixels(data.train_images, data), raw_pixels(data.test_images, data)
    name = "raw pixels" if isinstance(data.train_images, Tensor) else "raw pixels (32 × 32)"
    features = {name: pixels, "untrained encoder": states.get("q", next(iter(states.values())))}
    return measure(features, data, recipe.evaluation)[0]


def raw_pixels(images: Tensor | Selected, data: ImageData) -> Tensor:
    """``(N, 3 · H · W)``; packed images are centre-cropped and shrunk to 32 × 32."""
    if isinstance(images, Tensor):
        return normalize(images, data.mean, data.std).flatten(1)
    parts = [adaptive_avg_pool2d(normalize(x, data.mean, data.std), 32).flatten(1) for x in images.centres(512)]
    return torch.cat(parts)


def encode(model: JEPA, data: ImageData, chunk: int = 512, mine: Ranks = ALONE) -> dict[str, Features]:
    """Features of both splits by readout: ``q``, ``p`` and ``qp``, or ``z`` for an encoder without tokens.

    Several ranks share the test images, and each returns the features of all of them.
    """

    def inputs(images: Tensor | Selected) -> Iterator[Tensor]:
        parts = images.split(chunk) if isinstance(images, Tensor) else images.centres(chunk)
        return (normalize(part, data.mean, data.std) for part in parts)

    train, test = (forward(model, inputs(x)) for x in (data.train_images, share(data.test_images, mine)))
    return readouts(model, train, gather(test, mine))


def whole_states(features: dict[str, Features]) -> Tensor:
    """The states of the test images: the last readout."""
    return [*features.values()][-1][1]


def two_views(model: JEPA, config: AugmentConfig, data: ImageData, chunk: int = 512) -> dict[str, Features]:
    """Features of two augmented views of test images, by readout. Every call uses the same views."""
    augment = Augment(config, data.mean, data.std)
    positions = list(torch.arange(min(VIEWED, len(data.test_images))).split(chunk))

    def inputs(seed: int) -> Iterator[Tensor]:
        generator = torch.Generator(data.test_images.device).manual_seed(seed)
        return (augment(images, generator, sizes) for images, sizes in batches(data.test_images, positions))

    return readouts(model, *(forward(model, inputs(seed)) for seed in (0, 1)))


def readouts(model: JEPA, first: Tensor, second: Tensor) -> dict[str, Features]:
    """Two sets of states by readout."""
    if not isinstance(model.encoder, PhaseSpaceTokenEncoder):
        return {"z": (first, second)}
    (q, p), (other_q, other_p) = split_state(first), split_state(second)
    return {"q": (q, other_q), "p": (p, other_p), "qp": (first, second)}


@torch.no_grad()
def forward(model: JEPA, parts: Iterable[Tensor]) -> Tensor:
    """Features in evaluation mode, float32."""
    encoder = model.encoder.eval()
    features = []
    for part in parts:
        x = part.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=model.bf16):
            features.append(encoder(x).float())
    return torch.cat(features)


def measure(
    features: dict[str, Features],
    data: ImageData,
    settings: Evaluation,
    mine: Ranks = ALONE,
    *,
    chunk_size: int = CHUNK,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers for the tables and arrays for `examples.measurement.figures`, by readout.

    Training features and labels are those of this rank, test features those of all.
    """
    rows: dict[str, Any] = {}
    group = world(mine)
    diagnostics: dict[str, Any] = {}
    for name, (train, test) in features.items():
        rows[name], diagnostics[name] = labelled(train, test, data, settings, mine, chunk_size=chunk_size)
        spread = evaluation.spectrum(train, process_group=group)
        cosines, norms = evaluation.pair_cosines(test), evaluation.feature_norms(test)
        rows[name] |= {
            "effective_rank": spread.effective_rank,
            "participation_ratio": spread.participation_ratio,
            "cosine": {"mean": cosines.mean().item(), "std": cosines.std().item()},
            "norm": {"mean": norms.mean().item(), "std": norms.std().item()},
            "dim": train.shape[1],
        }
        diagnostics[name] |= {
            "eigenvalues": spread.eigenvalues.cpu(),
            "cosines": cosines.cpu(),
            "norms": norms.cpu(),
        }
    return rows, diagnostics


def labelled(
    train: Tensor, test: Tensor, data: ImageData, settings: Evaluation, mine: Ranks, *, chunk_size: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `measure` says of kNN and the linear probe: nothing, if the images have no labels."""
    if data.train_labels is None or data.test_labels is None:
        return {}, {}
    given, group = (train, data.train_labels, test, data.test_labels), world(mine)
    knn = evaluation.knn_sweep(*given, ks=settings.ks, chunk_size=chunk_size, process_group=group)
    probe = evaluation.linear_probe(*given, epochs=settings.probe_epochs, process_group=group)
    best = max(knn, key=lambda k: knn[k].top1)
    row = {
        "knn": {str(k): {"top1": a.top1, "top5": a.top5} for k, a in knn.items()},
        "knn_best": {"k": best, "top1": knn[best].top1},
        "linear": {"top1": probe.top1, "top5": probe.top5},
    }
    return row, {"knn": torch.tensor([[k, a.top1] for k, a in knn.items()])}


def table(rows: dict[str, Any]) -> str:
    """The rows as a markdown table, with accuracies in percent; without labels there are none."""
    lines = [f"| features | dim | kNN@{HEADLINE_K} | linear | effective rank |", "| --- | --- | --- | --- | --- |"]
    for name, row in rows.items():
        scores = [row["knn"][str(HEADLINE_K)], row["linear"]] if "knn" in row else []
        knn, linear = [f"{score['top1']:.2f}" for score in scores] or ["–", "–"]
        lines.append(f"| {name} | {row['dim']} | {knn} | {linear} | {row['effective_rank']:.1f} |")
    return "\n".join(lines)

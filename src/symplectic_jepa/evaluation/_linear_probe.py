"""Linear probe on frozen features: LayerNorm and one linear layer."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa._precision import autocast_off
from symplectic_jepa.distributed import Group, Ranks
from symplectic_jepa.evaluation._inputs import (
    LabelledFeatures,
    cpu_generator,
    labelled,
    same_width,
    together,
)

_LARGEST, _SMALLEST = 1e15, 1e-3  # where LayerNorm overflows, and where its eps of 1e-5 outweighs any variance


class ProbeResult(NamedTuple):
    """Test accuracy in percent after the last epoch, and the trained head."""

    top1: float
    top5: float
    head: nn.Sequential


def linear_probe(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    *,
    num_classes: int | None = None,
    epochs: int = 50,
    batch_size: int = 256,
    lr: float = 1e-3,
    weight_decay: float = 1e-6,
    seed: int = 0,
    process_group: Group = None,
) -> ProbeResult:
    """Train ``Linear(LayerNorm(x))`` with cross-entropy and report the last epoch (no best-epoch selection).

    The paper's protocol [paper, appendix D.1]: AdamW on all parameters, with a cosine learning rate from ``lr`` to 0
    over all steps, ``lr_t = lr/2 (1 + cos(πt/T))``. Every epoch visits each row once; the last batch may be short.

    Everything runs in float32, even under the caller's autocast, no_grad or inference_mode. Initialisation and order
    depend only on ``seed`` and are the same on every device; the global random state is not touched.

    Features and labels are tensors or numpy arrays. Features are never copied as a whole, only the rows of a batch: a
    ``numpy.memmap`` stays on disk. With a ``process_group`` each rank reads its own training rows, and the gradients of
    a batch are summed over ranks, so the head is that of all rows, on every rank, up to rounding.

    A warning is issued if all features are below 1e-3: LayerNorm adds 1e-5 to their variance, so of smaller ones the
    probe sees ever less.

    Args:
        train_features: ``(N_train, D)``; the probe runs on its device. With a group, the rows of this rank, at least
            one; the probe's rows are then those of all ranks in their order.
        train_labels: ``(N_train,)`` integers in ``[0, num_classes)``.
        test_features: ``(N_test, D)``, the same on all ranks.
        test_labels: ``(N_test,)`` integers in ``[0, num_classes)``, the same on all ranks.
        num_classes: number of outputs; by default the largest label plus one.
        epochs: passes over the training rows.
        batch_size: rows per step.
        lr: initial learning rate.
        weight_decay: AdamW's decoupled decay.
        seed: seed of initialisation and order.
        process_group: the ranks that train one head together; by default this process alone.

    Returns:
        Top-1 and top-5 in percent (top-``num_classes`` if there are fewer than five) and the trained head.

    Raises:
        TypeError: if features are not floating or labels not integers.
        ValueError: if an input is empty, not finite or of another size than its partner, a label is out of
            range, or a setting is, or features exceed 1e15, whose variance LayerNorm cannot hold in float32.
        FloatingPointError: if the head has diverged to NaN or infinity.
    """
    train = labelled("train", train_features, train_labels)
    test = labelled("test", test_features, test_labels)
    same_width(train.features, test.features)
    for name, x in (("train_features", train.features), ("test_features", test.features)):
        largest = torch.linalg.vector_norm(x, math.inf).item()
        if largest > _LARGEST:
            raise ValueError(f"{name} must not exceed {_LARGEST:g} for LayerNorm in float32, got {largest:.3g}")
        if 0 < largest < _SMALLEST:
            warnings.warn(
                f"{name} are at most {largest:.3g}, small against LayerNorm's eps, so the probe is near chance "
                "whatever they hold; rescale them",
                stacklevel=2,
            )
    ranks = together(process_group)
    counts = ranks.row_counts(len(train.labels), train.features.device)
    labels = ranks.gather(train.labels[:, None], counts)
    classes = _classes(labels, test.labels, num_classes)
    _checks.positive_int("epochs", epochs)
    _checks.positive_int("batch_size", batch_size)
    _checks.finite("lr", lr, minimum=0.0, exclusive=True)
    _checks.finite("weight_decay", weight_decay, minimum=0.0)
    order = cpu_generator(seed)

    device = train.features.device
    with torch.inference_mode(False), torch.enable_grad(), autocast_off(device):
        head = _initial_head(train.features.shape[1], classes, seed).to(device)
        _fit(
            head,
            train,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            order=order,
            counts=counts,
            ranks=ranks,
        )
        if not all(x.isfinite().all() for x in head.parameters()):
            raise FloatingPointError(f"the probe's head has diverged to NaN or infinity, with lr={lr:g}: lower it")
        return ProbeResult(*_accuracy(head, test), head.eval())


def _classes(train: Tensor, test: Tensor, num_classes: int | None) -> int:
    """The number of classes; checks that every label is one of them."""
    low = min(int(train.min()), int(test.min()))
    high = max(int(train.max()), int(test.max()))
    classes = _checks.positive_int("num_classes", max(high, 0) + 1 if num_classes is None else num_classes)
    if low < 0 or high >= classes:
        raise ValueError(
            f"train_labels and test_labels must lie in [0, num_classes) = [0, {classes}), "
            f"got values from {low} to {high}"
        )
    return classes


def _initial_head(width: int, classes: int, seed: int) -> nn.Sequential:
    """PyTorch's default initialisation under ``seed``, drawn on the CPU; the global random state is restored."""
    # torch.manual_seed would reseed every accelerator too, and fork_rng would then have to save each of them.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        norm = nn.LayerNorm(width, device="cpu", dtype=torch.float32)
        return nn.Sequential(norm, nn.Linear(width, classes, device="cpu", dtype=torch.float32))


def _fit(
    head: nn.Sequential,
    train: LabelledFeatures,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    order: torch.Generator,
    counts: list[int],
    ranks: Ranks,
) -> None:
    """Minimise the cross-entropy of the head over the rows of all ranks, of which ``train`` are this rank's."""
    norm, linear = head
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(linear, nn.Linear)
    device = train.features.device
    fused = device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay, fused=fused)
    rows, before = sum(counts), sum(counts[: ranks.rank])
    total, step = epochs * math.ceil(rows / batch_size), 0
    for _ in range(epochs):
        batches = torch.split(torch.randperm(rows, generator=order, device="cpu"), batch_size)
        shares = [x[(x >= before) & (x < before + len(train.labels))] - before for x in batches]
        moved = torch.split(torch.cat(shares).to(device), [len(x) for x in shares])
        for batch, index in zip(batches, moved, strict=True):
            optimizer.param_groups[0]["lr"] = 0.5 * lr * (1.0 + math.cos(math.pi * step / total))
            # LayerNorm is γ ∘ x̂ + β, where x̂ has no parameters. The features are frozen, so x̂ needs no gradient:
            # W(γ ∘ x̂ + β) + b = (W ∘ γ) x̂ + (Wβ + b).
            x = functional.layer_norm(train.features[index].float(), norm.normalized_shape, eps=norm.eps)
            bias = torch.addmv(linear.bias, linear.weight, norm.bias)
            logits = functional.linear(x, linear.weight * norm.weight, bias)
            loss = functional.cross_entropy(logits, train.labels[index], reduction="sum") / len(batch)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            grads = [p.grad for p in head.parameters() if p.grad is not None]
            for own, whole in zip(grads, ranks.sum(grads), strict=True):
                own.copy_(whole)
            optimizer.step()
            step += 1


@torch.no_grad()
def _accuracy(head: nn.Sequential, test: LabelledFeatures, chunk_size: int = 4096) -> tuple[float, float]:
    """Top-1 and top-5 of the head in percent."""
    weight = next(head.parameters())
    hits = torch.zeros(2, dtype=torch.int64, device=weight.device)
    chunks = (torch.split(part, chunk_size) for part in test)
    for rows, labels in zip(*chunks, strict=True):
        logits = head(rows.to(weight))
        found = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.to(weight.device).unsqueeze(1)
        hits += torch.stack((found[:, 0].sum(), found.sum()))
    top1, top5 = (100.0 * hits.double() / len(test.labels)).tolist()
    return top1, top5

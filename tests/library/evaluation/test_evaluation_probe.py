"""The linear probe against a textbook training loop, and what it may not disturb."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from symplectic_jepa.evaluation import linear_probe
from tests.helpers.memory import Largest


def clusters(n_train=300, n_test=150, dim=12, classes=7, noise=0.1):
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=g)
    y = torch.randint(classes, (n_train + n_test,), generator=g)
    x = centres[y] + noise * torch.randn(n_train + n_test, dim, generator=g)
    return x[:n_train], y[:n_train], x[n_train:], y[n_train:]


def textbook(data, classes, *, epochs, batch_size, lr, weight_decay, seed):
    """LayerNorm + Linear, AdamW, CosineAnnealingLR, as one would write it first."""
    train, train_y, _, _ = data
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = nn.Sequential(nn.LayerNorm(train.shape[1]), nn.Linear(train.shape[1], classes))
    steps = epochs * -(-len(train) // batch_size)
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        permutation = torch.randperm(len(train), generator=order)
        for start in range(0, len(train), batch_size):
            batch = permutation[start : start + batch_size]
            optimizer.zero_grad()
            F.cross_entropy(head(train[batch]), train_y[batch]).backward()
            optimizer.step()
            schedule.step()
    return head


def test_result_equals_the_textbook_loop():
    _, _, test, test_y = data = clusters(noise=1.0)
    settings = {"epochs": 6, "batch_size": 64, "lr": 1e-2, "weight_decay": 1e-1, "seed": 3}
    result = linear_probe(*data, **settings)
    head = textbook(data, 7, **settings)
    for found, expected in zip(result.head.parameters(), head.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        ranking = head(test).topk(5).indices == test_y[:, None]
    assert result.top1 == pytest.approx(100 * ranking[:, 0].float().mean().item(), abs=1e-4)
    assert result.top5 == pytest.approx(100 * ranking.float().sum(1).mean().item(), abs=1e-4)
    assert 20.0 < result.top1 < result.top5 < 100.0  # a comparison that could fail


def test_global_random_state_is_neither_read_nor_moved():
    data = clusters(noise=1.0)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = linear_probe(*data, epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(456)
    assert torch.equal(linear_probe(*data, epochs=2).head[1].weight, first.head[1].weight)


@pytest.mark.parametrize("context", ["no_grad", "inference_mode", "autocast", "all"])
def test_callers_context_does_not_matter(context):
    plain = linear_probe(*clusters(noise=1.0), epochs=2)
    with contextlib.ExitStack() as stack:
        if context in ("no_grad", "all"):
            stack.enter_context(torch.no_grad())
        if context in ("autocast", "all"):
            stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        if context in ("inference_mode", "all"):
            stack.enter_context(torch.inference_mode())
        result = linear_probe(*clusters(noise=1.0), epochs=2)  # features made inside: inference tensors
    assert result[:2] == plain[:2]
    assert torch.equal(result.head[1].weight, plain.head[1].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_trained_in_float32(dtype):
    train, train_y, test, test_y = clusters()
    exact = tuple(x.half().bfloat16() for x in (train, test))  # representable in all three
    as_float = linear_probe(exact[0].float(), train_y, exact[1].float(), test_y, epochs=2)
    result = linear_probe(exact[0].to(dtype), train_y.int(), exact[1].to(dtype), test_y, epochs=2)
    assert result.head[1].weight.dtype == torch.float32
    assert result[:2] == as_float[:2]


def test_features_on_disk_stay_there(tmp_path):
    """Only rows of a batch are copied, and the head is the same."""
    train, train_y, test, test_y = clusters(n_train=900, noise=1.0)
    np.save(tmp_path / "train.npy", train.numpy())
    stored = np.load(tmp_path / "train.npy", mmap_mode="r")
    expected = linear_probe(train, train_y, test, test_y, epochs=2, batch_size=64)
    before = stored.copy()
    with warnings.catch_warnings(), Largest() as largest:
        warnings.simplefilter("error")
        result = linear_probe(stored, train_y, test, test_y, epochs=2, batch_size=64)
    assert torch.equal(result.head[1].weight, expected.head[1].weight)
    assert result[:2] == expected[:2]
    assert largest.numel <= max(test.numel(), 64 * train.shape[1]) < train.numel() / 4
    assert np.array_equal(stored, before)


def test_features_with_a_graph_are_frozen():
    train, train_y, test, test_y = clusters()
    linear_probe(train.requires_grad_(), train_y, test, test_y, epochs=1)
    assert train.grad is None


def test_fewer_than_five_classes_and_more_than_the_labels_show():
    data = clusters(classes=3, noise=1.0)
    assert linear_probe(*data, epochs=1).top5 == 100.0
    assert linear_probe(*data, epochs=1, num_classes=9).head[1].weight.shape == (9, 12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": 0.0}, "lr must be a finite number > 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"seed": -1}, "seed must be an int >= 0, got -1"),
        ({"num_classes": 7}, r"\[0, 7\), got values from 0 to 7"),
        ({"num_classes": 0}, "num_classes"),
        ({"train_labels": torch.full((8,), -1)}, r"got values from -1"),
        ({"train_labels": torch.zeros(7, dtype=torch.int64)}, "train_labels must have shape"),
        ({"test_features": torch.randn(8, 4)}, "same dimension"),
    ],
)
def test_errors_name_the_argument(change, words):
    arguments = {
        "train_features": torch.randn(8, 3),
        "train_labels": torch.arange(8),
        "test_features": torch.randn(8, 3),
        "test_labels": torch.arange(8),
    }
    with pytest.raises(ValueError, match=words):
        linear_probe(**{**arguments, **change})

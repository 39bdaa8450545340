"""kNN against scikit-learn and against a vote counted by hand."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from symplectic_jepa.evaluation import KNNAccuracy, knn, knn_sweep
from tests.helpers.memory import Largest

KS = (1, 5, 10, 20, 50, 100, 200)


def clusters(n_train, n_test, dim, classes, *, seed):
    """Overlapping clusters away from the origin, so that neither accuracy nor ties are trivial."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=g, dtype=torch.float64)
    y = torch.randint(classes, (n_train + n_test,), generator=g)
    x = centres[y] + 1.5 * torch.randn(n_train + n_test, dim, generator=g, dtype=torch.float64) + 0.3
    return x[:n_train], y[:n_train], x[n_train:], y[n_train:]


def naive(train, train_y, test, test_y, k):
    """One test row at a time, classes sorted by (votes descending, label ascending)."""
    hits = np.zeros(2)
    for row, label in zip(test.numpy(), test_y.tolist(), strict=True):
        bank = train.numpy()
        cosine = bank @ row / (np.linalg.norm(bank, axis=1) * np.linalg.norm(row))
        ballots = train_y.numpy()[np.argsort(-cosine, kind="stable")[:k]]
        names, votes = np.unique(ballots, return_counts=True)
        ranking = [name for _, name in sorted(zip(-votes, names, strict=True))]
        hits += [label in ranking[:1], label in ranking[:5]]
    return KNNAccuracy(*(100.0 * hits / len(test_y)))


@pytest.mark.parametrize("shape", [(200, 37, 3, 4), (500, 120, 8, 10), (900, 61, 16, 30)])
def test_top1_equals_scikit_learn_for_every_k(shape):
    train, train_y, test, test_y = data = clusters(*shape, seed=sum(shape))
    result = knn_sweep(*data)
    assert tuple(result) == KS
    for k in KS:
        model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights="uniform")
        model.fit(train.numpy(), train_y.numpy())
        expected = 100.0 * model.score(test.numpy(), test_y.numpy())
        assert result[k].top1 == pytest.approx(expected, abs=1e-9), k
    assert len({accuracy.top1 for accuracy in result.values()}) > 3  # the data tells the ks apart


@pytest.mark.parametrize("k", [1, 2, 3, 8, 25])
def test_top5_equals_the_naive_vote(k):
    data = clusters(150, 80, 4, 12, seed=k)
    result = knn_sweep(*data, ks=(k,))[k]
    assert result == pytest.approx(naive(*data, k))
    if k > 2:
        assert result.top1 < result.top5 < 100.0


def test_votes_that_tie_go_to_the_smaller_label_and_classes_without_votes_never_count():
    train = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [-1.0, 0.0]])
    train_y = torch.tensor([7, 3, 7, 0])
    test = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    test_y = torch.tensor([3, 7, 0, 5])  # 0 is far away, 5 is no training label
    result = knn_sweep(train, train_y, test, test_y, ks=(1, 2, 3))
    assert result[1] == (25.0, 25.0)  # 7 alone
    assert result[2] == (25.0, 50.0)  # one vote each: 3 wins
    assert result[3] == (25.0, 50.0)  # 7, 3, 7
    flipped = knn_sweep(train, train_y, test[:1], test_y[:1], ks=(2, 3))
    assert (flipped[2].top1, flipped[3].top1) == (100.0, 0.0)


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 100, 4096])
def test_chunks_do_not_change_the_result(chunk_size):
    data = clusters(300, 100, 6, 8, seed=1)
    assert knn_sweep(*data, chunk_size=chunk_size) == knn_sweep(*data, chunk_size=100)


def test_labels_may_be_any_integers():
    train, train_y, test, test_y = clusters(120, 60, 5, 6, seed=2)
    names = torch.tensor([-9, -2, 0, 5, 40, 10**12])  # ascending: the tie rule sees the same order
    plain = knn_sweep(train, train_y, test, test_y, ks=(4, 9))
    assert knn_sweep(train, names[train_y], test, names[test_y], ks=(4, 9)) == plain
    small = knn_sweep(train, train_y.to(torch.uint8), test, test_y.to(torch.int16), ks=(4, 9))
    assert small == plain


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_under_autocast_are_compared_in_float32(dtype):
    # All cosines are within 0.002 of 1, where bfloat16 has a spacing of 0.004.
    g = torch.Generator().manual_seed(0)
    train = (torch.randn(400, 32, generator=g) * 0.02 + 1.0).to(dtype)
    test = (torch.randn(150, 32, generator=g) * 0.02 + 1.0).to(dtype)
    train_y, test_y = torch.arange(400) % 5, torch.arange(150) % 5
    expected = knn_sweep(train.double(), train_y, test.double(), test_y, ks=(1, 10))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = knn_sweep(train, train_y, test, test_y, ks=(1, 10))
    for k, accuracy in expected.items():  # float32 may swap a near tie, bfloat16 scrambles most rows
        assert found[k].top1 == pytest.approx(accuracy.top1, abs=1.0)
    with torch.inference_mode():
        assert knn_sweep(train, train_y, test, test_y, ks=(1, 10)) == found


def test_ks_may_repeat_and_come_in_any_order():
    data = clusters(60, 30, 4, 3, seed=4)
    assert list(knn_sweep(*data, ks=(20, 1, 20, 5))) == [20, 1, 5]
    assert knn_sweep(*data, ks=iter((20, 1))) == knn_sweep(*data, ks=(20, 1))


def test_similarities_stay_within_the_chunk(monkeypatch):
    seen = []
    topk = torch.Tensor.topk

    def spy(self, *args, **kwargs):
        seen.append(tuple(self.shape))
        return topk(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "topk", spy)
    data = clusters(90, 50, 4, 3, seed=5)
    whole = knn_sweep(*data, ks=(1, 5, 50), chunk_size=16)
    assert seen == [(16, 90), (16, 90), (16, 90), (2, 90)]
    seen.clear()
    monkeypatch.setattr(knn, "_BANK_ROWS", 40)
    assert knn_sweep(*data, ks=(1, 5, 50), chunk_size=16) == whole
    assert all(columns <= 50 + 40 for _, columns in seen)
    assert seen.count((16, 40)) == 6


def test_features_on_disk_are_read_in_blocks(monkeypatch, tmp_path):
    train, train_y, test, test_y = data = clusters(900, 20, 8, 3, seed=6)
    np.save(tmp_path / "train.npy", train.numpy())
    stored = np.load(tmp_path / "train.npy", mmap_mode="r")
    expected = knn_sweep(*data)
    monkeypatch.setattr(knn, "_BANK_ROWS", 64)
    with Largest() as largest:
        assert knn_sweep(stored, train_y, test, test_y, chunk_size=10) == expected
    assert largest.numel <= 20 * (200 + 64) < train.numel()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"ks": (1, 11)}, ValueError, "at most the 10 training rows, got 11"),
        ({"ks": ()}, ValueError, "at least one"),
        ({"ks": (0,)}, ValueError, "each of ks must be an int >= 1, got 0"),
        ({"chunk_size": 0}, ValueError, "chunk_size"),
        ({"train_labels": torch.zeros(9, dtype=torch.int64)}, ValueError, r"train_labels must have shape \(10,\)"),
        ({"test_labels": torch.zeros(4, 1, dtype=torch.int64)}, ValueError, r"test_labels must have shape \(4,\)"),
        ({"train_labels": torch.zeros(10)}, TypeError, "train_labels must be integer"),
        ({"test_labels": torch.zeros(4, dtype=torch.bool)}, TypeError, "test_labels must be integer"),
        ({"test_features": torch.randn(4, 2)}, ValueError, "same dimension, got 3 and 2"),
        ({"test_features": torch.zeros(4, 3, dtype=torch.int64)}, TypeError, "test_features"),
        ({"test_features": torch.randn(0, 3)}, ValueError, "test_features"),
        ({"train_features": torch.randn(10, 3, 1)}, ValueError, "flatten"),
    ],
)
def test_errors_name_the_argument(change, error, words):
    arguments = {
        "train_features": torch.randn(10, 3),
        "train_labels": torch.zeros(10, dtype=torch.int64),
        "test_features": torch.randn(4, 3),
        "test_labels": torch.zeros(4, dtype=torch.int64),
        "ks": (1, 5),
    }
    with pytest.raises(error, match=words):
        knn_sweep(**{**arguments, **change})

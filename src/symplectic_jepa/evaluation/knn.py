"""k-nearest-neighbour accuracy of frozen features, for every k from one neighbour search."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa._precision import autocast_off
from symplectic_jepa.distributed import Group, Ranks
from symplectic_jepa.evaluation._inputs import labelled, same_width, together, unit_rows

_BANK_ROWS = 2**14  # training rows compared at once


class KNNAccuracy(NamedTuple):
    """Top-1 and top-5 accuracy in percent."""

    top1: float
    top5: float


@torch.no_grad()
def knn_sweep(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    *,
    ks: Iterable[int] = (1, 5, 10, 20, 50, 100, 200),
    chunk_size: int = 1024,
    process_group: Group = None,
) -> dict[int, KNNAccuracy]:
    """Classify each test row by an unweighted majority vote of its ``k`` most cosine-similar training rows.

    The paper's protocol [paper, appendix D.1]: cosine metric, unweighted vote, search over all training rows; kNN@20 is
    its headline. State all three when you report a number: other libraries weight votes by ``exp(similarity / T)``.

    Ties are broken by fixed rules. Neighbours are ordered by `torch.topk` on the similarity. Classes are ordered by
    number of votes, and the smaller label comes first among equals (the rule of scikit-learn's
    ``KNeighborsClassifier(metric="cosine", algorithm="brute")``). A label without a vote never counts as
    found, so top-5 at ``k = 1`` equals top-1. An all-zero row has similarity 0 to everything.

    Similarities are computed in float32 (float64 for float64 features) regardless of autocast;
    ``torch.set_float32_matmul_precision`` still applies.

    Features and labels are tensors or numpy arrays. Of the training features only 16,384 rows are copied at a time, so
    a ``numpy.memmap`` stays on disk. With a ``process_group`` each rank searches its own training rows, and the ranks
    exchange their nearest neighbours; the result is that of all rows, on every rank.

    Args:
        train_features: ``(N_train, D)``, not normalised; the search runs on its device. With a group, the rows of this
            rank, at least one.
        train_labels: ``(N_train,)`` integer labels, with any values.
        test_features: ``(N_test, D)``, moved chunk by chunk if they live elsewhere; the same on all ranks.
        test_labels: ``(N_test,)`` integer labels, the same on all ranks.
        ks: numbers of neighbours, each at most ``N_train``.
        chunk_size: test rows per step; at most ``chunk_size * 16384`` similarities are held at once.
        process_group: the ranks that search together; by default this process alone.

    Returns:
        Accuracy in percent for each of ``ks``, in the same order.

    Raises:
        TypeError: if features are not floating or labels not integers.
        ValueError: if an input is empty, not finite or of another size than its partner, or ``k > N_train``.
    """
    train, train_classes = labelled("train", train_features, train_labels)
    test, test_classes = labelled("test", test_features, test_labels)
    same_width(train, test)
    _checks.positive_int("chunk_size", chunk_size)
    _checks.instance("ks", ks, Iterable)
    wanted = [_checks.positive_int("each of ks", k) for k in ks]
    if not wanted:
        raise ValueError("ks must contain at least one number of neighbours, got none")
    ranks, device = together(process_group), train.device
    counts = ranks.row_counts(len(train), device)
    if max(wanted) > sum(counts):
        raise ValueError(f"each of ks must be at most the {sum(counts)} training rows, got {max(wanted)}")

    # Labels become positions among the sorted classes, so "smaller label first" is "smaller position first".
    everyone = ranks.gather(train_classes[:, None], counts).squeeze(1)
    classes, positions = torch.unique(torch.cat((everyone, test_classes.to(device))), return_inverse=True)
    voters, answers = positions.split((len(everyone), len(test)))
    order = sorted(set(wanted))
    hits = torch.zeros(len(order), 2, dtype=torch.int64, device=device)
    with autocast_off(device):
        nearest = _nearest(train, test, order[-1], chunk_size)
        nearest = [(cosines, rows + sum(counts[: ranks.rank])) for cosines, rows in nearest]
        for (cosines, rows), answer in zip(nearest, torch.split(answers, chunk_size), strict=True):
            hits += _hits(voters[_merged(cosines, rows, order[-1], ranks)], answer, order, len(classes))
    percent = (100.0 * hits.double() / len(test)).tolist()
    accuracy = {k: KNNAccuracy(*row) for k, row in zip(order, percent, strict=True)}
    return {k: accuracy[k] for k in wanted}


def _nearest(train: Tensor, test: Tensor, k: int, chunk_size: int) -> list[tuple[Tensor, Tensor]]:
    """Cosines and indices of the ``k`` most similar training rows, or of all if fewer, by chunk of test rows.

    The bank is read once, a few rows at a time; the similarities to them are freed before the next.
    """
    found: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(train), _BANK_ROWS):
        bank = unit_rows(train[start : start + _BANK_ROWS])
        for i, rows in enumerate(torch.split(test, chunk_size)):
            best, index = (unit_rows(rows.to(bank)) @ bank.T).topk(min(k, len(bank)), dim=1)
            if start == 0:
                found.append((best, index))
            else:
                found[i] = _best(torch.cat((found[i][0], best), 1), torch.cat((found[i][1], index + start), 1), k)
    return found


def _best(cosines: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` candidates ``(n, ·)`` with the largest cosines, largest first."""
    cosines, kept = cosines.topk(min(k, cosines.shape[1]), dim=1)
    return cosines, rows.gather(1, kept)


def _merged(cosines: Tensor, rows: Tensor, k: int, ranks: Ranks) -> Tensor:
    """Indices ``(n, k)`` among the training rows of all ranks, from the candidates of each, with one collective."""
    if not ranks.shared:
        return rows
    found = torch.stack((cosines.double(), rows.double()))  # exact: both fit into float64
    padded = functional.pad(found, (0, k - found.shape[-1]), value=-math.inf)  # a rank may have fewer rows than k
    everyone = ranks.gather(padded.permute(1, 2, 0).reshape(1, -1), [1] * ranks.size)
    cosines, rows = everyone.reshape(ranks.size, len(rows), k, 2).permute(3, 1, 0, 2).flatten(2)
    return _best(cosines, rows, k)[1].long()


def _hits(ballots: Tensor, answer: Tensor, ks: list[int], classes: int) -> Tensor:
    """Top-1 and top-5 hits ``(len(ks), 2)`` from the neighbours' labels ``(n, max k)``, nearest first."""
    answer = answer.unsqueeze(1)
    before = torch.arange(classes, device=ballots.device) < answer
    votes = torch.zeros(len(ballots), classes, dtype=torch.int32, device=ballots.device)
    ones = torch.ones_like(ballots, dtype=torch.int32)
    hits, counted = [], 0
    for k in ks:
        votes.scatter_add_(1, ballots[:, counted:k], ones[:, counted:k])
        counted = k
        own = votes.gather(1, answer)
        rank = ((votes > own) | ((votes == own) & before)).sum(dim=1)
        voted = own.squeeze(1) > 0
        hits.append(torch.stack([(voted & (rank < top)).sum() for top in (1, 5)]))
    return torch.stack(hits)

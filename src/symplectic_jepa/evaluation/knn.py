"""k-nearest-neighbour accuracy of frozen features, for every k from one neighbour search."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._checks import Array
from symplectic_jepa._precision import autocast_off
from symplectic_jepa.evaluation._inputs import labelled, same_width, unit_rows


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

    Features and labels are tensors or numpy arrays.

    Args:
        train_features: ``(N_train, D)``, not normalised; the search runs on its device.
        train_labels: ``(N_train,)`` integer labels, with any values.
        test_features: ``(N_test, D)``, moved chunk by chunk if they live elsewhere.
        test_labels: ``(N_test,)`` integer labels.
        ks: numbers of neighbours, each at most ``N_train``.
        chunk_size: test rows per step; at most ``chunk_size * N_train`` similarities are held at once.

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
    if max(wanted) > len(train):
        raise ValueError(f"each of ks must be at most the {len(train)} training rows, got {max(wanted)}")

    device = train.device
    # Labels become positions among the sorted classes, so "smaller label first" is "smaller position first".
    classes, positions = torch.unique(torch.cat((train_classes, test_classes.to(device))), return_inverse=True)
    voters, answers = positions.split((len(train), len(test)))
    order = sorted(set(wanted))
    hits = torch.zeros(len(order), 2, dtype=torch.int64, device=device)
    with autocast_off(device):
        bank = unit_rows(train)
        chunks = (torch.split(part, chunk_size) for part in (test, answers))
        for rows, answer in zip(*chunks, strict=True):
            nearest = _nearest(rows.to(bank), bank, order[-1])
            hits += _hits(voters[nearest], answer, order, len(classes))
    percent = (100.0 * hits.double() / len(test)).tolist()
    accuracy = {k: KNNAccuracy(*row) for k, row in zip(order, percent, strict=True)}
    return {k: accuracy[k] for k in wanted}


def _nearest(rows: Tensor, bank: Tensor, k: int) -> Tensor:
    """Indices ``(n, k)`` of the most similar rows of the bank; the similarities are freed on return."""
    return (unit_rows(rows) @ bank.T).topk(k, dim=1).indices


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

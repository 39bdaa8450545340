"""Every evaluation takes numpy arrays and features of any scale, and names what it does not take."""

import numpy as np
import pytest
import torch

from symplectic_jepa import evaluation

G = torch.Generator().manual_seed(0)
LABELS = torch.arange(60) % 3
FEATURES = torch.randn(60, 8, generator=G, dtype=torch.float64) + 3 * torch.eye(8, dtype=torch.float64)[LABELS]
CALLS = {
    "knn_sweep": lambda x, y: evaluation.knn_sweep(x[:40], y[:40], x[40:], y[40:], ks=(1, 5)),
    "linear_probe": lambda x, y: evaluation.linear_probe(x[:40], y[:40], x[40:], y[40:], epochs=2)[:2],
    "spectrum": lambda x, y: evaluation.spectrum(x),
    "effective_rank": lambda x, y: evaluation.effective_rank(abs(x)),
    "pair_cosines": lambda x, y: evaluation.pair_cosines(x, pairs=50),
    "feature_norms": lambda x, y: evaluation.feature_norms(x),
    "alignment": lambda x, y: evaluation.alignment(x[:30], x[30:]),
    "uniformity": lambda x, y: evaluation.uniformity(x),
    "symplecticity_defect": lambda x, y: evaluation.symplecticity_defect(lambda z: 2 * z, x),
    "reversibility_error": lambda x, y: evaluation.reversibility_error(lambda z: 2 * z, lambda z: z, x),
    "energy_drift": lambda x, y: evaluation.energy_drift(lambda q, p: q.sum(-1), lambda z: 2 * z, x, steps=1),
}
every = pytest.mark.parametrize("name", CALLS)


@every
def test_arrays_of_every_layout_give_what_tensors_give(name):
    expected = CALLS[name](FEATURES, LABELS)
    x, y = FEATURES.numpy(), LABELS.numpy()
    read_only = x.copy()
    read_only.flags.writeable = False
    for features, labels in ((x, y), (x[::-1][::-1], y.astype(np.int32)), (x.astype(">f8"), y), (read_only, y)):
        torch.testing.assert_close(CALLS[name](features, labels), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"linear_probe"}))  # LayerNorm's eps has a scale
@pytest.mark.parametrize("scale", [1e19, 1e-20, 1e37, 1e-37])
def test_features_of_any_scale_are_measured_alike(name, scale):
    x = FEATURES.float()
    expected, found = CALLS[name](x, LABELS), CALLS[name](x * scale, LABELS)
    if name == "spectrum":
        assert found[1:] == pytest.approx(expected[1:], rel=1e-5)
    elif name in {"feature_norms", "energy_drift"}:  # in the units of the features
        torch.testing.assert_close(found / scale, expected, rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@every
@pytest.mark.parametrize("bad", [None, "features", [[1.0, 2.0]], np.array(["a"]), FEATURES.to_sparse()], ids=str)
def test_other_types_are_named(name, bad):
    call = {
        "knn_sweep": lambda: evaluation.knn_sweep(bad, LABELS, FEATURES, LABELS),
        "linear_probe": lambda: evaluation.linear_probe(FEATURES, LABELS, FEATURES, bad),
        "effective_rank": lambda: evaluation.effective_rank(bad),
        "alignment": lambda: evaluation.alignment(FEATURES, bad),
    }.get(name, lambda: CALLS[name](bad, LABELS))
    with pytest.raises(TypeError, match=r"\w+ must be a (dense )?tensor"):
        call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_effective_rank_has_no_scale(dtype):
    values = torch.tensor([4.0, 4.0, 2.0, 1.0], dtype=dtype)
    expected = evaluation.effective_rank(values)
    for scale in (torch.finfo(dtype).max / 4, torch.finfo(dtype).tiny * torch.finfo(dtype).eps):
        torch.testing.assert_close(evaluation.effective_rank(values * scale), expected, rtol=1e-6, atol=0)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(name, bad):
    x = FEATURES.index_fill(1, torch.tensor([2]), bad)
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
        CALLS[name](x, LABELS)


def test_labels_that_do_not_fit_are_refused():
    huge = LABELS.numpy().astype(np.uint64) + np.uint64(2**63)  # as int64 they would equal LABELS - 2**63
    with pytest.raises(ValueError, match="train_labels must fit into int64"):
        evaluation.knn_sweep(FEATURES, huge, FEATURES, LABELS - 2**63, ks=[1])
    with pytest.raises(ValueError, match="num_classes must be at most 2147483647, got 1099511627779"):
        evaluation.linear_probe(FEATURES, LABELS + 2**40, FEATURES, LABELS)


def test_seeds_that_do_not_fit_are_refused():
    for call in (evaluation.spectrum, evaluation.pair_cosines):
        call(FEATURES, seed=2**63 - 1)
        with pytest.raises(ValueError, match="seed must be at most 9223372036854775807, got 9223372036854775808"):
            call(FEATURES, seed=2**63)


@pytest.mark.parametrize("scale", [1e-5, 1e-20])
def test_a_probe_of_tiny_features_warns(scale):
    with pytest.warns(UserWarning, match="train_features are at most .*, small against LayerNorm's eps"):
        evaluation.linear_probe(FEATURES * scale, LABELS, FEATURES, LABELS, epochs=1)


def test_a_probe_that_measures_nothing_raises():
    with pytest.raises(FloatingPointError, match=r"diverged to NaN or infinity, with lr=1e\+38"):
        evaluation.linear_probe(FEATURES, LABELS, FEATURES, LABELS, epochs=2, lr=1e38, weight_decay=1e3)
    with pytest.raises(ValueError, match=r"test_features must not exceed 1e\+15 for LayerNorm in float32, got"):
        evaluation.linear_probe(FEATURES, LABELS, FEATURES * 1e19, LABELS)

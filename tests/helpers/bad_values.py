"""Bad values for an argument of each kind, by label, derived from a valid one where that helps."""

import math

import torch
from torch import nn

HUGE = 2**70
NOT_A_NUMBER = {"None": None, "word": "3", "complex": 1j, "list": [1], "bool": True, "tensor": torch.ones(2, 3)}


def integer(_):
    """An int of at least 1."""
    return NOT_A_NUMBER | {"0": 0, "-1": -1, "1.5": 1.5, "NaN": math.nan, "huge": HUGE}


def depth(_):
    """A number of layers: they are built one by one, so a million would take minutes."""
    return integer(_) | {"million": 10**6}


def seed(_):
    """An int of at least 0."""
    return NOT_A_NUMBER | {"-1": -1, "1.5": 1.5, "huge": 10**400}


def number(_):
    """Any finite number."""
    return NOT_A_NUMBER | {"NaN": math.nan, "inf": math.inf, "huge": 10**400}


def nonnegative(_):
    """A finite number of at least 0."""
    return number(_) | {"-1": -1.0}


def positive(_):
    """A finite number above 0."""
    return nonnegative(_) | {"0": 0.0}


def fraction(_):
    """A number from 0 to 1."""
    return nonnegative(_) | {"2": 2.0}


def share(_):
    """A number above 0 and at most 1."""
    return fraction(_) | {"0": 0.0}


def flag(_):
    """A bool."""
    return {"word": "no", "1": 1, "None": None, "list": [], "tensor": torch.ones(2)}


def option(value):
    """One of a few words."""
    return {"misspelt": value + "x", "None": None, "3": 3, "list": [value], "dict": {}, "tensor": torch.ones(2)}


def module(value):
    """An object of one of our classes."""
    wrong = {"None": None, "word": "x", "class": type(value), "number": 3, "list": [value], "tensor": torch.ones(2)}
    return wrong | {"lambda": lambda *x: x, "other module": nn.ReLU()}


def function(_):
    """A module or a function."""
    return {"None": None, "word": "x", "number": 3, "list": [nn.ReLU()], "tensor": torch.ones(2), "class": nn.ReLU}


def mapping(value):
    """A dict of modules by name."""
    item = next(iter(value.values()))
    named = {
        "None": None,
        "of words": {"a": "x"},
        "of None": {"a": None},
        "of classes": {"a": type(item)},
        "of numbers": {3: item},
    }
    return named | {
        "list": [item],
        "word": "x",
        "number": 3,
        "item": item,
        "dotted": {"a.b": item},
        "taken": {"keys": item},
        "empty name": {"": item},
    }


def pair(_):
    """A size, or a pair of sizes."""
    wrong = {"0": 0, "-1": -1, "1.5": 1.5, "word": "8", "bool": True, "huge": HUGE, "tensor": torch.ones(2)}
    return wrong | {"one": (2,), "three": (2, 2, 2), "zero side": (0, 2), "words": ("2", "2"), "floats": (2.0, 2.0)}


def direction(_):
    """1, -1, or a sequence of these."""
    tensors = {"tensor": torch.tensor(1), "tensors": torch.ones(2)}
    return tensors | {"None": None, "0": 0, "2": 2, "1.0": 1.0, "word": "forward", "bool": True, "short": (1, -1)}


def string(_):
    """Any string."""
    return {"None": None, "number": 3, "list": ["x"], "bytes": b"x"}


def group(_):
    """A process group, a device mesh or ``None``."""
    return {"word": "x", "rank": 0, "list": [0]}


def float_type(_):
    """A floating-point dtype."""
    return {"None": None, "word": "float32", "int": torch.int64, "class": float}


def neighbours(_):
    """A sequence of ints from 1 to the number of rows."""
    wrong = {"None": None, "empty": (), "0": (0,), "many": (1, 99), "huge": (HUGE,)}
    return wrong | {"word": "1", "number": 3, "words": ("1",), "floats": (1.0,)}


def coefficients(_):
    """A tuple of numbers that sum to 1."""
    wrong = {"None": None, "number": 1.0, "word": "1", "empty": (), "words": ("0.5", "0.5"), "NaN": (math.nan, 1.0)}
    return wrong | {"half": (0.25, 0.25), "huge": (10**400, 1.0), "tensor": torch.ones(1), "long": (0.25,) * 4}


def weights(_):
    """Of several non-negative numbers, not all 0."""
    wrong = {"number": 3, "word": "1", "words": ("1",), "flag": (True,), "None inside": (None,)}
    return wrong | {"none": (), "long": (1.0, 1.0), "zero": (0.0,), "negative": (-1.0,), "NaN": (math.nan,)}


def _not_tensors(x):
    return {"None": None, "word": "x", "number": 3, "list": x.tolist(), "numpy": x.detach().numpy()}


def _no_floats(x):
    return {
        "int": x.long(),
        "bool": x > 0,
        "complex": x.cfloat(),
        "sparse": x.to_sparse(),
        "scalar": x.sum(),
        "empty": x[..., :0],
    }


def states(x):
    """A floating tensor ``(..., d)`` whose last dimension is known, that meets other tensors."""
    wider = torch.cat((x, x[..., :1]), -1)
    return _not_tensors(x) | _no_floats(x) | {"wider": wider, "meta": x.to("meta")}


def alone(x):
    """A floating tensor ``(..., d)`` that meets no other tensor: on the meta device it gives shapes."""
    return {k: v for k, v in states(x).items() if k not in ("meta", "wider")}


def inner(x):
    """A floating tensor that meets no other, of any shape."""
    return {k: v for k, v in alone(x).items() if k not in ("scalar", "empty")}


def views(x):
    """States ``(V, B, D)`` of two views, which a predictor with weights reads."""
    return states(x) | {"one view": x[:1], "no batch": x[0], "no rows": x[:, :0]}


def samples(x):
    """A floating tensor ``(..., N, D)`` of any width."""
    return alone(x) | {"vector": x[..., 0, :].flatten(), "no rows": x[..., :0, :]}


def step(x):
    """A number or a floating tensor of step sizes."""
    wrong = {k: v for k, v in number(x).items() if k != "tensor"}
    return wrong | {"int tensor": torch.tensor(1), "complex tensor": torch.tensor(1j), "matrix": torch.ones(7, 3)}


def columns(x):
    """A floating matrix ``(D, k)`` with one row per coordinate of samples."""
    return {k: v for k, v in states(x).items() if k != "wider"} | {"few rows": x[:-1]}


def covariance(x):
    """A floating matrix ``(..., k, k)`` whose values are not checked."""
    return samples(x) | {"not square": x[:2]}


def diagonal(x):
    """A positive floating vector."""
    return alone(x) | {"negative": -x, "NaN": x * math.nan, "matrix": torch.ones(2, 2)}


def features(x):
    """A finite floating tensor or array ``(N, D)``."""
    nan, inf = x.clone(), x.clone()
    nan[..., -1, -1], inf[..., 0, 0] = math.nan, math.inf
    numpy = x.numpy()
    arrays = {"objects": numpy.astype(object), "words": numpy.astype(str), "integers": numpy.astype(int)}
    dense = {k: v for k, v in samples(x).items() if k != "numpy"}
    return dense | arrays | {"NaN": nan, "inf": inf, "meta": x.to("meta"), "complex array": numpy.astype(complex)}


def labels(x):
    """Integer classes ``(N,)``, a tensor or an array."""
    wrong = {"None": None, "word": "x", "list": x.tolist(), "scalar": x[0], "short": x[:-1], "column": x[:, None]}
    return wrong | {
        "floating": x.float(),
        "bool": x > 0,
        "complex": x.cfloat(),
        "meta": x.to("meta"),
        "words": x.numpy().astype(str),
    }


def matrix(x):
    """A symmetric positive definite floating matrix ``(d, d)``, a tensor or an array."""
    skew = x + torch.eye(len(x), dtype=x.dtype).roll(1, 0)
    return features(x) | {"not square": x[:-1], "skew": skew, "negative": -x}


def spectrum(x):
    """Finite floating eigenvalues ``(..., n)``, a tensor or an array."""
    return {k: v for k, v in features(x[None]).items() if k not in ("no rows", "vector")}


def quantity(_):
    """A finite positive number, or a tensor of them."""
    wrong = {"None": None, "word": "3", "list": [1.0], "complex": 1j, "bool": True, "huge": 10**400}
    shaped = {"meta": torch.ones((), device="meta"), "bools": torch.tensor(True)}
    return wrong | shaped | {"NaN": math.nan, "inf": math.inf, "sparse": torch.ones(1).to_sparse()}


def unmatched(_):
    """Only a shape that does not broadcast to the other arguments'."""
    return {"three": torch.full((3,), 2.0), "matrix": torch.full((1, 3), 2.0)}


def misfit(x):
    """Only leading dimensions that do not broadcast to two others', or another last dimension."""
    return {"three": x.expand(3, *x.shape), "smaller": x[..., :2, :2]}


def positive_quantity(x):
    """A finite positive number, or a tensor of them."""
    return quantity(x) | {"0": 0.0, "-1": -1.0, "-1 tensor": torch.tensor(-1.0)}


def without(kind, *accepted):
    """The kind, with fewer bad values: these ones are accepted."""

    def fewer(value):
        values = kind(value)
        assert values.keys() >= set(accepted)
        return {k: v for k, v in values.items() if k not in accepted}

    return fewer


def optional(kind):
    """The kind, with ``None`` accepted."""
    return without(kind, "None")

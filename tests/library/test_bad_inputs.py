"""Every public callable refuses bad values of each argument, with an error of ours that names the argument."""

import inspect

import pytest

import symplectic_jepa as sj
from tests.helpers.calls import CALLS
from tests.helpers.calls.fault import fault

# Base classes, results, and what has its own test: files, and functions for those who write a regularizer.
ELSEWHERE = {
    "AbstractSeparable", "BatchRegularizer", "ConditionalDistribution", "Geometry", "Hamiltonian", "IdentityGeometry",
    "Integrator", "IsotropyReport", "KNNAccuracy", "KickDriftScaling", "Measured", "ObjectiveOutput", "PredictionLoss",
    "Predictor", "ProbeResult", "QuadraticLift", "Ranks", "Reduction", "Spectrum", "StateParts", "SteppedPredictor",
    "TokenGridGeometry", "load_reference_checkpoint", "reduce_all",
}  # fmt: skip


def bad_inputs(call):
    """``(argument, label, value)`` of every bad input of a call."""
    return [
        (name, label, value)
        for name, (valid, kind) in call.arguments.items()
        if kind is not None
        for label, value in kind(valid).items()
    ]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_bad_values_are_refused_by_name(call):
    valid = {name: value for name, (value, _) in call.arguments.items()}
    call.function(**valid)
    faults = {
        f"{name}={label}": fault(call.function, valid | {name: value}, name) for name, label, value in bad_inputs(call)
    }
    assert {key: found for key, found in faults.items() if found} == {}


def test_every_public_callable_is_in_the_table():
    assert sum(len(bad_inputs(call)) for call in CALLS.values()) > 5000
    spaces = [sj, *(getattr(sj, name) for name in sj.__all__ if inspect.ismodule(getattr(sj, name)))]
    public = {
        name
        for space in spaces
        for name, value in vars(space).items()
        if callable(value) and not name.startswith("_") and value.__module__.startswith("symplectic_jepa")
    }
    assert public - CALLS.keys() == ELSEWHERE


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_argument_is_in_the_table(call):
    parameters = inspect.signature(call.function).parameters.values()
    named = {x.name for x in parameters if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)}
    assert named <= call.arguments.keys()

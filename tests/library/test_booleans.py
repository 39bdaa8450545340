"""Every bool argument of every public name refuses words, numbers and None: Python would count ``"no"`` as true."""

import inspect

import pytest
import torch

import symplectic_jepa as sj

H = sj.SeparableHamiltonian(4, hidden_dim=4)
NEEDED = {  # arguments without a default, by name
    "predictor": sj.HamiltonianPredictor(H),
    "prediction": sj.HamJEPAObjective(sj.HamiltonianPredictor(H)).prediction,
    "hamiltonian": H,
    "damping": 0.5,
    "dim": 4,
    "geometry": sj.geometries.DiagonalGeometry(torch.ones(8)),
    "repo_id": "user/name",
    "process_group": None,
    "match": "q",
    "p_weight": 0.0,
    "energy_weight": 0.0,
    "bidirectional": True,
    "reverse_time": True,
    "detach_target": True,
    "horizon": 1,
    "starts": "every",
    "horizon_weights": None,
}
SPACES = [sj, *(x for x in map(vars(sj).get, sj.__all__) if inspect.ismodule(x))]
PUBLIC = {
    name: value
    for space in SPACES
    for name, value in vars(space).items()
    if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
} | {name: getattr(H, name) for name in ("push_to_hub", "from_pretrained")}
BOOLS = [
    (name, argument.name)
    for name, value in PUBLIC.items()
    if not inspect.isabstract(value)
    for argument in inspect.signature(value).parameters.values()
    if str(argument.annotation) in ("bool", "bool | None")
]


def test_the_arguments_are_found():
    found = {argument for _, argument in BOOLS}
    assert {"sync", "detach_target", "learn_mass", "learn_dt", "bias_correction", "allow_nonfinite"} <= found


@pytest.mark.parametrize("bad", ["no", "", 1, 0.0, None])
@pytest.mark.parametrize(("name", "argument"), BOOLS)
def test_a_word_is_not_a_boolean(name, argument, bad):
    if argument == "private" and bad is None:
        return
    function = PUBLIC[name]
    parameters = inspect.signature(function).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD]
    given = {key: NEEDED[key] for key in required if key not in {argument, "source"}}
    if "SpectralFloors" in name:
        given["log_det"] = -1.0
    source = ["nowhere"] if "source" in required else []
    with pytest.raises(ValueError, match=f"{argument} must be True or False, got {bad!r}"):
        function(*source, **{**given, argument: bad})

"""The public surface."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import symplectic_jepa
from docs.helpers.components import REGULARIZERS
from docs.helpers.generate import COMMITTED
from tests.helpers.paths import ROOT

CONTRACT = """
SeparableHamiltonian QuadraticHamiltonian PotentialHamiltonian leapfrog symplectic_euler HamiltonianPredictor
ResidualMLPPredictor PhaseSpaceTokenEncoder split_state join_state EnergyBudget VarianceFloor MeanPenalty
ProjectedLogDetFloor ParticipationRatioFloor TopEigenvalueCeiling SIGReg HamJEPAObjective LeJEPAObjective
SymplecticNetPredictor
"""


NAMESPACES = [m for m in vars(symplectic_jepa).values() if inspect.ismodule(m) and m.__name__.count(".") == 1]
NAMESPACES = [symplectic_jepa, *(m for m in NAMESPACES if m.__name__.rpartition(".")[2] in symplectic_jepa.__all__)]


def public(module=symplectic_jepa):
    own = {n: v for n, v in vars(module).items() if not n.startswith("_") and not inspect.ismodule(v)}
    return {n: v for n, v in own.items() if getattr(v, "__module__", "symplectic_jepa").startswith("symplectic_jepa")}


def test_every_promised_name_is_there():
    assert set(CONTRACT.split()) <= set(public())


@pytest.mark.parametrize("module", NAMESPACES, ids=lambda m: m.__name__)
def test_every_public_name_and_method_has_a_docstring(module):
    for name, value in public(module).items():
        if callable(value):
            assert inspect.getdoc(value), name
        else:
            assert name == "SPLITTINGS", "describe it beneath its definition, and name it here"
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert function.__doc__, f"{name}.{method}"


# Results, interfaces and plumbing: they compute nothing that was published.
WITHOUT_SOURCE = """
KNNAccuracy ProbeResult Spectrum ObjectiveOutput ConditionalDistribution KickDriftScaling IsotropyReport QuadraticLift
Integrator Geometry RadialGeometry BatchRegularizer Reduction Pretrained
hold_draws advance_draws set_step reduce_all Measured Ranks StateParts PredictionLoss mean_over_samples
orthonormal_projection unit_directions load_reference_checkpoint
"""


@pytest.mark.parametrize("module", NAMESPACES, ids=lambda m: m.__name__)
def test_public_docstrings_give_the_equation_and_its_source(module):
    for name, value in public(module).items():
        if callable(value) and name not in WITHOUT_SOURCE.split():
            text = inspect.getdoc(value)
            assert re.search(r"\[[^\]]*(paper, |arXiv:|\(?(19|20)\d\d)[^\]]*\]|[A-Z]\w+ \((19|20)\d\d\)", text), name
            assert "``" in text, name


def test_every_module_documents_the_shapes_that_it_maps():
    for name, value in public().items():
        forward = getattr(value, "forward", None)
        if inspect.isclass(value) and getattr(forward, "__module__", "").startswith("symplectic_jepa"):
            text = f"{inspect.getdoc(value)} {inspect.getdoc(forward)}"
            assert re.search(r"\((\.\.\.|…|[A-Z]|2), ?[^)]*\)|\(\.\.\.\)", text), name


def test_import_brings_itself_and_einops_beyond_torch():
    """So it is quick: `python -X importtime` said 0.06 to 0.08 s beyond torch, no torchvision, matplotlib or kornia."""
    new = "{name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)"
    code = f"import sys, torch; before = set(sys.modules); import symplectic_jepa; print(*sorted({new}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) <= {"einops", "numpy", "symplectic_jepa", "typing_extensions"}


ROOMS = {  # room: the rooms that it may import
    "state": set(),
    "pretrained": set(),
    "reference_checkpoint": {"encoders", "hamiltonians", "predictors"},
    "distributed": set(),
    "hamiltonians": {"geometries"},
    "geometries": set(),
    "regularizers": {"distributed", "geometries"},
    "theory": set(),
    "encoders": {"state"},
    "evaluation": {"distributed", "state"},
    "integrators": {"hamiltonians"},
    "predictors": {"hamiltonians", "integrators", "state"},
    "objectives": {"distributed", "predictors", "regularizers", "state"},
}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_downwards_only(room):
    package = Path(symplectic_jepa.__file__).parent
    files = [*package.glob(f"{room}.py"), *package.glob(f"{room}/*.py")]
    assert files
    text = "".join(file.read_text() for file in files)
    imported = set(re.findall(r"^\s*from symplectic_jepa\.([a-z]\w*)", text, re.MULTILINE))
    assert imported - {room, "pretrained"} <= ROOMS[room]  # that mixin lies beneath all rooms


@pytest.mark.parametrize("page", COMMITTED)
def test_generated_pages_are_current(page):
    assert (ROOT / "docs" / page).read_text() == COMMITTED[page](), "run: python -m docs.helpers.generate"


def test_the_table_of_components_is_complete():
    regularizers = {
        name
        for name, value in public(symplectic_jepa.regularizers).items()
        if inspect.isclass(value) and issubclass(value, symplectic_jepa.regularizers.BatchRegularizer)
    }
    assert set(REGULARIZERS) == regularizers - {"BatchRegularizer"}

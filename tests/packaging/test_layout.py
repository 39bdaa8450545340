"""Who imports whom: tests import helpers, never one another; the study's rooms import downwards, in no circle."""

import ast
from graphlib import TopologicalSorter

from tests.helpers.paths import ROOT


def imported(source):
    """Dotted names of everything that a source imports, at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{name.name}" for name in node.names)


def test_imports_are_found_in_every_form():
    source = "import a.b\ndef f():\n    from c import d, e\n    from .g import h\n    from . import i\n"
    assert list(imported(source)) == ["a.b", "c.d", "c.e", ".g.h", "..i"]


def is_test_module(name):
    return name.startswith(".") or any(part.startswith("test_") or part == "conftest" for part in name.split("."))


def test_no_test_module_is_imported():
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("tests/**/*.py")}
    found = {name for source in sources.values() for name in imported(source)}
    assert "tests.helpers.paths.ROOT" in found
    assert [(path, name) for path, source in sources.items() for name in imported(source) if is_test_module(name)] == []


ROOMS = ("system", "worlds", "physics", "recipe", "images", "model", "measurement", "training", "paper")  # from below


def height(module):
    """Of a module's room; a command or a single-file example stands above all."""
    return ROOMS.index(module.split(".")[1]) if module.count(".") > 1 else len(ROOMS)


def test_rooms_of_the_study_import_downwards_by_few_arrows_and_files_in_no_circle():
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.glob("examples/**/*.py")}
    sources = {name: path.read_text() for name, path in files.items() if path.name != "__init__.py"}
    arrows = {
        name: {x for found in imported(source) for x in (found, found.rpartition(".")[0]) if x in sources}
        for name, source in sources.items()
    }
    assert {height(name) for name in arrows} == set(range(len(ROOMS) + 1))
    assert sum(map(len, arrows.values())) > 50
    between = {(height(a), height(b)) for a, others in arrows.items() for b in others}
    assert all(a >= b < len(ROOMS) for a, b in between)
    assert len({(a, b) for a, b in between if b < a < len(ROOMS)}) <= 19  # as many as in the trial move
    list(TopologicalSorter(arrows).static_order())  # raises CycleError, which names the circle

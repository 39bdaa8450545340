"""Who imports whom: tests import helpers, never one another; rooms import one another in no circle."""

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


def arrows(package, folder):
    """Room: the rooms that its files import. A room is a folder, or a module beside the folders."""
    graph = {}
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).with_suffix("").parts[0]
        names = [name.split(".") for name in imported(path.read_text())]
        graph.setdefault(room, set()).update(n[1] for n in names if n[0] == package and len(n) > 1)
    return {room: {other for other in others if other in graph} - {room} for room, others in graph.items()}


def test_rooms_of_the_library_have_no_circle():
    order = list(TopologicalSorter(arrows("symplectic_jepa", ROOT / "src/symplectic_jepa")).static_order())
    assert order[-1] == "__init__"  # the front door, which nothing imports


def test_rooms_of_the_study_have_no_circle_and_few_arrows():
    graph = arrows("examples", ROOT / "examples")
    order = list(TopologicalSorter(graph).static_order())
    rooms = {room for room in graph if (ROOT / "examples" / room).is_dir()}
    assert {"recipe", "images", "model", "training", "measurement", "paper"} <= rooms
    assert order.index("recipe") < order.index("model") < order.index("training") < order.index("paper")
    assert sum(len(graph[room] & rooms) for room in rooms) <= 19

"""The rooms of the study: every import between two of them points down, and no two files need each other."""

import ast
from graphlib import TopologicalSorter

from tests.helpers.paths import ROOT

ROOMS = ("system", "recipe", "images", "model", "measurement", "training", "paper")  # from below
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "examples").rglob("*.py"))
    if path.name != "__init__.py"
}


def imported(path):
    """Names that a file imports from ``examples``, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: no relative imports"
            yield from (name for a in node.names for name in (f"{node.module}.{a.name}", node.module) if name in FILES)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)


def room(name):
    """The height of a module's room; a command or a single-file example stands above all."""
    return ROOMS.index(name.split(".")[1]) if name.count(".") > 1 else len(ROOMS)


ARROWS = {name: set(imported(path)) for name, path in FILES.items()}


def test_no_file_imports_a_room_above_or_another_command():
    assert {room(name) for name in FILES} == set(range(len(ROOMS) + 1))
    assert sum(map(len, ARROWS.values())) > 50
    wrong = [(a, b) for a, targets in ARROWS.items() for b in targets if room(b) > room(a) or room(b) == len(ROOMS)]
    assert wrong == []


def test_no_circle_of_files_and_few_arrows_between_rooms():
    list(TopologicalSorter(ARROWS).static_order())  # raises CycleError, which names the circle
    between = {(room(a), room(b)) for a, targets in ARROWS.items() for b in targets if room(a) != room(b) < len(ROOMS)}
    assert len({(a, b) for a, b in between if a < len(ROOMS)}) <= 19  # as many as in the trial move

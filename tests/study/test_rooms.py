"""The rooms of the study: every arrow between two of them points down, and no two files need each other."""

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
    """Modules of ``examples`` that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "examples":
            assert node.level == 0, path
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "examples")


ARROWS = {name: sorted(set(imported(path))) for name, path in FILES.items()}


def room(name):
    """The room of a module; a command or an example stands above all."""
    parts = name.split(".")
    return ROOMS.index(parts[1]) if len(parts) > 2 else len(ROOMS)


def test_every_file_stands_in_a_room_and_every_import_finds_one():
    assert {name.split(".")[1] for name in FILES if name.count(".") > 1} == set(ROOMS)
    assert {target for targets in ARROWS.values() for target in targets} <= FILES.keys()


def test_no_file_imports_a_room_above():
    upward = [(name, target) for name, targets in ARROWS.items() for target in targets if room(target) > room(name)]
    assert upward == []


def test_rooms_and_files_have_no_circle_and_few_arrows():
    list(TopologicalSorter(ARROWS).static_order())  # raises CycleError, naming it
    between = {(room(a), room(b)) for a, targets in ARROWS.items() for b in targets if room(a) != room(b)}
    assert len({(a, b) for a, b in between if a < len(ROOMS)}) <= 20


def test_commands_do_not_import_each_other():
    assert not [(a, b) for a, targets in ARROWS.items() for b in targets if room(a) == room(b) == len(ROOMS)]

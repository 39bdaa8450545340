"""Every generated page, in one place. ``python -m docs.helpers.generate`` rewrites those that the repository keeps."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import symplectic_jepa
from docs.helpers import components, recipes, scale_out
from symplectic_jepa import pretrained

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"

# Pages of ``docs/`` that are committed, so that they can be read without building the site. A test keeps them current.
COMMITTED: dict[str, Callable[[], str]] = {
    "components.md": components.page,
    "recipes.md": recipes.page,
    "scale-out.md": scale_out.page,
}


def main() -> None:
    """Rewrite the committed pages."""
    for name, page in COMMITTED.items():
        (ROOT / "docs" / name).write_text(page())


def site_only() -> dict[str, str | Path]:
    """Pages and figures that exist only on the site: their text, or the repository's file that they show."""
    pages: dict[str, str | Path] = {f"reference/{module}.md": text for module, text in reference().items()}
    pages |= {f"{name}.md": ROOT / f"{name.upper()}.md" for name in ("changelog", "contributing")}
    files = (path for path in RESULTS.rglob("*") if path.suffix in (".md", ".png", ".gif", ".json"))
    return pages | {f"results/{path.relative_to(RESULTS).as_posix()}": path for path in files}


def reference() -> dict[str, str]:
    """One page of the API reference for each module or package, with every public name under its import path."""
    found: dict[str, list[str]] = defaultdict(list)
    seen: set[int] = set()
    spaces = [x for name in symplectic_jepa.__all__ if inspect.ismodule(x := getattr(symplectic_jepa, name))]
    names = [(space, name) for space in (symplectic_jepa, *spaces) for name in vars(space)]
    for module, name in [*names, (pretrained, "Pretrained")]:
        value = getattr(module, name)
        ours = getattr(value, "__module__", "symplectic_jepa").startswith("symplectic_jepa")
        if name.startswith("_") or inspect.ismodule(value) or not ours or id(value) in seen:
            continue
        seen.add(id(value))
        found[_home(value)].append(f"::: {module.__name__}.{name}")
    titles = {module: module.capitalize().replace("_", " ") for module in found}
    return {module: f"# {titles[module]}\n\n" + "\n\n".join(names) + "\n" for module, names in found.items()}


def _home(value: Any) -> str:
    """The second part of the name of the module that defines a class, a function or the class of an object."""
    module: str = value.__module__ if hasattr(value, "__module__") else type(value).__module__
    if not module.startswith("symplectic_jepa."):  # SPLITTINGS, a mapping
        return "integrators"
    return module.split(".")[1]


if __name__ == "__main__":
    main()

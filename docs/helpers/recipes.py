"""The table at the end of ``docs/recipes.md``, from the recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from examples.recipe.schema import Recipe, load_recipe
from examples.recipe.text import flat

PAGE = Path(__file__).parents[1] / "recipes.md"
MARK = "<!-- Generated from here on by `python -m docs.helpers.generate`; a test keeps it current. -->\n"
COLUMNS = ("imagenet100", "textures")  # cifar100 is the default; the page shows apart what imagenet100-text changes


def page() -> str:
    """The page as it stands, up to the mark, and the table of today's recipes.

    Raises:
        ValueError: if the CIFAR-100 recipe is not the default any more and needs a column.
    """
    if load_recipe("cifar100") != Recipe():
        raise ValueError("cifar100 must be the default recipe, or have a column of its own in docs/helpers/recipes.py")
    written, mark, _ = PAGE.read_text().partition(MARK)
    default = flat(Recipe().model_dump())
    recipes = [flat(load_recipe(name).model_dump()) for name in COLUMNS]
    lines = [f"| setting | default, cifar100 | {' | '.join(COLUMNS)} |", "| --- |" + " --- |" * (len(COLUMNS) + 1)]
    for key, value in default.items():
        cells = [_cell(r[key]) if r[key] == value else f"**{_cell(r[key])}**" for r in recipes]
        lines.append(f"| `{key}` | {' | '.join([_cell(value), *cells])} |")
    return written + mark + "\n" + "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return ", ".join(map(_cell, value))
    return value if isinstance(value, str) else json.dumps(value)

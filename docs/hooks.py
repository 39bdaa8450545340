"""Pages that are made from the code and the repository: the reference, the results, changelog and contributing."""

from __future__ import annotations

import inspect
import posixpath
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import symplectic_jepa
from docs.drawing import STYLE
from symplectic_jepa import pretrained

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PLACES = {"docs/": "", "benchmarks/results/": "results/"}  # folders of the repository, and where the site has them


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let every figure that a page draws look alike, and every number be the same whatever the machine is doing."""
    torch.set_num_threads(1)
    mpl.use("agg")
    mpl.rcParams.update(STYLE)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not written by hand."""
    for room, names in rooms().items():
        text = f"# {room.capitalize()}\n\n" + "\n\n".join(f"::: {name}" for name in names) + "\n"
        files.append(File.generated(config, f"reference/{room}.md", content=text))
    for name in ("changelog", "contributing"):
        files.append(File.generated(config, f"{name}.md", abs_src_path=str(ROOT / f"{name.upper()}.md")))
    for path in RESULTS.rglob("*"):
        if path.suffix in (".md", ".png", ".gif", ".json"):
            target = f"results/{path.relative_to(RESULTS).as_posix()}"
            files.append(File.generated(config, target, abs_src_path=str(path)))
    return files


def rooms() -> dict[str, list[str]]:
    """Public names, each as it is imported, by the room of the house that it lives in."""
    found: dict[str, list[str]] = defaultdict(list)
    seen: set[int] = set()
    spaces = [x for name in symplectic_jepa.__all__ if inspect.ismodule(x := getattr(symplectic_jepa, name))]
    for module in (symplectic_jepa, *spaces, pretrained):
        for name, value in vars(module).items():
            ours = getattr(value, "__module__", "symplectic_jepa").startswith("symplectic_jepa")
            if name.startswith("_") or inspect.ismodule(value) or not ours or id(value) in seen:
                continue
            seen.add(id(value))
            found[room_of(value)].append(f"{module.__name__}.{name}")
    return found


def room_of(value: Any) -> str:
    """The second part of the name of the module that defines a class, a function or the class of an object."""
    module: str = value.__module__ if hasattr(value, "__module__") else type(value).__module__
    if not module.startswith("symplectic_jepa."):  # SPLITTINGS, a mapping
        return "integrators"
    return module.split(".")[1]


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Links that leave ``docs/`` lead to the page of what they name, or become its path: no public home is known."""
    source = page.file.abs_src_path
    if source is None:  # made from nothing but the code
        return markdown
    folder = Path(source).parent.relative_to(ROOT).as_posix()
    here = posixpath.dirname(page.file.src_uri)

    def translate(link: re.Match[str]) -> str:
        text, target = link.groups()
        path, anchor, name = posixpath.normpath(f"{folder}/{target}").partition("#")
        for outside, inside in PLACES.items():
            if path.startswith(outside):
                return f"[{text}]({posixpath.relpath(inside + path.removeprefix(outside), here)}{anchor}{name})"
        return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"

    return re.sub(r"\[([^\]]*)\]\(([\w./-]+\.(?:md|py|yaml|json|png|gif)(?:#[\w-]+)?)\)", translate, markdown)

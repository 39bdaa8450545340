"""MkDocs hooks: the look of the figures, the generated pages, and links that leave ``docs/``."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.helpers.drawing import STYLE
from docs.helpers.generate import ROOT, site_only

PLACES = {"docs/": "", "benchmarks/results/": "results/"}  # folders of the repository, and where the site has them


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make all figures look alike, and every number independent of the machine's load."""
    torch.set_num_threads(1)
    mpl.use("agg")
    mpl.rcParams.update(STYLE)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that exist only on the site."""
    for name, source in site_only().items():
        given = {"abs_src_path": str(source)} if isinstance(source, Path) else {"content": source}
        files.append(File.generated(config, name, **given))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Point links that leave ``docs/`` to the site's page of that file, or replace them by the file's path.

    The repository has no public home yet, so there is no address to link to.
    """
    source = page.file.abs_src_path
    if source is None:  # generated from the code alone
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

"""The site builds without a warning, has a place for every public name, and loads nothing from elsewhere."""

import inspect
import re
from pathlib import Path

import pytest

import symplectic_jepa
from symplectic_jepa import theory

from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def pages(site):
    return {str(path.relative_to(site)): path.read_text() for path in site.rglob("*.html")}


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ('```python exec="true"\n1 / 0\n```', "ZeroDivisionError"),
        ("[a page](nowhere.md)", "nowhere.md"),
        ("[a heading](#nowhere)", "#nowhere"),
        ("[`a name`][symplectic_jepa.nowhere]", "symplectic_jepa.nowhere"),
        ("::: symplectic_jepa.nowhere", "symplectic_jepa.nowhere"),
    ],
)
def test_what_is_wrong_with_a_page_fails_the_build(page, complaint, build_site, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# Page\n\n{page}\n")
    config = tmp_path / "mkdocs.yml"
    own = f"docs_dir: {tmp_path / 'docs'}\nhooks: []\nextra_css: []\nextra_javascript: []\nnav: [index.md]\n"
    config.write_text(f"INHERIT: {ROOT / 'mkdocs.yml'}\n{own}")
    result = build_site(tmp_path / "site", "--config-file", str(config))
    assert result.returncode == 1
    assert complaint in result.stderr


def test_every_public_name_has_its_place_in_the_reference(pages):
    reference = "".join(text for name, text in pages.items() if name.startswith("reference/"))
    places = set(re.findall(r'id="(symplectic_jepa[\w.]*)"', reference))
    for module in (symplectic_jepa, theory):
        for name, value in vars(module).items():
            if not name.startswith("_") and not inspect.ismodule(value):
                assert f"{module.__name__}.{name}" in places


def test_nothing_is_loaded_from_a_foreign_host(pages, site):
    texts = pages | {str(path.relative_to(site)): path.read_text() for path in site.rglob("*.css")}
    for name, text in texts.items():
        loaded = re.findall(r"""<(?:script|img|iframe)[^>]*\ssrc=["']([^"']*)""", text)
        loaded += re.findall(r"""<link[^>]*rel=["'](?:stylesheet|icon|preload)["'][^>]*href=["']([^"']*)""", text)
        if name.endswith(".css"):
            loaded += re.findall(r"""(?:url\(|@import )["']?([^"')]*)""", text)
        assert not [url for url in loaded if url.startswith(("http:", "https:", "//"))], name


def test_pages_of_results_show_their_figures(pages):
    assert 'src="cifar100-10classes/readouts.png"' in pages["results/cpu-10/report/index.html"].replace("../", "")
    assert 'src="../results/cpu-10/cifar100-10classes/portrait.gif"' in pages["method/index.html"]

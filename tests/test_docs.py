"""The site builds without a warning, has a place for every public name, and loads nothing from elsewhere."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import symplectic_jepa
from symplectic_jepa import theory

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.html")}


def test_every_public_name_has_its_place_in_the_reference(site):
    reference = "".join(text for name, text in site.items() if name.startswith("reference/"))
    places = set(re.findall(r'id="(symplectic_jepa[\w.]*)"', reference))
    for module in (symplectic_jepa, theory):
        for name, value in vars(module).items():
            if not name.startswith("_") and not inspect.ismodule(value):
                assert f"{module.__name__}.{name}" in places


def test_nothing_is_loaded_from_a_foreign_host(site):
    for name, text in site.items():
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]*)"', text)
        loaded += re.findall(r'<link[^>]*rel="(?:stylesheet|icon|preload)"[^>]*href="([^"]*)"', text)
        assert not [url for url in loaded if url.startswith(("http:", "https:", "//"))], name


def test_pages_of_results_show_their_figures(site):
    assert 'src="cifar100-10classes/readouts.png"' in site["results/cpu-10/report/index.html"].replace("../", "")
    assert 'src="results/cpu-10/cifar100-10classes/portrait.gif"' in site["index.html"]

"""What README shows is what happens."""

import re

import pytest

from tests.helpers.paths import ROOT

PAGES = [
    "README.md",
    "examples/README.md",
    "CONTRIBUTING.md",
    *(str(p.relative_to(ROOT)) for p in [*ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")]),
]
SNIPPETS = [
    pytest.param(code, id=f"{page}-{i}", marks=[pytest.mark.slow] if page == "docs/performance.md" else [])
    for page in PAGES
    if page != "docs/integrations.md"  # test_integrations.py runs those, and looks at what they leave behind
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
]


@pytest.mark.slow
@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet_runs_as_printed(code, capsys):
    exec(compile(code, "snippet", "exec"), {})
    printed = capsys.readouterr().out
    assert bool(printed) == ("print(" in code)
    assert "False" not in printed


def test_the_first_snippet_has_at_most_a_dozen_lines_of_code():
    assert len([line for line in SNIPPETS[0].values[0].splitlines() if line.strip()]) <= 12


# The site's own pages may link to what is made when it is built; its strict build checks them.
@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/")])
def test_links_lead_to_files(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_commands_name_modules_that_exist():
    text = "".join((ROOT / page).read_text() for page in PAGES)
    named = set(re.findall(r"python -m ((?:examples|benchmarks)(?:\.\w+)+)", text))
    assert "examples.train" in named
    assert [module for module in named if not ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file()] == []


def test_make_targets_of_the_readme_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert "test" in shown
    assert set(shown) <= set(targets)

"""The docs in headless Chromium: pages load from this host alone, without errors, and show what they should."""

import functools
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Error, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
DRAWINGS = {  # drawn when the page is built
    "method/": 7,
    "theory/": 2,
    "tutorials/collapse/": 1,
    "tutorials/dynamics/": 2,
    "tutorials/loop/": 1,
    "tutorials/regularizers/": 1,
    "tutorials/rollouts/": 2,
}
FORMULAS = {"theory/": 30, "method/": 10}  # at least


class Server(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site):
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        try:
            # Without an executable: the browser that `playwright install chromium` brings.
            launched = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--no-sandbox"])
        except Error as error:
            if "CI" in os.environ:
                raise
            pytest.skip(f"no Chromium here: {error.message.splitlines()[0]}")
        yield launched
        launched.close()


@pytest.fixture
def visit(browser, address):
    """``visit(path, size, scheme)``: the page, loaded, with what has gone wrong so far in ``page.faults``."""
    pages = {}

    def load(path, size="desktop", scheme="light"):
        page = pages[size, scheme] = pages.get((size, scheme)) or open_page(size, scheme)
        page.goto(address + path, wait_until="load")
        return page

    def open_page(size, scheme):
        context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.faults = []
        page.on("console", lambda m: page.faults.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: page.faults.append(str(e)))
        # The browser cancels what it still loads, such as the icon, when the test moves on to the next page.
        page.on("requestfailed", lambda r: "ABORTED" in r.failure or page.faults.append(f"{r.failure}: {r.url}"))
        page.on("response", lambda r: page.faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on("request", lambda r: None if r.url.startswith((address, "data:")) else page.faults.append(r.url))
        return page

    yield load
    for page in pages.values():
        page.context.close()


def test_every_page_loads_without_an_error_and_fits(visit, site):
    pages = sorted(str(path.parent.relative_to(site)) + "/" for path in site.rglob("index.html"))
    assert len(pages) > 30
    for path in pages:
        page = visit(path, "phone")
        assert page.faults == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"], path
        broken = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)"
        page.wait_for_function("[...document.images].every(i => i.loading != 'lazy' ? i.complete : true)")
        assert page.evaluate(broken) == [], path
        assert page.locator(".drawing > svg").count() == DRAWINGS.get(path, 0), path
        formulas = page.locator(".arithmatex").count()
        assert formulas >= FORMULAS.get(path, 0), path
        assert page.locator(".arithmatex .katex-html").count() == formulas, path
        assert page.locator(".katex-error").count() == 0, path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", DRAWINGS)
def test_figures_are_there_in_the_colours_of_the_page(visit, path, size, scheme):
    page = visit(path, size, scheme)
    drawings = page.locator(".drawing > svg")
    assert drawings.count() == DRAWINGS[path]
    text = page.evaluate("getComputedStyle(document.querySelector('article p')).color")
    for i in range(drawings.count()):
        box = drawings.nth(i).bounding_box()
        assert box["width"] > 300
        assert box["height"] > 100
        assert drawings.nth(i).evaluate("svg => getComputedStyle(svg).fill") == text
        assert len(drawings.nth(i).locator("..").get_attribute("aria-label")) > 20
    assert page.faults == []


def test_light_and_dark_differ(visit):
    colours = {
        scheme: visit("", "desktop", scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert colours["light"] == "rgb(255, 255, 255)"
    assert max(map(int, colours["dark"].removeprefix("rgb(").rstrip(")").split(", "))) < 64


@pytest.mark.parametrize("size", SIZES)
def test_search_finds_leapfrog(visit, size):
    page = visit("", size)
    if size == "phone":
        page.locator(".md-header__button[for=__search]").click()
    page.locator(".md-search__input").press_sequentially("leapfrog")
    found = page.locator(".md-search-result__link")
    found.first.wait_for(state="visible")
    assert any("symplectic_jepa.leapfrog" in link for link in found.evaluate_all("links => links.map(a => a.href)"))
    assert page.faults == []


def test_code_can_be_copied_and_sources_seen(visit):
    page = visit("")
    page.locator("button.md-code__button").nth(1).click()  # the first is of the commands to install
    page.wait_for_function("navigator.clipboard.readText().then(text => text.includes('import symplectic_jepa as sj'))")
    source = visit("reference/integrators/").locator("details.mkdocstrings-source", has_text="def force_evaluations")
    assert source.count() == 1

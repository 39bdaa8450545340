import os
import subprocess
import sys

import pytest
import torch

from tests.helpers.paths import ROOT

# Small tensors: threads cost more than they bring, and sums are the same on every machine.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that tests start, too


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Mark by folder; keep together what shares a costly fixture, so that one worker makes it once."""
    for item in items:
        folder = item.path.parent.name
        if folder == "site":
            item.add_marker("site")
            item.add_marker(pytest.mark.xdist_group("site"))
        elif folder == "distributed":
            item.add_marker("ddp")
        if folder in ("distributed", "packaging"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def build_site():
    """``build_site(folder, *options)``: the finished process of a strict build, which is not ``--quiet``.

    With that option MkDocs counts no warning, and is not strict.
    """

    def build(folder, *options):
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), *options]
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return build


@pytest.fixture(scope="session")
def site(build_site, tmp_path_factory):
    """The folder of the docs."""
    folder = tmp_path_factory.mktemp("site")
    result = build_site(folder)
    assert result.returncode == 0, result.stderr
    return folder

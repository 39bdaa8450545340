import os
import subprocess
import sys

import pytest
import torch
from filelock import FileLock

from tests.helpers.paths import ROOT

# Small tensors: threads cost more than they bring, and sums are the same on every machine.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that tests start, too


def pytest_collection_modifyitems(items):
    """Mark by folder."""
    for item in items:
        if mark := {"site": "site", "distributed": "ddp", "faults": "slow"}.get(item.path.parent.name):
            item.add_marker(mark)


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
    """The folder of the docs, built once, whichever worker asks first."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "site"
    with FileLock(f"{folder}.lock"):
        if not (folder / "index.html").exists():
            result = build_site(folder.with_name("unfinished"))
            assert result.returncode == 0, result.stderr
            folder.with_name("unfinished").rename(folder)
    return folder

import os
import subprocess
import sys

import pytest
import torch

from tests.helpers.paths import ROOT

# Small tensors: threads cost more than they bring, and sums are the same on every machine.
torch.set_num_threads(1)


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
        root = ROOT
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    return build


@pytest.fixture(scope="session")
def site(build_site, tmp_path_factory):
    """The folder of the docs."""
    folder = tmp_path_factory.mktemp("site")
    result = build_site(folder)
    assert result.returncode == 0, result.stderr
    return folder

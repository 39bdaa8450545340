"""CIFAR-100's files are checked, and one process at a time downloads them."""

import fcntl
import pickle

import pytest
from torchvision.datasets import CIFAR100

from examples.images.datasets import load_data
from examples.recipe.schema import load_recipe


def test_damaged_files_are_named(tmp_path, monkeypatch):
    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()
    for name in ("train", "test", "meta"):
        (folder / name).write_bytes(pickle.dumps({"data": b"not the official data"}))

    def no_network(*args, **kwargs):
        # Another process would have to wait.
        with (tmp_path / ".lock").open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    config = load_recipe("cifar100", [f"data.root={tmp_path}"]).data
    with pytest.raises(SystemExit, match=r"missing or damaged: train, test, meta\) and could not be downloaded"):
        load_data(config)

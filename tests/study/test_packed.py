"""Packing happens once and whole, damage is found, and what cannot be used is named."""

import errno
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.images import packing
from examples.images.datasets import load_data
from examples.images.reading import batches
from examples.measurement.features import evaluate
from examples.system.ranks import ranks
from examples.training.loop import train
from tests.helpers.paths import ROOT
from tests.helpers.pictures import CLASSES, data_config, picture, picture_folders, recipe_for


@pytest.fixture
def root(tmp_path):
    return picture_folders(tmp_path / "data")


def packs(root):
    """What a user sees in the cache."""
    return sorted(path.name for path in (root.parent / "cache").iterdir() if path.name != ".lock")


def refused(message, root, **changes):
    with pytest.raises(SystemExit, match=message):
        load_data(data_config(root, **changes))


PACKER = """
import sys, time
from pathlib import Path
from examples.images import packing
from examples.images.datasets import load_data
from tests.helpers.pictures import data_config
root, decode = Path(sys.argv[1]), packing.decode
packing.LEAST = 4
def pause(path, *arguments, **settings):
    if path.parts[-3:] == ("val", "n02", "1.JPEG"):  # in the second file of pixels of the second split
        (root.parent / "packing").touch()
        while not (root.parent / "go").exists():
            time.sleep(0.01)
    return decode(path, *arguments, **settings)
packing.decode = pause
load_data(data_config(root))
"""


@pytest.fixture
def first(root):
    """A process that packs, and waits before it has finished."""
    process = subprocess.Popen([sys.executable, "-c", PACKER, str(root)], cwd=ROOT)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("fate", ["finishes", "is killed"])
def test_a_second_process_waits_for_the_first_and_goes_on_where_it_stopped(root, first, fate, monkeypatch, capsys):
    expected = [load_data(data_config(root, cache=str(root.parent / "other"))).train_images.image(i) for i in range(24)]
    limit = time.monotonic() + 300
    while not (root.parent / "packing").exists():
        assert first.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert [name.endswith(".partial") for name in packs(root)] == [True]
    flock, decode, decoded = fcntl.flock, packing.decode, []

    def end_the_first(file, how):
        if how == fcntl.LOCK_EX:  # this process is about to wait
            if fate == "is killed":
                first.kill()
            (root.parent / "go").touch()
        flock(file, how)

    def watched(path, *arguments, **settings):
        decoded.append(path.parts[-3:])
        return decode(path, *arguments, **settings)

    monkeypatch.setattr(fcntl, "flock", end_the_first)
    monkeypatch.setattr(packing, "decode", watched)
    monkeypatch.setattr(packing, "LEAST", 4)
    data = load_data(data_config(root))
    assert first.wait(timeout=300) == (0 if fate == "finishes" else -signal.SIGKILL)
    assert capsys.readouterr().out.count("waiting for process") == 1
    assert [name.endswith(".partial") for name in packs(root)] == [False]
    left = [("val", name, f"{i}.JPEG") for name in CLASSES[1:] for i in range(4)]
    assert decoded == ([] if fate == "finishes" else left)
    assert all(np.array_equal(data.train_images.image(i), x) for i, x in enumerate(expected))
    assert data.test_labels.tolist() == [c for c in range(3) for _ in range(4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_named_and_what_is_written_stays(root, workers, monkeypatch):
    savez, decode, full = packing.np.savez, packing.decode, "No space left on device"

    def fail(file, **arrays):
        if "val-001" in file.name:
            raise OSError(errno.ENOSPC, full)
        savez(file, **arrays)

    monkeypatch.setattr(packing, "LEAST", 4)
    monkeypatch.setattr(packing.np, "savez", fail)
    refused(rf"cannot pack images into .*cache.*{full}; \d+\.\d GiB are free", root, workers=workers)
    [partial] = packs(root)
    assert not (root.parent / "cache" / partial / "val-001.bin").exists()  # it would keep the disk full
    monkeypatch.setattr(packing.np, "savez", savez)
    monkeypatch.setattr(packing, "decode", lambda *a, **k: pytest.fail("decoded again") if a[0].parts[-3] == "train"
                        else decode(*a, **k))  # fmt: skip
    assert len(load_data(data_config(root)).train_images) == 24
    assert not [x for x in (root.parent / "cache" / packs(root)[0]).iterdir() if x.suffix in (".part", ".partial")]


def test_files_that_change_while_nothing_packs_begin_it_anew(root, monkeypatch):
    monkeypatch.setattr(packing, "pack_split", lambda *a, **k: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception, match="stopped"):
        load_data(data_config(root))
    monkeypatch.undo()
    (root.parent / "cache" / packs(root)[0] / "train.npz").write_bytes(b"of other images")
    picture(root / "train" / "n01" / "new.JPEG", 7)
    assert len(load_data(data_config(root)).train_images) == 25


def test_a_cache_that_cannot_be_written_is_named(root):
    (root.parent / "cache").write_text("a file")
    refused(r"cannot pack images into .*cache \(data\.cache\): .*File exists", root)


def test_packing_goes_once_and_anew_when_files_are_added_or_renamed(root, monkeypatch):
    path = root / "train" / "n01" / "0.bmp"
    Image.new("RGB", (40, 40), "red").save(path)
    assert load_data(data_config(root)).train_images.image(1)[:, 0, 0].tolist() == [255, 0, 0]
    with monkeypatch.context() as patch:
        patch.setattr(packing, "pack", lambda *a, **k: pytest.fail("packed again"))
        load_data(data_config(root))
    path.rename(path.with_name("9.bmp"))
    assert load_data(data_config(root)).train_images.image(8)[:, 0, 0].tolist() == [255, 0, 0]
    picture(root / "train" / "n01" / "new.JPEG", 7)
    assert len(load_data(data_config(root)).train_images) == 26
    assert len(load_data(data_config(root, image_size=24)).train_images) == 26
    assert len(packs(root)) == 4  # old packs stay, because other runs may read them


def test_a_finished_pack_is_opened_without_the_originals_and_without_a_look_at_each(root, monkeypatch):
    before = load_data(data_config(root))
    looked, stat = [], Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **k: looked.append(path) or stat(path, **k))
    monkeypatch.setattr(packing, "decode", lambda *a, **k: pytest.fail("decoded again"))
    load_data(data_config(root))
    assert root / "train" / "n01" in looked
    assert [x for x in looked if x.suffix == ".JPEG"] == []
    shutil.rmtree(root)
    after = load_data(data_config(root))
    assert after.class_names == CLASSES
    assert torch.equal(after.train_labels, before.train_labels)
    assert all(np.array_equal(after.train_images.image(i), before.train_images.image(i)) for i in range(24))


def test_square_packs_hold_the_centre_and_their_batches_no_padding(root):
    wide, square = (load_data(data_config(root, square=x)).train_images for x in (False, True))
    batch = square[torch.arange(24)]
    assert batch.images.shape == (24, 3, 32, 32)
    assert (batch.sizes == 32).all()
    for i in range(24):
        h, w = wide.image(i).shape[1:]
        if max(h, w) < 64:  # a longer one was cut before
            top, left = round((h - 32) / 2), round((w - 32) / 2)
            assert np.array_equal(square.image(i), wide.image(i)[:, top : top + 32, left : left + 32])


def rewrite(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def rewrite_labels(path, change):
    with np.load(path) as index:
        arrays = dict(index)
    change(arrays["labels"])
    np.savez(path, **arrays)


def zero(content):
    content[1000:1010] = bytes(10)


def shift(content):
    content.insert(0, content.pop())


def swap(labels):
    labels[[0, -1]] = labels[[-1, 0]]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            "train-000.bin",
            lambda path: rewrite(path, bytearray.pop),
            r"it has \d+ bytes, but should have \d+",
        ),
        ("val-000.bin", Path.unlink, r"it has 0 bytes, but should have \d+"),
        ("val-000.bin", lambda path: rewrite(path, zero), "the pixels at byte 0 do not match"),
        ("val-000.bin", lambda path: rewrite(path, shift), "the pixels at byte 0 do not match"),
        ("train.npz", lambda path: rewrite(path, bytearray.pop), "it cannot be read"),
        ("train.npz", lambda path: path.write_bytes(b""), "it cannot be read"),
        ("train.npz", Path.unlink, "it cannot be read"),
        ("train.npz", lambda path: rewrite_labels(path, swap), "it does not match its checksum"),
    ],
)
def test_a_damaged_pack_is_refused_when_it_is_opened(root, name, damage, message):
    load_data(data_config(root))
    path = root.parent / "cache" / packs(root)[0] / name
    damage(path)
    refused(rf"{path} is damaged: {message}.*; delete {path.parent} to pack", root)
    shutil.rmtree(path.parent)
    load_data(data_config(root))


@pytest.mark.parametrize("damage", [zero, shift])
def test_damaged_training_images_are_refused_when_they_are_read(root, damage):
    load_data(data_config(root))
    rewrite(root.parent / "cache" / packs(root)[0] / "train-000.bin", damage)
    data = load_data(data_config(root))
    images = data.train_images
    with pytest.raises(SystemExit, match=r"train-000\.bin is damaged: the pixels at byte 0 do not match"):
        images.image(0)
    with pytest.raises(SystemExit, match=r"train-000\.bin is damaged"):
        list(batches(images.subset(data.train_labels < 2), list(torch.arange(16).split(4))))


@pytest.fixture
def hang_limit():
    old = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("still waiting after a minute"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.mark.usefixtures("hang_limit")
def test_what_cannot_be_read_is_counted_and_listed(root, monkeypatch, capsys):
    folder = root / "train" / "n02"
    truncated = folder / "3.JPEG"
    truncated.write_bytes(truncated.read_bytes()[:200])
    refused(
        r"1 of 24 images cannot be read, a share of 0\.042 \(data\.corrupt_share allows 1e-05\): .*n02/3\.JPEG", root
    )
    assert [name.endswith(".partial") for name in packs(root)] == [True]  # a higher share goes on from here
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    Image.new("1", (300, 300)).save(folder / "bomb.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    (folder / "text.png").write_text("no picture")
    data = load_data(data_config(root, corrupt_share=0.3))
    assert data.train_labels.tolist() == [0] * 8 + [1] * 7 + [2] * 8
    assert "7 of 30 images of train cannot be read and are skipped" in capsys.readouterr().out
    reasons = (root.parent / "cache" / packs(root)[0] / "train.unreadable.txt").read_text()
    for name, reason in {
        "3.JPEG": "OSError", "bomb.png": "DecompressionBombError", "pipe.png": "ValueError: not a regular file",
        "link.png": "FileNotFoundError", "loop.png": "", "folder.png": "ValueError: not a regular file",
        "text.png": "UnidentifiedImageError",
    }.items():  # fmt: skip
        assert f"n02/{name}: {reason}" in reasons
    # A pack made with a higher share does not pass for one with all images.
    refused(r"7 of 30 images cannot be read, .*allows 1e-05\): see .*train\.unreadable\.txt", root)


def test_a_class_without_a_readable_image_is_refused(root):
    for path in (root / "val" / "n02").iterdir():
        path.write_text("no picture")
    refused(r"val/n02 has no image that can be read: .*val/n02/0\.JPEG: UnidentifiedImageError", root, corrupt_share=1)
    assert [name.endswith(".partial") for name in packs(root)] == [True]


def test_a_class_far_smaller_than_the_others_is_mentioned(root, capsys):
    for c in ("n01", "n02"):
        for i in range(8, 12):
            picture(root / "train" / c / f"{i}.JPEG", i)
    for i in range(1, 8):
        (root / "train" / "n03" / f"{i}.JPEG").unlink()
    load_data(data_config(root))
    expected = "train: 1 classes have far fewer images than the median, 12: 'n03' (1)"
    assert capsys.readouterr().out.splitlines() == [expected]


def test_every_suffix_that_pillow_reads_counts_and_other_files_are_mentioned(root, capsys):
    folder = root / "train" / "n01"
    for name in ("a.tif", "b.jfif", "c.PPM", "d.gif"):
        Image.new("RGB", (40, 40)).save(folder / name)
    for name in ("e.txt", "f.txt", "g"):
        (folder / name).write_text("no picture")
    (root / "train" / "list.csv").write_text("beside the classes")
    for hidden in (".ipynb_checkpoints", "__MACOSX", ".cache"):
        shutil.copytree(folder, root / "train" / hidden)
        shutil.copytree(folder, folder / hidden)
    shutil.copy(folder / "0.JPEG", folder / "._0.JPEG")
    data = load_data(data_config(root))
    assert data.class_names == CLASSES
    assert data.train_labels.bincount().tolist() == [12, 8, 8]
    expected = "train: 4 files or folders are not images and are skipped (suffixes: '.txt', '.csv', '')"
    assert capsys.readouterr().out.splitlines() == [expected]


def test_names_that_are_not_utf8_are_packed_trained_on_and_evaluated(tmp_path, capsys):
    bad = os.fsdecode(b"n03\xe9")  # Latin-1
    classes = ("n01", "n02", bad)
    try:
        root = picture_folders(tmp_path / "data", classes)
    except OSError:
        pytest.skip("this file system only takes names in UTF-8")
    (root / "train" / bad / os.fsdecode(b"\xff.JPEG")).write_text("no picture")
    (root / "train" / bad / os.fsdecode(b"x.t\xff")).write_text("no picture")
    recipe = recipe_for(root, tmp_path / "run", "data.corrupt_share=0.2")
    with ranks("cpu") as mine:
        data = load_data(recipe.data)
        train(recipe, data, mine)
    assert data.class_names == classes
    assert len(data.train_images) == 24
    listed = (root.parent / "cache" / packs(root)[0] / "train.unreadable.txt").read_bytes()
    assert b"n03\xe9/\xff.JPEG: UnidentifiedImageError" in listed
    assert evaluate(tmp_path / "run")["class_list_sha256"] == hashlib.sha256(b"n01\nn02\nn03\xe9").hexdigest()
    capsys.readouterr().out.encode()  # what was printed can be printed on any terminal


def test_packing_beforehand_is_a_command(root):
    command = [sys.executable, "-m", "examples.pack", "imagenet100", f"data.root={root}", "data.image_size=32"]
    command += ["data.crop=24", f"data.cache={root.parent / 'cache'}", "data.workers=2", "encoder.grid=1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "36 images are ready" in result.stdout
    assert len(load_data(data_config(root)).train_images) == 24
    assert len(packs(root)) == 1

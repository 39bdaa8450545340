"""Full disks, links, damaged files."""

import contextlib
import io
import json
import os
import random
import re
import stat
import subprocess
import sys
import zipfile

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

import symplectic_jepa as sj
from examples.recipe.schema import to_yaml
from examples.system import files
from examples.system.files import load_checkpoint, save_atomically, truncate_log, write_atomically
from tests.helpers.processes import end, started
from tests.helpers.runs import assert_same_run, logged, tiny, train, train_until

CPU = torch.device("cpu")


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


@pytest.fixture
def state():
    return {"step": 7, "model": {f"w{i}": torch.randn(5, 3) for i in range(4)}, "recipe": "method: sigreg\n" * 9}


def test_a_flipped_or_lost_bit_of_a_checkpoint_is_noticed_or_harmless(tmp_path, state):
    path = tmp_path / "checkpoint.pt"
    save_atomically(path, state)
    assert same(torch.load(path, weights_only=True), state)  # without our help, too
    content, draw, refused, harmless = path.read_bytes(), random.Random(0), 0, 0
    with zipfile.ZipFile(io.BytesIO(content)) as records:
        spots = [spot for x in records.infolist() for spot in (x.header_offset + 50, x.header_offset + 120)]
        spots += range(records.start_dir + 38, len(content), 54)  # attributes in the directory, which no CRC covers
    spots += [draw.randrange(len(content)) for _ in range(400)]
    damaged = [content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :] for at in spots]
    damaged += [content[:at] for at in (0, 1, *(draw.randrange(len(content)) for _ in range(40)))]
    for broken in damaged:
        path.write_bytes(broken)
        try:
            loaded = load_checkpoint(path, CPU)
        except SystemExit as error:
            refused += bool(re.match(rf"(?s)checkpoint {path} .*[:;] delete it, and train.resume=true", str(error)))
        else:
            assert same(loaded, state)  # the damage is in the hash's own mark
            harmless += 1
    assert refused + harmless == len(damaged)
    assert harmless < 15


def test_a_checkpoint_of_an_older_version_has_no_hash_and_is_read(tmp_path, state):
    torch.save(state, tmp_path / "checkpoint.pt")
    assert same(load_checkpoint(tmp_path / "checkpoint.pt", CPU), state)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "metrics.json"
    write_atomically(path, "old")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, name, lambda *arguments: full(0))
            with pytest.raises(SystemExit, match=r"metrics.json cannot be written: No space left on device"):
                write_atomically(path, "new")
        assert os.listdir(tmp_path) == ["metrics.json"]
        assert path.read_text() == "old"


def test_files_have_the_usual_permissions_and_links_are_replaced_not_followed(tmp_path, monkeypatch):
    victim, path = tmp_path / "victim", tmp_path / "table.md"
    victim.write_text("precious")
    path.symlink_to(victim)
    (tmp_path / "table.md.partial").symlink_to(victim)
    (tmp_path / "usual").touch()
    write_atomically(path, "mine")
    assert (path.read_text(), path.is_symlink()) == ("mine", False)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".table.md.guessed.partial").symlink_to(victim)
    with pytest.raises(SystemExit, match="table.md cannot be written: File exists"):
        write_atomically(path, "other")
    assert (path.read_text(), victim.read_text()) == ("mine", "precious")


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a tmpfs cannot be mounted: {error}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk):
    """Write to the disk until it is full."""
    with contextlib.suppress(OSError), (disk / "other").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_stops_a_run_by_name_and_the_run_resumes_when_there_is_room(small_disk, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", small_disk / "run"
    train(tiny(whole, "method=sigreg"))
    train_until(tiny(out, "method=sigreg"), 4, monkeypatch)
    before = (out / "checkpoint.pt").read_bytes()
    fill(small_disk)
    for folder in (out, small_disk / "fresh"):
        with pytest.raises(SystemExit, match=r"cannot be written: No space left on device"):
            train(tiny(folder, "method=sigreg", "train.resume=true"))
    assert (out / "checkpoint.pt").read_bytes() == before
    assert not list(out.glob("*.partial"))
    (small_disk / "other").unlink()
    train(tiny(out, "method=sigreg", "train.resume=true"))
    assert_same_run(whole, out)


def test_a_disk_that_fills_up_during_the_training_keeps_the_checkpoint(small_disk, tmp_path, monkeypatch):
    """Between two checkpoints: first a log's line does not fit, then, with the logs elsewhere, the checkpoint."""
    from examples.training.schedules import Schedules

    apply, out = Schedules.apply, small_disk / "run"
    train(tiny(tmp_path / "whole", "method=sigreg"))

    def fills(self, step, *args):
        if step == 4:
            fill(small_disk)
        apply(self, step, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Schedules, "apply", fills)
        with pytest.raises(SystemExit, match=r"(metrics.jsonl|checkpoint.pt) cannot be written: No space left"):
            train(tiny(out, "method=sigreg"))
    assert load_checkpoint(out / "checkpoint.pt", CPU)["step"] == 3
    assert not list(out.glob("*.partial"))
    (small_disk / "other").unlink()
    train(tiny(out, "method=sigreg", "train.resume=true"))
    assert_same_run(tmp_path / "whole", out)


@pytest.mark.parametrize("method", ["add_scalar", "flush", "close"])
def test_a_disk_error_of_tensorboard_is_named_and_closing_hides_no_other_error(method, tmp_path, monkeypatch):
    def fails(*arguments):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(SummaryWriter, method, fails)
    if method == "close":
        assert train(tiny(tmp_path)) == tmp_path
    else:
        with pytest.raises(SystemExit, match=r"tensorboard cannot be written: Disk quota exceeded"):
            train(tiny(tmp_path))


LIMITED = """
import resource, sys, torch
from symplectic_jepa import ProjectedLogDetFloor
floor = ProjectedLogDetFloor(floor=-2.0)
floor(torch.randn(9, 4))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
floor.save_pretrained(sys.argv[1])
"""


def test_save_pretrained_without_room_leaves_the_old_module_and_nothing_else(tmp_path):
    """A limit on a file's size fails like a full disk: first no file fits, then the weights, but not the settings."""
    sj.ProjectedLogDetFloor(floor=-1.0).save_pretrained(tmp_path)
    before = sorted(os.listdir(tmp_path))
    settings, weights = (os.path.getsize(tmp_path / name) for name in before)
    assert weights + 50 < settings
    for room in (50, weights + 50):
        code, errors = end(started([sys.executable, "-c", LIMITED, str(tmp_path), str(room)]))
        assert code == 1
        assert "OSError: [Errno 27] File too large" in errors
        assert sorted(os.listdir(tmp_path)) == before
        assert sj.ProjectedLogDetFloor.from_pretrained(tmp_path).floor == -1


GARBAGE = [b"\xff\xfe\x00\x81", b'{"step": 1, "loss', b"17", b'{"loss": 1}', b'{"step": "1"}', b"", b"[" * 100_000]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda x: repr(x[:12]))
def test_a_damaged_end_of_a_log_is_dropped_and_damage_before_it_named(garbage, tmp_path):
    log = tmp_path / "metrics.jsonl"
    good = [json.dumps({"step": step, "loss": 1.5}).encode() for step in range(4)]
    log.write_bytes(b"\n".join([*good[:2], garbage, garbage]))
    truncate_log(log, 4)
    assert log.read_bytes() == b"\n".join(good[:2]) + b"\n"
    log.write_bytes(b"\n".join([*good[:2], garbage, *good[2:]]))
    truncate_log(log, 2)  # what follows the damage is dropped, too
    assert log.read_bytes() == b"\n".join(good[:2]) + b"\n"
    log.write_bytes(content := b"\n".join([*good[:2], garbage, *good[2:]]))
    with pytest.raises(SystemExit, match=r"line 3 of .*metrics.jsonl is damaged: delete that line, or the file"):
        truncate_log(log, 4)
    assert log.read_bytes() == content


@pytest.mark.parametrize("garbage", [b"\xff\xfe\x00\x81", b"method: [", b"", b"train: {epochs: zero}"])
def test_a_run_resumes_from_a_good_checkpoint_whatever_happened_to_its_other_files(garbage, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "run"
    train(tiny(whole))
    train_until(tiny(out), 4, monkeypatch)
    (out / "recipe.yaml").write_bytes(garbage)
    for name in ("metrics.jsonl", "curves.jsonl"):
        with (out / name).open("ab") as file:
            file.write(garbage)
    resumed = tiny(out, "train.resume=true")
    train(resumed)
    assert_same_run(whole, out)
    assert (out / "recipe.yaml").read_text() == to_yaml(resumed)


def test_a_folder_with_a_run_but_no_checkpoint_is_neither_overwritten_nor_taken_for_another_run(tmp_path, monkeypatch):
    train_until(tiny(tmp_path), 2, monkeypatch)
    before = logged(tmp_path)
    assert [line["step"] for line in before] == [0, 1]
    with pytest.raises(SystemExit, match=r"already contains a run: set train.resume=true"):
        train(tiny(tmp_path))
    with pytest.raises(SystemExit, match=r"recipe.yaml is of another recipe; these keys differ: optim.lr$"):
        train(tiny(tmp_path, "optim.lr=0.5", "train.resume=true"))
    assert logged(tmp_path) == before
    (tmp_path / "recipe.yaml").write_bytes(b"\xff")
    with pytest.raises(SystemExit, match=r"recipe.yaml cannot be read"):
        train(tiny(tmp_path, "train.resume=true"))
    (tmp_path / "recipe.yaml").unlink()
    with pytest.raises(SystemExit, match=r"contains metrics.jsonl, tensorboard: move these away"):
        train(tiny(tmp_path, "train.resume=true"))
    assert logged(tmp_path) == before

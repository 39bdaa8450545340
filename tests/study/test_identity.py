"""A result is what its name says: overrides, evaluation settings, images and files that would make it another."""

import dataclasses
import json

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.images.datasets import ImageData, load_data
from examples.measurement.features import evaluate
from examples.paper import reproduce as study
from examples.paper.grid import SCALES, Cell
from examples.paper.report import write_report
from examples.paper.reproduce import reproduce
from examples.recipe.schema import load_recipe
from examples.system.lock import LOCK
from examples.system.ranks import Ranks
from examples.training.loop import train as train_on
from examples.training.run_folder import FREE
from tests.helpers.runs import TINY, over, tiny, train, train_until

HERE = Ranks(0, 1, torch.device("cpu"))
ONE = over(TINY, "train.epochs=1")


def cell(name, *overrides, seed=42, table="textures"):
    return Cell(table, name, seed, "textures", overrides)


# Overrides


@pytest.mark.parametrize("scale", SCALES)
def test_a_setting_for_every_cell_cannot_undo_what_a_cell_or_its_table_is(scale, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "load_data", lambda *a: pytest.fail("data were loaded"))
    cells = SCALES[scale]()
    named = {"method=sigreg", "train.seed=7", "regularizer=vicreg", "data.name=cifar100", "data.classes=3"}
    set_by_cells = {pair for c in cells for pair in c.overrides}
    for pair in named | set_by_cells:
        key = pair.partition("=")[0]
        if key not in FREE and not key.startswith("evaluation."):
            with pytest.raises(SystemExit, match=rf"{key} is set by the (study|cell .+-s4\d) itself; leave it out"):
                reproduce(cells, tmp_path, [pair])
    assert not list(tmp_path.iterdir())


def test_tables_that_are_named_by_their_epochs_have_them(tmp_path):
    for c in SCALES["full"]() + SCALES["gpu-short"]():
        with pytest.raises(SystemExit, match="train.epochs is set by the cell"):
            reproduce([c], tmp_path, ["train.epochs=2"])


def test_a_data_folder_is_given_once(tmp_path):
    c = Cell("t", "hamjepa", 42, "imagenet100")
    with pytest.raises(SystemExit, match="data.root is set by --root itself"):
        reproduce([c], tmp_path, ["data.root=/a"], roots={"imagenet100": "/b"})
    with pytest.raises(SystemExit, match="--root cifar100 would be ignored: no selected cell uses it"):
        reproduce([c], tmp_path, roots={"cifar100": "/b"})
    with pytest.raises(SystemExit, match="--root cifar100 is given twice, the second time by 'cifar100=/b'"):
        study.roots(["cifar100=/a", "cifar100=/b"])


# Evaluation settings


def test_a_finished_cell_is_not_taken_for_one_that_was_evaluated_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "measure_structure", lambda *a: {})
    cells, path = [cell("sigreg", "method=sigreg")], tmp_path / "textures/sigreg-s42"
    reproduce(cells, tmp_path, ONE)
    trained = (path / "checkpoint.pt").read_bytes()
    others = over(ONE, "evaluation.ks=[1,20]")
    with pytest.raises(SystemExit, match=r"cell.json was evaluated with other settings; these differ: evaluation.ks"):
        reproduce(cells, tmp_path, others)
    reproduce(cells, tmp_path, [*ONE, "evaluation.every=1"])  # changes no number of a finished cell
    (path / "cell.json").unlink()  # as the message says
    reproduce(cells, tmp_path, others)
    assert (path / "checkpoint.pt").read_bytes() == trained
    record = json.loads((path / "cell.json").read_text())
    assert set(record["readouts"]["SIGReg-q"]["knn"]) == {"1", "20"}
    assert "Changed in every cell: `data.batch_size=32`, " in write_report(tmp_path, tmp_path)


def test_a_cell_that_could_not_stand_beside_the_finished_ones_is_refused_before_training(tmp_path, monkeypatch):
    reproduce([cell("untrained")], tmp_path, ONE)
    monkeypatch.setattr(study, "run_cell", lambda *a: pytest.fail("trained"))
    others = {
        "overrides": "optim.lr=1e-2",
        "data, overrides": "data.train_size=64",
        "evaluation.ks": "evaluation.ks=[20]",
    }
    for differs, pair in others.items():
        message = rf"untrained-s42 and textures\S*/sigreg-s42 cannot be compared, these differ: {differs}; delete"
        for table in ("textures", "textures-ablations"):
            with pytest.raises(SystemExit, match=message):
                reproduce([cell("sigreg", "method=sigreg", table=table)], tmp_path, over(ONE, pair))
    row = r"untrained-s42 and textures/untrained-s43 cannot be compared, these differ: overrides"
    with pytest.raises(SystemExit, match=row):
        reproduce([cell("untrained", seed=43)], tmp_path, over(ONE, "optim.lr=1e-2"))
    with pytest.raises(pytest.fail.Exception, match="trained"):  # other tables are not compared
        reproduce([cell("sigreg", "method=sigreg", table="other")], tmp_path, over(ONE, "optim.lr=1e-2"))


def test_evaluation_settings_of_a_resumed_run_are_used(tmp_path):
    train(tiny(tmp_path, "train.epochs=1"))
    train(tiny(tmp_path, "train.epochs=1", "train.resume=true", "evaluation.ks=[20]"))
    assert set(evaluate(tmp_path)["readouts"]["HamJEPA-q"]["knn"]) == {"20"}


def test_settings_that_do_not_fit_the_data_are_refused_before_training(tmp_path, monkeypatch):
    from examples.paper.compare import compare

    shared = over(TINY, "data.batch_size=16", "evaluation.ks=[5,20,50]")
    few, message = [*shared, "data.classes=2"], r"evaluation.ks must be at most 24 \(training images\), got 50"
    with pytest.raises(SystemExit, match=message):
        train(load_recipe("textures", [*few, f"train.out={tmp_path}/run"]))
    with pytest.raises(SystemExit, match=message):
        compare("textures", few, tmp_path / "compare")
    monkeypatch.setattr(study, "run_cell", lambda *a: pytest.fail("trained before the settings were checked"))
    with pytest.raises(SystemExit, match=message):
        reproduce([cell("untrained", "data.classes=2")], tmp_path, shared)
    with pytest.raises(SystemExit, match=r"data.batch_size must be from 1 \(ranks\) to 96 \(training images\), got 97"):
        reproduce([cell("untrained"), cell("hamjepa")], tmp_path, over(TINY, "data.batch_size=97"))
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_moved_to_smaller_data_is_not_evaluated(tmp_path):
    train(tiny(tmp_path, "train.epochs=1"))
    settings = tmp_path / "recipe.yaml"
    settings.write_text(settings.read_text().replace("- 20", "- 20\n  - 500"))
    with pytest.raises(SystemExit, match=r"evaluation.ks must be at most 96 \(training images\), got 500"):
        evaluate(tmp_path)


# Images


def coloured(seed=0):
    """Images in the shape of CIFAR-100, and few of them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (136, 3, 32, 32), generator=generator).to(torch.uint8)
    labels = torch.arange(136) % 4
    half = (0.5, 0.5, 0.5)
    return ImageData(images[:96], labels[:96], images[96:], labels[96:], half, half, tuple("abcd"))


def test_other_images_are_refused_when_a_run_is_resumed_or_evaluated(tmp_path):
    settings = [pair for pair in ONE if not pair.startswith(("data.train", "data.test"))]
    settings += [f"train.out={tmp_path}", "train.resume=true", "encoder.backbone=small_cnn", "train.precision=fp32"]
    recipe, data = load_recipe("cifar100", [*settings, "predictor.residual_warmup_epochs=1"]), coloured()
    train_on(recipe, data, HERE)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    train_on(recipe, coloured(), HERE)
    changed = data.test_images.clone()
    changed[7, 1, 3, 4] += 1
    for other in ({"test_images": changed}, {"train_labels": data.train_labels.flip(0)}):
        with pytest.raises(SystemExit, match=r"checkpoint.pt was made with other images than those of data.name"):
            train_on(recipe, dataclasses.replace(data, **other), HERE)
        with pytest.raises(SystemExit, match=r"checkpoint.pt was made with other images"):
            evaluate(tmp_path, dataclasses.replace(data, **other))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["data"]  # as an older version wrote it
    torch.save(state, tmp_path / "checkpoint.pt")
    train_on(recipe, dataclasses.replace(data, test_images=changed), HERE)


def test_too_few_images_or_classes_are_refused_before_training(tmp_path):
    recipe, data = tiny(tmp_path / "run"), coloured()
    one = dataclasses.replace(data, test_images=data.test_images[:1], test_labels=data.test_labels[:1])
    with pytest.raises(SystemExit, match=r"data.test_size, .* must leave at least 2 test images, got 1$"):
        train_on(recipe, one, HERE)
    alike = dataclasses.replace(data, train_labels=torch.zeros_like(data.train_labels))
    with pytest.raises(SystemExit, match=r"data.root or data.classes must leave training images of at least 2 classes"):
        train_on(recipe, alike, HERE)
    assert not (tmp_path / "run").exists()


def test_packed_images_are_known_by_their_pixels_and_not_by_their_folder(tmp_path):
    from examples.images.datasets import fingerprint

    def write(root, shade, last=0):
        for split in ("train", "val"):
            for name in ("ant", "bee"):
                folder = tmp_path / root / split / name
                folder.mkdir(parents=True)
                for i in range(56):
                    Image.new("RGB", (40, 30), (shade, 4 * i, last if i % 2 else 0)).save(folder / f"{i:02}.png")
        overrides = (f"data.root={tmp_path / root}", f"data.cache={tmp_path / root}-cache", "data.workers=0")
        config = load_recipe("imagenet100", [*overrides, "data.image_size=24", "data.crop=24", "augment.size=24"]).data
        return fingerprint(config, load_data(config))

    known = write("a", 5)
    assert known == write("b", 5) != write("c", 6)
    assert known != write("d", 5, last=9)  # every second image, of more than a hundred


def test_a_study_refuses_a_finished_cell_of_other_images(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "load_data", lambda config: data)
    cells = [Cell("t", "untrained", seed, "cifar100", ("encoder.backbone=small_cnn",)) for seed in (42, 43)]
    settings = ["data.batch_size=32", "evaluation.ks=[20]", "evaluation.probe_epochs=1", "train.precision=fp32"]
    data = coloured()
    reproduce(cells[:1], tmp_path, settings)
    data = coloured(1)
    with pytest.raises(SystemExit, match=r"untrained-s42/cell.json was made with other images"):
        reproduce(cells, tmp_path, settings)


# Folders


@pytest.mark.parametrize(
    "name",
    [
        "metrics.json",
        "cell.json",
        "thesis.tex",
        "checkpoint.pt/part",
        "metrics.jsonl",
        "curves.jsonl",
        "tensorboard/events",
        "recipe.yaml/x",
        "a.partial",
    ],
)
@pytest.mark.parametrize("resume", ["true", "false"])
def test_a_folder_with_other_files_is_not_written_to(name, resume, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")
    with pytest.raises(SystemExit, match=rf"train.out.* has no checkpoint to resume but contains {name.split('/')[0]}"):
        train(tiny(tmp_path, f"train.resume={resume}"))
    assert [x for x in tmp_path.rglob("*") if x.is_file() and x.name != LOCK] == [file]
    assert file.read_text() == "precious"


def test_a_run_that_ended_before_its_first_checkpoint_starts_again_with_its_own_recipe(tmp_path, monkeypatch):
    train_until(tiny(tmp_path), 2, monkeypatch)
    before = (tmp_path / "recipe.yaml").read_text()
    with pytest.raises(SystemExit, match="already contains a run: set train.resume=true"):
        train(tiny(tmp_path))
    with pytest.raises(SystemExit, match=r"these keys differ: optim.lr"):
        train(tiny(tmp_path, "train.resume=true", "optim.lr=1"))
    assert (tmp_path / "recipe.yaml").read_text() == before
    train(tiny(tmp_path, "train.resume=true"))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 6


def test_a_comparison_does_not_overwrite_a_run(tmp_path):
    from examples.paper.compare import compare

    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(SystemExit, match="--out must not be a run's own folder"):
        compare("textures", TINY, tmp_path)


def test_tensorboard_keeps_every_evaluation_of_a_resumed_run(tmp_path, monkeypatch):
    def events(run):
        found = EventAccumulator(str(run / "tensorboard")).Reload()
        return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]
                if not tag.endswith("seconds")}  # fmt: skip

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(whole, "evaluation.every=1"))
    train_until(tiny(parts, "evaluation.every=1"), 4, monkeypatch)
    train(tiny(parts, "evaluation.every=1", "train.resume=true"))
    assert len(events(whole)["q/knn"]) == 2
    assert events(parts) == events(whole)

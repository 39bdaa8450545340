"""A report reads what others may have damaged: it names the file, and writes nowhere but into its own folder."""

import json
import math

import pytest
import torch
from matplotlib.figure import Figure

from examples.paper.grid import Cell
from examples.paper.report import write_report
from examples.paper.reproduce import reproduce
from tests.helpers.refusals import refused
from tests.helpers.runs import TINY


def row(dim=4, k="20"):
    top1 = {"top1": 1.0}
    return {
        "dim": dim,
        "knn": {k: top1},
        "knn_best": top1,
        "linear": top1,
        "effective_rank": 1,
        "participation_ratio": 1,
    }


def record(name="hamjepa", seed=42, table="textures", **changes):
    machine = {"device": "x", "cores": 1, "torch": "2", "python": "3"}
    readouts = {f"HamJEPA-{r}": row() for r in ("q", "p", "qp")}
    settings = f"evaluation: {{ks: [1, 20], probe_epochs: 2}}\ntrain: {{seed: {seed}, epochs: 6}}\n"
    base = {"table": table, "name": name, "seed": seed, "method": "HamJEPA", "machine": machine, "recipe": settings}
    return {**base, "readouts": readouts, **changes}


def write(out, content, folder="textures/hamjepa-s42"):
    path = out / folder / "cell.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


NAMED = [{"table": "../.."}, {"table": "../../x"}, {"table": "/tmp"}, {"table": ""}, {"name": "../x"}, {"seed": 43}]


@pytest.mark.parametrize("named", NAMED)
def test_a_report_writes_only_to_its_own_folder(named, tmp_path):
    out = tmp_path / "deep/deeper/study"
    write(out, record(**named))
    with pytest.raises(SystemExit, match=r"hamjepa-s42/cell.json is the result of .*, not of 'textures/hamj"):
        write_report(out, out)
    assert [x.name for x in tmp_path.rglob("*") if x.is_file()] == ["cell.json"]


WITHOUT = [{k: v for k, v in record().items() if k != key} for key in record()]
DAMAGED = [
    "", "{", "null", "[]", "5", '"x"', "\0", json.dumps(record())[:-9], "[" * 5000, *WITHOUT,
    record(readouts=[]), record(readouts={}), record(readouts={"HamJEPA-q": row()}), record(method="byol"),
    record(readouts={f"HamJEPA-{r}": row(k="5") for r in ("q", "p", "qp")}), record(seed="x"), record(recipe=5),
    record(recipe="a: ["), record(machine={}), record(structure={"leapfrog": {}}), record(steps="many"),
    record(readouts={f"HamJEPA-{r}": {**row(), "isotropy": {}} for r in ("q", "p", "qp")}), record(failed=None),
    record(data=5), record(overrides=[]), record(train_seconds=None), record(train_seconds=math.nan),
    *(
        record(readouts={f"HamJEPA-{r}": {**row(), **bad} for r in ("q", "p", "qp")})
        for bad in (
            *({"linear": {"top1": x}} for x in (math.nan, math.inf, -1, 1e9)),
            {"knn": {"20": {"top1": math.nan}}}, {"knn_best": {"top1": 100.5}}, {"effective_rank": math.nan},
            {"isotropy": {"price": math.inf, "regret": 1, "worst_case_ratio": 1}},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_cell_is_named_with_what_to_do(content, tmp_path):
    path = write(tmp_path, content)
    with pytest.raises(SystemExit, match="cell.json") as error:
        write_report(tmp_path, tmp_path / "report")
    assert str(path) in str(error.value)
    with pytest.raises(SystemExit, match="cell.json"):
        reproduce([Cell("textures", "hamjepa", 42, "textures")], tmp_path, TINY)
    assert not (tmp_path / "report").exists()


def test_a_cell_that_was_made_with_another_seed_or_method_than_it_says_is_refused(tmp_path):
    """As one that an override could make before it was refused: two such cells had a deviation of exactly 0."""
    path = write(tmp_path, record(recipe=record(seed=7)["recipe"]))
    refused(path, "is called 42 but was made with train.seed=7", call=lambda: write_report(tmp_path, tmp_path))
    path.write_text(json.dumps(record(recipe=record()["recipe"] + "method: sigreg")))
    refused(path, "is called HamJEPA but was made with method=sigreg", call=lambda: write_report(tmp_path, tmp_path))


def test_bytes_that_are_not_text_are_a_damaged_cell(tmp_path):
    write(tmp_path, "x").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SystemExit, match=r"cell.json cannot be read"):
        write_report(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (
            record(seed=43, recipe=record("x", 43)["recipe"].replace("epochs: 2", "epochs: 3")),
            "evaluation.probe_epochs",
        ),
        (record(seed=43, recipe=record("x", 43)["recipe"].replace("20", "20, 50")), "evaluation.ks"),
        (record(seed=43, recipe=record("x", 43)["recipe"].replace("epochs: 6", "epochs: 7")), "train.epochs"),
        (record(seed=43, data="b"), "data"),
        (record(seed=43, overrides={"optim.lr": "1"}), "overrides"),
    ],
)
def test_cells_that_were_made_differently_are_not_put_into_one_table(other, differs, tmp_path):
    write(tmp_path, record(data="a", overrides={}))
    write(tmp_path, other, "textures/hamjepa-s43")
    with pytest.raises(SystemExit, match=rf"-s42 and textures/hamjepa-s43 cannot be compared.*differ: {differs}"):
        write_report(tmp_path, tmp_path)
    assert not (tmp_path / "report.md").exists()


def test_a_damaged_input_of_a_figure_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *arguments: None)
    run = write(tmp_path, record(steps=6)).parent
    arrays = {"knn": torch.ones(2, 2), "eigenvalues": torch.ones(4), "cosines": torch.rand(9), "norms": torch.rand(9)}
    torch.save({f"HamJEPA-{r}": arrays for r in ("q", "p", "qp")}, run / "diagnostics.pt")
    numbers = {"knn": 1, "effective_rank": 1, "participation_ratio": 1}
    curves = {"epoch": 1, "readouts": dict.fromkeys(("q", "p", "qp"), numbers)}
    (run / "curves.jsonl").write_text(json.dumps(curves) + "\n")
    (run / "metrics.jsonl").write_text('{"step": 0, "epoch": 0, "loss": 1, "mean": 1}\n')
    write_report(tmp_path, tmp_path)
    for name in ("diagnostics.pt", "structure.pt", "curves.jsonl", "metrics.jsonl"):
        path = run / name
        intact = path.read_bytes() if path.exists() else None
        for damaged in (b"", b"\xff\xff", b"{}\n", b'{"epoch": 1}\n{"ep', b"[]\n", b"null\n"):
            path.write_bytes(damaged)
            refused(path, call=lambda: write_report(tmp_path, tmp_path))
        path.write_bytes(intact) if intact else path.unlink()
    (run / "curves.jsonl").unlink()
    write_report(tmp_path, tmp_path)  # as the message says

"""The results of a study's cells: one ``cell.json`` in each cell's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, model_validator
from typing_extensions import Self

from examples.measurement.features import READOUTS
from examples.paper.grid import UNTRAINED, Cell, base_table
from examples.recipe.schema import METHODS
from examples.recipe.sections import HEADLINE_K
from examples.recipe.text import read
from examples.system.files import read_text
from examples.training.run_folder import affects_training

CELL = "cell.json"
Record = dict[str, Any]  # with at least what `Result` requires


Finite = Annotated[float, Field(allow_inf_nan=False)]


class Top1(BaseModel):
    top1: Annotated[Finite, Field(ge=0, le=100)]


class Isotropy(BaseModel):
    price: Finite
    regret: Finite
    worst_case_ratio: Finite


class Row(BaseModel):
    """One set of features."""

    dim: int
    knn: dict[int, Top1]
    knn_best: Top1
    linear: Top1
    effective_rank: Finite
    participation_ratio: Finite
    isotropy: Isotropy | None = None


class Structure(BaseModel):
    """One map of a trained predictor. Rollouts may diverge, so infinity and NaN are results, too."""

    symplecticity_defect: float
    round_trip_error_100: float
    energy_drift_max: float
    area_ratio: float


class Machine(BaseModel):
    device: str
    cores: int | None
    torch: str
    python: str


class Result(BaseModel):
    """What a report reads of a cell."""

    table: str
    name: str
    seed: int
    method: str
    machine: Machine
    recipe: str
    failed: str = ""
    readouts: dict[str, Row] = {}
    structure: dict[str, Structure] = {}
    steps: Annotated[int, Field(ge=0)] = 0
    train_seconds: Annotated[Finite, Field(ge=0)] = 0
    data: str | None = None
    overrides: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method not in METHODS.values():
            raise ValueError(f"method must be one of {', '.join(METHODS.values())}, got {self.method}")
        if not self.readouts and not self.failed:
            raise ValueError("there are no readouts")
        states = self.readouts and self.name != UNTRAINED and self.method != METHODS["sigreg"]
        wanted = {f"{self.method}-{readout}" for readout in READOUTS} if states else set()
        if missing := wanted - self.readouts.keys():
            raise ValueError(f"readouts must contain {', '.join(sorted(missing))}")
        if any(HEADLINE_K not in row.knn for row in self.readouts.values()):
            raise ValueError(f"knn must contain {HEADLINE_K}")
        return self


def read_cell(path: Path) -> Record:
    """The record of one cell.

    Raises:
        SystemExit: naming the file, if it is damaged or its table, name and seed are not those of its folder.
    """
    remedy = f"delete it and repeat the study, which evaluates {path.parent} again"
    try:
        record: Record = json.loads(read_text(path))
        result = Result.model_validate(record)
        settings = read(result.recipe, f"the recipe in {path}")
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise SystemExit(f"{path} is damaged ({where}: {error.errors()[0]['msg']}): {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise SystemExit(f"{path} is damaged ({error}): {remedy}") from error
    named, folder = Cell(result.table, result.name, result.seed, "").id, f"{path.parts[-3]}/{path.parts[-2]}"
    if named != folder:
        raise SystemExit(f"{path} is the result of {named!r}, not of {folder!r}: move it there, or delete it")
    for key, label in (("train.seed", str(result.seed)), ("method", result.method)):
        if key in settings and METHODS.get(settings[key], settings[key]) != label:
            raise SystemExit(f"{path} is called {label} but was made with {key}={settings[key]}: delete it")
    return record


def read_cells(out: Path) -> list[Record]:
    """The records of a study's finished cells.

    Raises:
        SystemExit: if there are none, one is damaged, or cells that are compared were made with other settings or data.
    """
    records = [read_cell(path) for path in sorted(out.glob(f"*/*/{CELL}"))]
    if not records:
        raise SystemExit(f"no finished cell in {out}")
    refuse_mixed(records)
    return records


def refuse_planned(out: Path, planned: Sequence[Record]) -> None:
    """Refuse cells, before they are trained, that could not stand beside the finished ones of the same tables.

    Each has the ``table``, ``name``, ``seed``, ``recipe``, ``data`` and ``overrides`` that its record will have.

    Raises:
        SystemExit: naming two cells and what differs, or a finished cell that is damaged.
    """
    tables = {base_table(record["table"]) for record in planned}
    paths = [path for path in sorted(out.glob(f"*/*/{CELL}")) if base_table(path.parts[-3]) in tables]
    refuse_mixed([*map(read_cell, paths), *planned])


def refuse_mixed(records: Sequence[Record]) -> None:
    """Refuse records of which two are compared but were made with other settings or data.

    Raises:
        SystemExit: naming two cells and what differs.
    """
    first: dict[tuple[str, ...], Record] = {}
    for record in records:
        table = base_table(record["table"])
        for group in ((table,), (record["table"], record["name"])):
            _refuse_mixed(first.setdefault(group, record), record, same_row=len(group) == 2)


def _refuse_mixed(a: Record, b: Record, *, same_row: bool) -> None:
    """Refuse two cells of a table that were evaluated differently, or two seeds of a row that differ in more."""
    settings = [read(x["recipe"], x["name"]) for x in (a, b)]
    compared = [k for k in settings[0].keys() & settings[1].keys() if k in EVALUATED or (same_row and _fixed(k))]
    differing = [key for key in compared if settings[0][key] != settings[1][key]]
    differing += [key for key in ("data", "overrides") if None not in (a.get(key), b.get(key)) and a[key] != b[key]]
    if differing:
        ids = " and ".join(Cell(x["table"], x["name"], x["seed"], "").id for x in (a, b))
        raise SystemExit(
            f"{ids} cannot be compared, these differ: {', '.join(sorted(differing))}; delete the {CELL} of one, if it "
            "has one, and repeat the study with the settings of the other, or choose another --out"
        )


EVALUATED = ("evaluation.ks", "evaluation.probe_epochs")  # settings that change a finished cell's numbers


def _fixed(key: str) -> bool:
    return affects_training(key) and key != "train.seed"


def shared_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings for every cell, those that change what is learned."""
    return {key: value for key, value in sorted(settings.items()) if affects_training(key)}

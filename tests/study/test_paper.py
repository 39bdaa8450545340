"""The study: its cells are the paper's, survive being killed, and its report says what they measured."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import symplectic_jepa as sj
from examples import reproduce as command
from examples.measurement import structure
from examples.measurement.features import isotropy
from examples.model.build import build_model, explicit_euler
from examples.paper import reproduce as study
from examples.paper.grid import ABLATIONS, SCALES, Cell
from examples.paper.published import PUBLISHED
from examples.paper.report import mean_std, within, write_report
from examples.paper.reproduce import reproduce
from examples.recipe.schema import compose, load_recipe, to_yaml
from examples.training.nan_guard import NotFiniteError
from examples.training.run_folder import differing_keys
from tests.helpers.paths import ROOT
from tests.helpers.runs import TINY, over

SMALL = [*TINY, "evaluation.every=1"]


def cell(name, *overrides, seed=42, table="textures"):
    return Cell(table, name, seed, "textures", overrides)


def recipe_of(c):
    return compose(c.recipe, c.settings("runs/x"))


def read(path):
    return json.loads((path / "cell.json").read_text())


@pytest.mark.parametrize("scale", SCALES)
def test_every_recipe_of_a_scale_is_valid_and_every_cell_has_its_own_folder(scale):
    cells = SCALES[scale]()
    assert len({c.id for c in cells}) == len(cells)
    for c in cells:
        recipe_of(c)


def test_the_full_scale_is_the_papers():
    tables = {c.table for c in SCALES["full"]()}
    assert set(PUBLISHED) <= tables
    found = {(c.table, c.name) for c in SCALES["full"]()}
    wanted = {"SIGReg": "sigreg", "MLP-HJEPA": "mlp_hjepa", "HamJEPA": "hamjepa"}
    for table, rows in PUBLISHED.items():
        assert {(table, wanted[row.rpartition("-")[0]]) for row in rows} <= found
    assert len({c.seed for c in SCALES["full"]() if c.table == "cifar100-30"}) == 3


def test_gpu_short_changes_how_a_step_runs_and_nothing_else():
    full = {c.id: c for c in SCALES["full"]()}
    for short in SCALES["gpu-short"]():
        assert differing_keys(to_yaml(recipe_of(short)), recipe_of(full[short.id]), short.id) == []


def test_an_ablation_is_one_switch():
    base = load_recipe("cifar100")
    for name, switch in ABLATIONS.items():
        changed = differing_keys(to_yaml(load_recipe("cifar100", list(switch))), base, name)
        assert changed, name
        assert {key.rpartition(".")[2] for key in changed} <= {s.partition("=")[0].rpartition(".")[2] for s in switch}


@pytest.mark.slow
def test_cells_run_once_and_the_report_holds_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(structure, "STATES", 8)
    monkeypatch.setattr(structure, "LOOP", 8)
    monkeypatch.setattr(structure, "WAYS", 2)
    cells = [
        cell("untrained"), *(cell(m, f"method={m}", seed=s) for m in ("sigreg", "hamjepa") for s in (42, 43)),
        cell("mlp_hjepa", "method=mlp_hjepa"),
        cell("explicit-euler", *ABLATIONS["explicit-euler"], table="textures-ablations"),
    ]  # fmt: skip
    reproduce(cells, tmp_path, SMALL)
    monkeypatch.setattr(study, "run_cell", lambda *a: pytest.fail("a finished cell was run again"))
    reproduce(cells, tmp_path, SMALL)
    with pytest.raises(SystemExit, match=r"other settings; these differ: optim\.lr; choose another --out"):
        reproduce(cells, tmp_path, [*SMALL, "optim.lr=1"])

    record = read(tmp_path / "textures/hamjepa-s42")
    assert record["steps"] == 6
    assert record["train_seconds"] > 0
    assert record["machine"]["torch"] == torch.__version__
    assert record["version"] == sj.__version__
    assert str(tmp_path) not in json.dumps(record)  # no path of one machine
    assert set(record["structure"]) == {"leapfrog", "explicit euler"}
    assert set(read(tmp_path / "textures/mlp_hjepa-s42")["structure"]) == {"residual MLP"}

    text = write_report(tmp_path, tmp_path / "report")
    rows = [read(tmp_path / f"textures/hamjepa-s{s}")["readouts"]["HamJEPA-q"] for s in (42, 43)]
    top1 = [row["knn"]["20"]["top1"] for row in rows]
    assert f"| HamJEPA-q | 256 | 2 | {sum(top1) / 2:.2f} ± {abs(top1[0] - top1[1]) / math.sqrt(2):.2f} |" in text
    other = [read(tmp_path / f"textures/sigreg-s{s}")["readouts"]["SIGReg-q"]["knn"]["20"]["top1"] for s in (42, 43)]
    gap = [a - b for a, b in zip(top1, other, strict=True)]
    assert f"| HamJEPA − SIGReg, q | 2 | {sum(gap) / 2:.2f} ±" in text
    assert "| raw pixels | 3072 | 1 |" in text
    assert "| explicit-euler | 1 |" in text
    assert "| leapfrog | " in text
    found = [row["isotropy"]["price"] for row in rows]
    assert f"| HamJEPA-q | {mean_std(found)} | " in text
    for name in ("readouts.png", "curves.png", "structure.png", "slices.png", "portrait.gif"):
        assert (tmp_path / "report/textures" / name).stat().st_size > 5000
        assert f"(textures/{name})" in text


@pytest.mark.slow
def test_a_killed_study_goes_on(tmp_path):
    command = [
        sys.executable, "-m", "examples.reproduce", "textures", "--out", str(tmp_path), "--only", "textures/*p*a-s42",
        *over(SMALL, "train.epochs=4"),
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first, second = (tmp_path / f"textures/{name}-s42" for name in ("mlp_hjepa", "hamjepa"))
    for _ in range(1200):
        if (second / "checkpoint.pt").is_file():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (second / "checkpoint.pt").is_file()
    assert not (second / "cell.json").is_file()
    stamp = (first / "cell.json").stat().st_mtime_ns
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    assert (first / "cell.json").stat().st_mtime_ns == stamp
    assert read(second)["steps"] == 12
    assert len((second / "metrics.jsonl").read_text().splitlines()) == 12
    assert "HamJEPA-qp" in (tmp_path / "report.md").read_text()


def test_a_training_that_met_nan_is_a_result_and_the_study_goes_on(tmp_path, monkeypatch):
    def broken(*arguments):
        raise NotFiniteError("loss not finite at step 3")

    monkeypatch.setattr(study, "train", broken)
    reproduce([cell("untrained"), cell("hamjepa")], tmp_path, SMALL)
    assert read(tmp_path / "textures/hamjepa-s42")["failed"] == "loss not finite at step 3"
    assert "hamjepa, seed 42: loss not finite at step 3" in write_report(tmp_path, tmp_path)


def test_missing_data_are_met_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "run_cell", lambda *a: pytest.fail("trained before the data were there"))
    missing = Cell("imagenet", "hamjepa", 42, "imagenet100", (f"data.root={tmp_path / 'nowhere'}",))
    with pytest.raises(SystemExit, match=r"data\.root .*nowhere"):
        reproduce([cell("hamjepa"), missing], tmp_path, SMALL)
    with pytest.raises(SystemExit, match="no finished cell"):
        write_report(tmp_path, tmp_path)


def test_a_data_set_may_be_elsewhere(tmp_path, monkeypatch):
    assert study.roots(["imagenet100=/a=b"]) == {"imagenet100": "/a=b"}
    for wrong in ("imagenet=/x", "imagenet100", "imagenet100="):
        with pytest.raises(
            SystemExit, match=r"--root must be NAME=PATH with NAME one of cifar100, imagenet100, textures"
        ):
            study.roots([wrong])
    with pytest.raises(SystemExit, match=r"data\.root .*there'"):
        reproduce([Cell("t", "hamjepa", 42, "imagenet100")], tmp_path, roots={"imagenet100": str(tmp_path / "there")})
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(sys, "argv", ["reproduce", "textures"])
    with pytest.raises(SystemExit, match="runs in one process"):
        command.main()


def test_collapsed_features_have_no_isotropy_and_any_other_fault_is_raised():
    labels = torch.arange(20) % 4
    assert isotropy(torch.ones(20, 3), labels) is None
    assert isotropy(torch.randn(20, 3), labels)["price"] >= 1
    with pytest.raises(ValueError, match="two classes"):
        isotropy(torch.randn(20, 3), torch.zeros(20, dtype=torch.long))


def test_a_published_number_is_within_two_deviations_or_not():
    assert mean_std([2.0]) == "2.00"
    assert mean_std([1.0, 3.0]) == "2.00 ± 1.41"
    assert within(2.0, [2.0]) == "one seed"
    assert within(4.8, [1.0, 3.0]) == "yes"
    assert within(4.9, [1.0, 3.0]) == "no"


# The structure of a predictor, against closed forms


def states(dim, count=6):
    return torch.randn(count, 2 * dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_loops_area_is_kept_by_leapfrog_and_grown_by_explicit_euler(monkeypatch):
    monkeypatch.setattr(structure, "ROLLOUT", 100)
    h, oscillator = 0.1, sj.QuadraticHamiltonian(3)
    for integrator, growth in ((sj.leapfrog, 1.0), (explicit_euler, 1 + h**2)):
        phi = sj.HamiltonianPredictor(oscillator, dt=h, steps=1, integrator=integrator)
        maps = structure.compared(phi, "leapfrog")["leapfrog"]
        numbers, arrays = structure.roll(maps, states(3))
        assert numbers["area_ratio"] == pytest.approx(growth**100, rel=1e-10)  # the determinant of one plane's map
        assert arrays["areas"].shape == (structure.FRAMES,)
        if growth > 1:  # its energy grows by 1 + h² each step, and the way back is off by as much
            assert numbers["energy_drift_end"] == pytest.approx(growth**100 - 1, rel=1e-10)
            assert numbers["round_trip_error"] == pytest.approx(h**2, rel=1e-10)
            assert numbers["symplecticity_defect"] == pytest.approx(h**2 * math.sqrt(6), rel=1e-10)
        else:
            assert numbers["energy_drift_max"] < h**2
            assert numbers["round_trip_error_100"] < 1e-13
            assert numbers["symplecticity_defect"] < 1e-14


def test_a_circles_area_is_that_of_its_polygon():
    circle = structure.loop(states(3), 1)
    corners = structure.LOOP
    area = structure.loop_area(circle[None])
    centre_free = circle - circle.mean(0)
    expected = 0.5 * corners * math.sin(2 * math.pi / corners)
    assert structure.loop_area(centre_free[None]).item() == pytest.approx(expected, rel=1e-12)
    assert area.item() == pytest.approx(expected, rel=1e-9)


def test_explicit_euler_is_no_map_to_come_back_by_and_trains_by_name():
    recipe = load_recipe("textures", ["predictor.integrator=explicit_euler"])
    predictor = build_model(recipe, torch.Size([3, 32, 32])).objective.predictor.double()
    z = states(256)
    assert sj.evaluation.symplecticity_defect(predictor, z[:1]).item() > 1e-4
    assert (predictor(predictor(z), direction=-1) - z).abs().max() > 1e-6

"""The benchmarks' textbook equals the library, their meter is right, and their scripts run."""

import functools
import json
import sys

import pytest
import torch

import symplectic_jepa as sj
from benchmarks import cpu, gpu, measure, ranks, scaling, textbook
from benchmarks.workloads import Target, collapsed_states, first_projections

CPU = torch.device("cpu")


def gradients(loss, inputs):
    return [loss, *torch.autograd.grad(loss, inputs)]


def test_textbook_matching_is_the_librarys():
    torch.manual_seed(0)
    ours = sj.SeparableHamiltonian(6, hidden_dim=5, residual_scale=1.0).double()
    theirs = textbook.Hamiltonian(ours).double()
    z = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    objective = sj.HamJEPAObjective(sj.HamiltonianPredictor(ours), p_weight=0.2)
    expected = gradients(textbook.matching(theirs, z, p_weight=0.2), [z, *list(theirs.parameters())[:-1]])
    parameters = [x for hidden in ours.hidden for x in (hidden.weight, hidden.bias)] + [ours.output.weight]
    torch.testing.assert_close(gradients(objective(z).loss, [z, *parameters]), expected, rtol=1e-10, atol=1e-12)


def test_textbook_sigreg_is_the_librarys():
    torch.manual_seed(0)
    z = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    a = torch.nn.functional.normalize(torch.randn(4, 5, dtype=torch.float64), dim=0)
    got = gradients(sj.SIGReg(slices=5, knots=7)(z, directions=a), [z])
    torch.testing.assert_close(got, gradients(textbook.sigreg(z, a, knots=7), [z]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("batch", "dim"), [(5, 16), (80, 140)], ids=["fewer samples", "fewer projections"])
def test_textbook_objective_is_the_librarys(batch, dim):
    torch.manual_seed(0)
    hamiltonian = sj.SeparableHamiltonian(dim, hidden_dim=5).double()
    objective = sj.hamjepa_cifar100(sj.HamiltonianPredictor(hamiltonian))
    z = collapsed_states(batch, dim, device=CPU).double().requires_grad_()
    theirs, projections = textbook.Hamiltonian(hamiltonian).double(), first_projections(objective, z)
    loss, terms = objective(z)
    assert all(value > 0 for name, value in terms.items() if "/" not in name)
    expected = gradients(textbook.objective(theirs, z, projections), [z])
    torch.testing.assert_close(gradients(loss, [z]), expected, rtol=1e-5, atol=1e-9)
    hinges = [objective.penalties[f"spectrum_{half}"].regularizer for half in "qp"]
    for half, hinge in zip("qp", hinges, strict=True):
        log_det, participation, top_share = (
            terms[f"spectrum_{half}/{name}"] for name in ("log_det", "participation", "top_share")
        )
        assert log_det < hinge.log_det
        assert participation < hinge.participation
        assert top_share > hinge.top_share
    exchanged = textbook.objective(theirs, z, dict(zip("pq", projections.values(), strict=True)))
    assert abs(exchanged / loss - 1) > 1e-4  # the check above would see another projection


def test_textbook_encoder_is_the_papers():
    torch.manual_seed(0)
    theirs, ours = textbook.Encoder(), sj.PhaseSpaceTokenEncoder.resnet18()
    stages = [theirs.net.conv1, theirs.net.bn1, theirs.net.relu]
    stages += [theirs.net.layer1, theirs.net.layer2, theirs.net.layer3]
    for mine, his in zip(ours.backbone, stages, strict=True):
        mine.load_state_dict(his.state_dict())
    ours.token_projection.load_state_dict(theirs.project.state_dict())
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))


def test_peak_memory_of_a_known_case():
    def run():
        a = torch.empty(1 << 20)  # 4 MiB
        b = a + 1  # 8 MiB with a
        del a
        return b[:1] + 1  # a is gone: 4 MiB and a little

    assert measure.peak_bytes(run, CPU) == pytest.approx(8 * 2**20, rel=1e-3)


def test_runs_are_taken_in_turn_and_paired():
    order = []
    times = measure.paired_times(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, device=CPU, budget=10.0, most=4, sample=0.0
    )
    assert "".join(order) == "ab" * 6  # two rounds of warm-up
    assert [len(values) for values in times.values()] == [4, 4]
    assert measure.ratio({"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 4.0]}, "a", "b") == {"median": 2, "min": 1, "max": 3}


def test_targets_point_the_right_way():
    assert Target("a", "b", 2.0).met(2.5)
    assert not Target("a", "b", 2.0).met(1.5)
    assert Target("a", "b", 0.2, at_least=False).met(0.1)
    assert not Target("a", "b", 0.2, at_least=False).met(0.3)


@pytest.fixture
def quick_compile(monkeypatch):
    """Graphs are traced and run as they are: the scripts' flow is on trial, not inductor."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


@pytest.mark.slow
@pytest.mark.parametrize("script", [cpu, gpu], ids=["cpu", "gpu"])
def test_the_speed_tables_run(script, quick_compile, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", [script.__name__, "--smoke", "--out", str(tmp_path)])
    script.main()
    name = script.__name__.rsplit(".", maxsplit=1)[-1]
    report = json.loads((tmp_path / f"{name}.json").read_text())
    assert set(report["rows"]) >= {"matching", "sigreg", "floors", "objective"}
    for row in report["rows"].values():
        assert all(value > 0 for value in row["milliseconds"].values())
        difference = row["notes"].get("relative difference from the textbook", 0.0)
        assert difference < 1e-5
    text = (tmp_path / f"{name}.md").read_text()
    assert "whole HamJEPA objective" in text
    assert "| textbook / compiled, seconds: ≥ 2.5 |" in text


def test_the_gpu_table_asks_for_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="no CUDA device: run with --smoke"):
        gpu.main()


def test_the_figure_of_growing_cost_is_drawn(tmp_path, monkeypatch, capfd):
    figure = tmp_path / "scaling.png"
    monkeypatch.setattr(sys, "argv", ["scaling", "--smoke", "--out", str(tmp_path), "--figure", str(figure)])
    scaling.main()
    assert set(json.loads((tmp_path / "scaling.json").read_text())["curves"]) == {"B", "d", "M", "S"}
    assert figure.stat().st_size > 10_000


@pytest.mark.slow
def test_the_share_of_the_objective_on_several_ranks(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["ranks", "--smoke", "--out", str(tmp_path)])
    ranks.main()
    rows = json.loads((tmp_path / "ranks.json").read_text())["rows"]
    assert [(row["method"], row["ranks"]) for row in rows] == [(m, w) for m in ranks.METHODS for w in (1, 2)]
    for row in rows:
        assert 0 < row["objective_share"] < 1
        assert (row["bytes"] > 0) == (row["collective_share"] > 0) == (row["ranks"] > 1)
    assert (tmp_path / "ranks.md").read_text().count("| hamjepa |") == 2

"""Weights and settings come back equal, from two files that belong together and hold no code."""

import copy
import dataclasses
import inspect
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa import _folder
from symplectic_jepa.pretrained import Pretrained
from tests.helpers.cases import CASES, MAPS, D
from tests.helpers.paths import ROOT

FORMAT_1 = ROOT / "tests" / "data" / "pretrained_v1"
WRITABLE = [name for name in CASES if name != "user potential"]


def samples(module):
    torch.manual_seed(1)
    if isinstance(module, sj.predictors.Predictor):
        return torch.randn(5, 2 * D)
    return torch.randn(2, 24, 2 * D)


def call(module, x):
    output = module(x)
    return output[0] if isinstance(output, tuple) else output


def scramble(module):
    """Weights and buffers that no constructor makes."""
    state = {k: 1.01 * x if x.is_floating_point() else x for k, x in module.state_dict().items()}
    module.load_state_dict(state)
    return module


def weights(folder):
    (file,) = folder.glob("*.safetensors")
    return file


def settings(folder):
    return json.loads((folder / "config.json").read_text())


def forge(folder, config):
    """Settings that `save_pretrained` would not write, with a checksum that fits."""
    config["checksum"] = _folder._checksum(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", WRITABLE)
def test_a_module_comes_back_equal(name, tmp_path):
    module = scramble(CASES[name]())
    x = samples(module)
    for _ in range(3):  # counters of random draws move on
        call(module, x)
    module.save_pretrained(tmp_path)
    loaded = type(module).from_pretrained(tmp_path)
    assert type(loaded) is type(module)
    assert not any(part.training for part in loaded.modules())
    loaded.save_pretrained(tmp_path / "again")
    for file in tmp_path.glob("*.*"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    loaded.train()
    for _ in range(3):
        assert torch.equal(call(loaded, x), call(module, x))


@pytest.mark.parametrize("name", CASES)
def test_every_argument_of_every_part_can_be_read(name):
    """And a module built from its settings has them: a property that reads another setting would show."""
    for part in CASES[name]().modules():
        if isinstance(part, Pretrained):
            config = part.config()
            inspect.signature(type(part)).bind(**config)
            named = [x for x in inspect.signature(type(part)).parameters.values() if x.kind is not x.VAR_KEYWORD]
            assert {x.name for x in named} <= config.keys()
            again = type(part)(**config).config()
            for key, x in config.items():
                same = torch.equal(again[key], x) if isinstance(x, torch.Tensor) else again[key] == x
                assert same or isinstance(x, nn.ModuleDict), key


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (
            sj.SeparableHamiltonian,
            {"dim": 3, "depth": 4, "activation": "tanh", "residual_scale": 0.25},
        ),
        (sj.GeneralHamiltonian, {"dim": 3, "hidden_dim": 5, "depth": 1, "residual_scale": 0.25}),
        (sj.ResidualMLPPredictor, {"dim": 3, "hidden_dim": 5, "depth": 3, "dt": 0.3, "steps": 7, "learn_dt": True}),
        (sj.SIGReg, {"slices": 3, "knots": 5, "t_max": 4.1, "seed": 6, "sync": False}),
        (sj.SlicedMMD, {"slices": 3, "bandwidth": 2.0, "seed": 6}),
        (sj.SpectralFloors, {"log_det": -1.0, "top_share": 0.4, "proj_dim": 7, "eps": 0.1, "seed": 6}),
        (
            sj.geometries.RadialGeometry,
            {"grid": (2, 3), "knots": 4, "max_condition": 9.0, "initial_condition": 3.0, "boundary": "periodic"},
        ),
    ],
)
def test_settings_can_be_read_are_printed_and_come_back(module, options, tmp_path):
    built = module(**options)
    assert options.items() <= built.config().items()
    shown = ", ".join(f"{k}={x:g}" if isinstance(x, float) else f"{k}={x!r}" for k, x in options.items())
    assert built.extra_repr() == shown
    built.save_pretrained(tmp_path)
    assert settings(tmp_path)["arguments"].keys() == options.keys()  # defaults are left out
    assert module.from_pretrained(tmp_path).config() == built.config()


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (sj.ProjectedLogDetFloor, {"floor": -1.0, "refresh_every": 3, "seed": 6}),
        (sj.TopEigenvalueCeiling, {"ceiling": 0.4, "eps": 0.1, "seed": 6}),
        (sj.ParticipationRatioFloor, {"floor": 0.3, "proj_dim": None, "sync": False}),
    ],
)
def test_a_floor_with_one_hinge_comes_back(module, options, tmp_path):
    built = module(**options)
    assert options.items() <= built.config().items()
    built.save_pretrained(tmp_path)
    assert module.from_pretrained(tmp_path).config() == built.config()


@pytest.mark.parametrize("options", [{}, {"stem": "imagenet", "token_layer": 2, "token_channels": 8, "grid": 2}])
def test_an_encoder_comes_back_equal(options, tmp_path):
    encoder = scramble(sj.PhaseSpaceTokenEncoder.resnet18(**options)).to(memory_format=torch.channels_last)
    encoder(torch.randn(4, 3, 32, 32))  # BatchNorm's statistics move
    encoder.save_pretrained(tmp_path)
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path)
    state, expected = loaded.state_dict(), encoder.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[k], expected[k]) for k in state)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), encoder.eval()(images))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_are_kept(dtype, tmp_path):
    objective = sj.hamjepa_cifar100(MAPS["leapfrog"]()).to(dtype)
    objective.save_pretrained(tmp_path)
    loaded = sj.HamJEPAObjective.from_pretrained(tmp_path)
    dtypes = {key: x.dtype for key, x in objective.state_dict().items()}
    assert {key: x.dtype for key, x in loaded.state_dict().items()} == dtypes
    assert {x.dtype for x in loaded.parameters()} == {dtype}
    assert all(x.requires_grad for x in loaded.parameters())


def test_a_module_without_values_can_be_printed():
    with torch.device("meta"):
        assert repr(sj.SeparableHamiltonian(3)).startswith("SeparableHamiltonian(\n  dim=3\n")


def test_tensor_arguments_and_integrators_of_every_kind(tmp_path):
    systems = [
        sj.QuadraticHamiltonian(D, geometry=3.0 * torch.eye(D)),
        sj.ControlledHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=4), torch.randn(D, 2)),
        sj.ControlledHamiltonian(sj.QuadraticHamiltonian(D), nn.Parameter(torch.randn(D, 2))),
    ]
    mclachlan = sj.integrators.Splitting("mine", kicks=(0.2, 0.6, 0.2), drifts=(0.5, 0.5), order=2)
    integrators = [sj.leapfrog, sj.integrators.SPLITTINGS["leapfrog"], sj.yoshida4, mclachlan]
    integrators += [sj.implicit_midpoint, sj.integrators.ImplicitMidpoint(iterations=3)]
    z = torch.randn(3, 2 * D)
    for system in systems:
        for integrator in integrators:
            predictor = sj.HamiltonianPredictor(system, integrator=integrator, dt=0.3, steps=3)
            predictor.save_pretrained(tmp_path)
            loaded = sj.HamiltonianPredictor.from_pretrained(tmp_path)
            assert loaded.integrator == integrator
            assert torch.equal(loaded(z), predictor(z))
            if isinstance(integrator, sj.integrators.Splitting):
                assert dataclasses.asdict(loaded.integrator) == dataclasses.asdict(integrator)
    assert isinstance(loaded.hamiltonian.input_matrix, nn.Parameter)
    assert load_file(weights(tmp_path)).keys() == {"hamiltonian.input_matrix"}  # once, though argument and state


def test_settings_changed_after_the_construction_are_written(tmp_path):
    objective = sj.hamjepa_cifar100(MAPS["leapfrog"]())
    objective.predictor = sj.HamiltonianPredictor(sj.SeparableHamiltonian(D, hidden_dim=5), steps=7)
    objective.penalties["mean"].weight = 0.5
    del objective.penalties["budget_q"]
    objective.save_pretrained(tmp_path)
    loaded = sj.HamJEPAObjective.from_pretrained(tmp_path)
    assert (loaded.predictor.steps, loaded.penalties["mean"].weight) == (7, 0.5)
    assert list(loaded.penalties) == list(objective.penalties)


def test_shared_parts_stay_shared(tmp_path):
    geometry = sj.geometries.RadialGeometry((2, 2))
    shared = sj.HamSIGReg(geometry, slices=4)
    penalties = {
        "q": sj.Penalty(shared, views="separate"),
        "p": sj.Penalty(shared),
        "z": sj.Penalty(sj.HamSIGReg(geometry, slices=5)),
    }
    objective = sj.LeJEPAObjective(penalties)
    objective.save_pretrained(tmp_path)
    loaded = sj.LeJEPAObjective.from_pretrained(tmp_path)
    assert len(list(loaded.parameters())) == len(list(objective.parameters())) == 1
    q, p, z = (loaded.penalties[name].regularizer for name in "qpz")
    assert q is p
    assert q is not z
    assert q.geometry is z.geometry
    assert [key for key in load_file(weights(tmp_path)) if key.endswith("theta")] == [
        "penalties.q.regularizer.geometry.theta"
    ]


def test_tied_weights_stay_tied(tmp_path):
    predictor = sj.ResidualMLPPredictor(2, hidden_dim=4, depth=3)
    predictor.residual[4].weight = predictor.residual[2].weight
    matrix = nn.Parameter(torch.randn(2, 1))
    predictor.save_pretrained(tmp_path)
    loaded = sj.ResidualMLPPredictor.from_pretrained(tmp_path)
    assert loaded.residual[4].weight is loaded.residual[2].weight
    assert sum(x.numel() for x in loaded.parameters()) == sum(x.numel() for x in predictor.parameters())
    inner = sj.ControlledHamiltonian(sj.QuadraticHamiltonian(2), matrix)
    sj.ControlledHamiltonian(inner, matrix).save_pretrained(tmp_path)
    assert len(list(sj.ControlledHamiltonian.from_pretrained(tmp_path).parameters())) == 1


# Parts and classes of the user


class Well(nn.Module):
    def __init__(self):
        super().__init__()
        self.depth = nn.Parameter(torch.tensor(0.7))

    def forward(self, q):
        return (self.depth * q.cos()).sum(-1)


def test_what_cannot_be_written_is_asked_for(tmp_path):
    predictor = sj.HamiltonianPredictor(sj.PotentialHamiltonian(scramble(Well())))
    predictor.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"needs potential=…: this argument \(hamiltonian.potential\)"):
        sj.HamiltonianPredictor.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="does not ask for backbone"):
        sj.HamiltonianPredictor.from_pretrained(tmp_path, potential=Well(), backbone=None)
    z = torch.randn(3, 2 * D)
    for name in ("potential", "hamiltonian.potential"):
        loaded = sj.HamiltonianPredictor.from_pretrained(tmp_path, **{name: Well()})
        assert torch.equal(loaded(z), predictor(z))

    backbone = nn.Conv2d(3, 12, 4, 4)
    encoder = sj.PhaseSpaceTokenEncoder(backbone, in_channels=12, token_channels=4)
    encoder.double().save_pretrained(tmp_path)
    mine = nn.Conv2d(3, 12, 4, 4)
    held = list(mine.parameters())  # as an optimizer does
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path, backbone=mine)
    assert all(x is y for x, y in zip(held, loaded.backbone.parameters(), strict=True))
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(loaded(images), encoder.eval()(images))


def test_two_places_never_get_one_given_part(tmp_path):
    def regularizer(scale):
        return lambda x: scale * x.square().mean()

    def objective(*regularizers):
        names = zip("ab", regularizers, strict=True)
        return sj.LeJEPAObjective({k: sj.Penalty(x) for k, x in names})

    states = torch.randn(2, 5, 4)
    two = objective(regularizer(1), regularizer(2))
    two.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"asked for at penalties\.a\.regularizer and at penalties\.b\.regularizer"):
        sj.LeJEPAObjective.from_pretrained(tmp_path, regularizer=regularizer(1))
    places = {"penalties.a.regularizer": regularizer(1), "penalties.b.regularizer": regularizer(2)}
    assert torch.equal(sj.LeJEPAObjective.from_pretrained(tmp_path, **places)(states)[0], two(states)[0])
    one = regularizer(3)
    objective(one, one).save_pretrained(tmp_path)  # one part at two places is asked for once
    loaded = sj.LeJEPAObjective.from_pretrained(tmp_path, regularizer=one)
    assert loaded.penalties["a"].regularizer is loaded.penalties["b"].regularizer is one


class Pendulum(sj.hamiltonians.AbstractSeparable):
    def potential(self, q):
        return 1 - q.cos().sum(-1)

    def force(self, q):
        return -q.sin()


class LongPendulum(Pendulum):
    def __init__(self, length):
        super().__init__()
        self.length = length


class _Private(LongPendulum):
    pass


class Configured(LongPendulum):
    def __init__(self, length):
        super().__init__(length)
        self.config = {"a habit": "of many code bases"}


class Argument(Pendulum):
    def __init__(self, offset):
        super().__init__()
        self.offset = offset
        self.argument = nn.Linear(2, 2)


class Open(Pendulum):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def config(self):
        return self.options


@pytest.mark.parametrize(
    "module", [Pendulum(), LongPendulum(2.5), _Private(2.5), Configured(2.5), Open(length=1, options=[1, (2, None)])]
)
def test_a_users_subclass(module, tmp_path):
    module.save_pretrained(tmp_path)
    loaded = type(module).from_pretrained(tmp_path)
    assert vars(loaded).get("length") == vars(module).get("length")
    assert vars(loaded).get("options") == vars(module).get("options")
    with pytest.raises(ValueError, match=f"'{type(module).__name__}', which is not a module of symplectic_jepa"):
        sj.hamiltonians.Hamiltonian.from_pretrained(tmp_path)


def test_a_part_called_argument_and_a_tensor_outside_of_the_state(tmp_path):
    module = Argument(torch.tensor([1.0, 2.0]))
    module.save_pretrained(tmp_path)
    loaded = Argument.from_pretrained(tmp_path)
    assert torch.equal(loaded.offset, module.offset)
    assert torch.equal(loaded.argument.weight, module.argument.weight)


class Forgetful(Pendulum):
    def __init__(self, length):
        super().__init__()


class Keywords(Pendulum):
    def __init__(self, **options):
        super().__init__()


class OtherWell(sj.PotentialHamiltonian):
    def __init__(self):
        super().__init__(Well())


class Numbered(Pendulum):
    def __init__(self):
        super().__init__()

    def get_extra_state(self):
        return {"not": "a tensor"}


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Forgetful(1.0), "Forgetful must keep 'length' as an attribute, or override config"),
        (Keywords(a=1), r"Keywords must override config\(\): its constructor takes \*\*options"),
        (OtherWell(), "settings of OtherWell must be its constructor's arguments: .*'potential'"),
        (Numbered(), "must hold tensors to be saved, got dict at _extra_state"),
        (Open(options={1: 2}), r"options must have words as keys to be saved, got \[1\]"),
        (type("SIGReg", (sj.SIGReg,), {})(), "SIGReg must have another name to be saved"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(module, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        module.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert type(module).__name__ in repr(module)


# The two files


def test_the_files_hold_numbers_only(tmp_path):
    sj.hamjepa_cifar100(MAPS["leapfrog"]()).save_pretrained(tmp_path)
    config = settings(tmp_path)
    assert (config["class"], config["version"], config["format"]) == ("HamJEPAObjective", sj.__version__, 2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", f"model-{config['weights'][:12]}.safetensors"]
    assert any(key.endswith("predictor.hamiltonian.output.weight") for key in load_file(weights(tmp_path)))


@pytest.mark.parametrize("name", ["os", "torch", "_checks", "leapfrog", "Floors2", "sigreg_baseline", 7, None])
def test_names_outside_of_the_library_are_refused(name, tmp_path):
    sj.VarianceFloor().save_pretrained(tmp_path)
    forge(tmp_path, {**settings(tmp_path), "class": name})
    with pytest.raises(ValueError, match=f"names {name!r}, which is not a module"):
        sj.VarianceFloor.from_pretrained(tmp_path)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        sj.VarianceFloor.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="must be a folder or a repository 'user/name', got '.*/nothing'"):
        sj.VarianceFloor.from_pretrained(tmp_path / "nothing")
    sj.VarianceFloor().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="holds a VarianceFloor, expected a SIGReg"):
        sj.SIGReg.from_pretrained(tmp_path)
    config = settings(tmp_path)
    for text, message in (
        ("{", r"config\.json is not JSON"),
        ("[" * 100_000, r"config\.json is not JSON"),
        ("[]", "must hold a 'class'"),
        (json.dumps({**config, "format": 3}), "must have format 1 or 2, got 3"),
        (json.dumps({**config, "arguments": {"floor": 9.0}}), "changed by hand: its checksum does not fit"),
        (json.dumps({**config, "weights": "../secret"}), "checksum does not fit"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            sj.VarianceFloor.from_pretrained(tmp_path)
    forge(tmp_path, {**config, "arguments": {"ceiling": 1.0}})
    with pytest.raises(TypeError, match="settings of VarianceFloor must be its constructor's arguments: .*'ceiling'"):
        sj.VarianceFloor.from_pretrained(tmp_path)
    predictor = sj.ResidualMLPPredictor(D)
    predictor.save_pretrained(tmp_path)
    config = settings(tmp_path)
    config["arguments"]["hidden_dim"] = 3
    forge(tmp_path, config)
    with pytest.raises(RuntimeError, match="size mismatch"):
        sj.ResidualMLPPredictor.from_pretrained(tmp_path)


def test_every_flipped_bit_is_noticed(tmp_path):
    module = sj.HamSIGReg(sj.geometries.RadialGeometry((2, 2), knots=3), seed=2)
    module.save_pretrained(tmp_path)
    expected = repr(module)
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        for bit in range(0, 8 * len(content), 7):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            try:
                loaded = sj.HamSIGReg.from_pretrained(tmp_path)
            except (ValueError, FileNotFoundError):
                continue
            assert file.name == "config.json"  # "e" for "E" in a number, which is the same number
            assert repr(loaded) == expected
        file.write_bytes(content)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    predictor = sj.ResidualMLPPredictor(2, hidden_dim=3)
    with torch.no_grad():
        predictor.residual[0].bias[1] = math.nan
    predictor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"residual\.0\.bias in .* holds NaN or infinity"):
        sj.ResidualMLPPredictor.from_pretrained(tmp_path)
    assert sj.ResidualMLPPredictor.from_pretrained(tmp_path, allow_nonfinite=True).residual[0].bias[1].isnan()


@pytest.mark.parametrize("cleans", [True, False], ids=["exception", "kill"])
def test_a_save_that_stops_anywhere_leaves_the_old_or_the_new_module(cleans, tmp_path, monkeypatch):
    """Every operation on the disk in turn is the last one; a killed process does not even remove its own files."""

    class Stop(BaseException):
        pass

    def count(function):
        def counted(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0 and (function.__name__ != "unlink" or not cleans):
                raise Stop
            return function(*args, **kwargs)

        return counted

    outcomes = set()
    for stop in range(12):
        folder = tmp_path / str(stop)
        old, new = sj.ResidualMLPPredictor(2, hidden_dim=3, steps=5), sj.ResidualMLPPredictor(2, hidden_dim=3, steps=6)
        old.save_pretrained(folder)
        left = stop
        with monkeypatch.context() as patch:
            for owner, name in ((_folder.os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "open")):
                patch.setattr(owner, name, count(getattr(owner, name)))
            try:
                new.save_pretrained(folder)
            except Stop:
                outcomes.add("stopped")
            else:
                outcomes.add("done")
        loaded = sj.ResidualMLPPredictor.from_pretrained(folder)
        expected = {5: old, 6: new}[loaded.steps]
        assert torch.equal(loaded.residual[0].weight, expected.residual[0].weight)
        outcomes.add(loaded.steps)
        if cleans:
            assert not list(folder.glob(".*"))
        new.save_pretrained(folder)
        assert sj.ResidualMLPPredictor.from_pretrained(folder).steps == 6
    assert outcomes == {"stopped", "done", 5, 6}


def test_a_second_process_that_saves_meanwhile_keeps_its_weights(tmp_path, monkeypatch):
    one, two = sj.ResidualMLPPredictor(2, hidden_dim=3), sj.ResidualMLPPredictor(2, hidden_dim=3)
    one.save_pretrained(tmp_path)
    replace = _folder._replace

    def replace_and_let_another_save(path, content):
        replace(path, content)
        if path.name == "config.json":
            monkeypatch.setattr(_folder, "_replace", replace)
            one.save_pretrained(tmp_path)

    monkeypatch.setattr(_folder, "_replace", replace_and_let_another_save)
    two.save_pretrained(tmp_path)  # which replaces what was there before, and that is there again
    loaded = sj.ResidualMLPPredictor.from_pretrained(tmp_path)
    assert torch.equal(loaded.residual[0].weight, one.residual[0].weight)


def test_temporary_files_follow_no_link_and_replace_nothing(tmp_path, monkeypatch):
    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr(_folder.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".config.json.guessed.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        sj.VarianceFloor().save_pretrained(tmp_path)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    ("module", "settings_"),
    [
        (lambda: sj.SeparableHamiltonian(4), {"dim": 4, "depth": 10**6}),
        (lambda: sj.SeparableHamiltonian(4), {"dim": 4, "depth": 10**18}),
        (lambda: sj.SeparableHamiltonian(4), {"dim": 4, "hidden_dim": 10**5}),
        (lambda: sj.SeparableHamiltonian(4), {"dim": 10**30}),
        (lambda: sj.ResidualMLPPredictor(4), {"dim": 4, "depth": 10**6}),
        (sj.SIGReg, {"knots": 10**10}),
        (lambda: sj.geometries.LaplacianGeometry(4), {"grid": {"tuple": [10**6, 10**6]}}),
        (lambda: sj.geometries.RadialGeometry(4), {"grid": 4, "knots": 10**10}),
    ],
)
def test_absurd_sizes_are_refused_before_they_are_built(module, settings_, tmp_path):
    module().save_pretrained(tmp_path)
    forge(tmp_path, {**settings(tmp_path), "arguments": settings_})
    with pytest.raises(ValueError, match=r"at most|more parameters than the file|cannot be built"):
        type(module()).from_pretrained(tmp_path)


# The Hugging Face Hub


def test_the_hub_there_and_back(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    calls = []

    def upload_folder(*, repo_id, folder_path, delete_patterns, **options):
        for old in (tmp_path / repo_id).glob(delete_patterns):
            old.unlink()
        shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}/{options['revision']}"

    def snapshot_download(repo_id, *, revision, allow_patterns):
        calls.append((repo_id, revision, allow_patterns))
        return str(tmp_path / repo_id)

    monkeypatch.setattr(hub, "create_repo", lambda *args, **options: calls.append((*args, options)))
    monkeypatch.setattr(hub, "upload_folder", upload_folder)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    for _ in range(2):
        predictor = scramble(sj.ResidualMLPPredictor(2, hidden_dim=3))
        assert predictor.push_to_hub("me/maps", private=True, revision="next") == "https://hub/me/maps/next"
    loaded = sj.predictors.Predictor.from_pretrained("me/maps", revision="abc")
    assert torch.equal(loaded.residual[0].weight, predictor.residual[0].weight)
    assert len(list((tmp_path / "me" / "maps").glob("*.safetensors"))) == 1
    assert calls == [
        *2 * [("me/maps", {"private": True, "exist_ok": True})],
        ("me/maps", "abc", ["config.json", "model*.safetensors"]),
    ]
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface-hub"):
        predictor.push_to_hub("me/maps")
    with pytest.raises(FileNotFoundError, match="must be a folder or a repository 'user/name', got 'me/maps'"):
        sj.predictors.Predictor.from_pretrained("me/maps")


# Format 1, in folders that development versions wrote


def predict(name, module):
    x = torch.linspace(-1, 1, 2 * 24 * 8).reshape(2, 24, 8).sin()
    with torch.no_grad():
        if name.startswith("controlled"):
            return module.with_control(torch.tensor([0.3, -0.4])).force(x[..., :4])
        if name == "potential":
            return module(*x.chunk(2, -1))
        if name == "encoder":
            return module(torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8).cos())
        return call(module, x)


GIVEN = {
    "potential": lambda: {"potential": nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(-2))},
    "encoder": lambda: {"backbone": nn.Conv2d(3, 6, 4, 4)},
}
EXPECTED = json.loads((FORMAT_1 / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_format_1_is_read(name, tmp_path):
    given = GIVEN.get(name, dict)
    module = Pretrained.from_pretrained(FORMAT_1 / name, **given())
    for _ in range(2):
        y = predict(name, module).double()
        torch.testing.assert_close([y.sum().item(), y.square().sum().item()], EXPECTED[name], rtol=1e-5, atol=1e-5)
        shutil.copytree(FORMAT_1 / name, tmp_path, dirs_exist_ok=True)
        module.save_pretrained(tmp_path)  # over the old one, whose weights go
        assert len(list(tmp_path.iterdir())) == 2
        module = Pretrained.from_pretrained(tmp_path, **given())


def test_format_1_of_an_encoder_and_of_a_forward_objective(tmp_path):
    encoder = scramble(sj.PhaseSpaceTokenEncoder.resnet18(stem="imagenet", token_layer=2, token_channels=8, grid=2))
    shutil.copy(FORMAT_1 / "resnet18" / "config.json", tmp_path)
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path)
    assert torch.equal(loaded.backbone[0].weight, encoder.backbone[0].weight)
    assert loaded.config() | {"backbone": None} == encoder.config() | {"backbone": None}
    assert loaded.backbone.config() == encoder.backbone.config()
    for constructor in ("save_pretrained", "__init__", 3):
        config = {**settings(FORMAT_1 / "resnet18"), "constructor": constructor}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="which is not a constructor"):
            sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path)
    directions = [
        loaded.config().get("backward", "forward" if not getattr(loaded, "reverse_time", True) else "reverse")
        for loaded in (sj.HamJEPAObjective.from_pretrained(FORMAT_1 / n) for n in ("hamjepa", "hamjepa_forward"))
    ]
    assert directions == ["reverse", "forward"]


def test_a_copy_is_saved_as_its_original(tmp_path):
    predictor = MAPS["symplectic_euler"]()
    copy.deepcopy(predictor).save_pretrained(tmp_path)
    assert sj.HamiltonianPredictor.from_pretrained(tmp_path).integrator == sj.symplectic_euler

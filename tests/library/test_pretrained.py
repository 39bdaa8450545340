"""Weights and settings come back equal, from files that hold no code; the authors' layout is read."""

import dataclasses
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models.resnet import BasicBlock

import symplectic_jepa as sj
from symplectic_jepa import pretrained
from tests.helpers.cases import CASES, MAPS, D


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
    with torch.no_grad():
        for x in module.state_dict().values():
            if x.is_floating_point():
                x.mul_(1.01)
    module.load_state_dict(module.state_dict())  # a geometry's root follows its matrix
    return module


@pytest.mark.parametrize("name", [name for name in CASES if name != "user potential"])
def test_a_module_comes_back_equal(name, tmp_path):
    module = scramble(CASES[name]())
    x = samples(module)
    for _ in range(3):  # counters of random draws move on
        call(module, x)
    module.save_pretrained(tmp_path)
    loaded = type(module).from_pretrained(tmp_path)
    assert type(loaded) is type(module)
    assert repr(loaded) == repr(module)
    for _ in range(3):
        assert torch.equal(call(loaded, x), call(module, x))
    loaded.save_pretrained(tmp_path / "again")
    module.save_pretrained(tmp_path)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


@pytest.mark.parametrize("options", [{}, {"stem": "imagenet", "token_layer": 2, "token_channels": 8, "grid": 2}])
def test_an_encoder_comes_back_equal(options, tmp_path):
    encoder = scramble(sj.PhaseSpaceTokenEncoder.resnet18(**options)).to(memory_format=torch.channels_last)
    encoder(torch.randn(4, 3, 32, 32))  # BatchNorm's statistics move
    encoder.save_pretrained(tmp_path)
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path)
    weights, expected = loaded.state_dict(), encoder.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[k], expected[k]) for k in weights)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.eval()(images), encoder.eval()(images))


def test_dtypes_are_kept(tmp_path):
    predictor = sj.HamiltonianPredictor(sj.SeparableHamiltonian(D, hidden_dim=8).double())
    predictor.save_pretrained(tmp_path)
    loaded = sj.predictors.Predictor.from_pretrained(tmp_path)
    assert {x.dtype for x in loaded.parameters()} == {torch.float64}
    assert all(x.requires_grad for x in loaded.parameters())


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


def test_settings_changed_after_the_construction_are_written(tmp_path):
    objective = sj.hamjepa_cifar100(MAPS["leapfrog"]())
    objective.predictor = sj.HamiltonianPredictor(sj.SeparableHamiltonian(D, hidden_dim=5), steps=7)
    objective.penalties["mean"].weight = 0.5
    del objective.penalties["budget_q"]
    objective.save_pretrained(tmp_path)
    loaded = sj.HamJEPAObjective.from_pretrained(tmp_path)
    assert (loaded.predictor.steps, loaded.penalties["mean"].weight) == (7, 0.5)
    assert list(loaded.penalties) == list(objective.penalties)


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
    assert torch.equal(sj.HamiltonianPredictor.from_pretrained(tmp_path, potential=Well())(z), predictor(z))

    backbone = nn.Conv2d(3, 12, 4, 4)
    encoder = sj.PhaseSpaceTokenEncoder(backbone, in_channels=12, token_channels=4)
    encoder.save_pretrained(tmp_path)
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path, backbone=nn.Conv2d(3, 12, 4, 4))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(images), encoder(images))


def test_a_users_subclass(tmp_path):
    class Pendulum(sj.hamiltonians.AbstractSeparable):
        def __init__(self, length):
            super().__init__()
            self.length = length

        def potential(self, q):
            return self.length * (1 - q.cos()).sum(-1)

        def force(self, q):
            return -self.length * q.sin()

    Pendulum(2.5).save_pretrained(tmp_path)
    assert Pendulum.from_pretrained(tmp_path).length == 2.5
    with pytest.raises(ValueError, match="'Pendulum', which symplectic_jepa .* does not have"):
        sj.hamiltonians.Hamiltonian.from_pretrained(tmp_path)


def test_the_files_hold_numbers_only(tmp_path):
    sj.hamjepa_cifar100(MAPS["leapfrog"]()).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["class"], config["version"]) == ("HamJEPAObjective", sj.__version__)
    assert load_file(tmp_path / "model.safetensors").keys() >= {"predictor.hamiltonian.output.weight"}


@pytest.mark.parametrize("name", ["os", "torch", "_checks", "leapfrog", "Floors2"])
def test_names_outside_of_the_library_are_refused(name, tmp_path):
    sj.VarianceFloor().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "class": name}))
    with pytest.raises((TypeError, ValueError), match=name):
        sj.VarianceFloor.from_pretrained(tmp_path)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        sj.VarianceFloor.from_pretrained(tmp_path)
    sj.VarianceFloor().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="holds a VarianceFloor, expected a SIGReg"):
        sj.SIGReg.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        sj.VarianceFloor.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a 'class'"):
        sj.VarianceFloor.from_pretrained(tmp_path)
    predictor = sj.ResidualMLPPredictor(D)
    predictor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["arguments"]["hidden_dim"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="size mismatch"):
        sj.ResidualMLPPredictor.from_pretrained(tmp_path)
    config["constructor"] = "save_pretrained"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="which is no constructor"):
        sj.ResidualMLPPredictor.from_pretrained(tmp_path)


def test_a_write_that_fails_leaves_the_old_files(tmp_path, monkeypatch):
    sj.VarianceFloor(0.3).save_pretrained(tmp_path)

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(pretrained.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        sj.VarianceFloor(0.4).save_pretrained(tmp_path)
    monkeypatch.undo()
    assert repr(sj.VarianceFloor.from_pretrained(tmp_path)) == repr(sj.VarianceFloor(0.3))


def test_a_wrong_call_keeps_pythons_message():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'dim'"):
        sj.SeparableHamiltonian()


# The authors' layout, from a model written here in plain PyTorch


class TheirEncoder(nn.Module):
    def __init__(self, *, imagenet, layer, channels):
        super().__init__()
        size = {"kernel_size": 7, "stride": 2, "padding": 3} if imagenet else {"kernel_size": 3, "padding": 1}
        self.stem = nn.Sequential(nn.Conv2d(3, 64, bias=False, **size), nn.BatchNorm2d(64), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        width = 64
        for i, out in enumerate((64, 128, 256, 512), start=1):
            stride = 1 if i == 1 else 2
            down = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if i > 1 else None
            setattr(self, f"layer{i}", nn.Sequential(BasicBlock(width, out, stride, down), BasicBlock(out, out)))
            width = out
        self.token_proj = nn.Sequential(
            nn.Conv2d(64 * 2 ** (layer - 1), channels, 1, bias=False), nn.BatchNorm2d(channels)
        )
        self.layer, self.grid = layer, 8 if imagenet else None

    def forward(self, images):
        x = self.pool(self.stem(images))
        for i in range(1, self.layer + 1):
            x = getattr(self, f"layer{i}")(x)
        if self.grid:
            x = nn.functional.adaptive_avg_pool2d(x, self.grid)
        tokens = self.token_proj(x).permute(0, 2, 3, 1).flatten(1, 2)
        q, p = tokens.chunk(2, -1)
        return torch.cat((q.flatten(1), p.flatten(1)), 1)


class TheirEnergy(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.H = nn.Module()
        self.H.residual_V = nn.Sequential(nn.Linear(dim, 24), nn.GELU(), nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 1))

    def forward(self, z, *, dt, steps, base, scale):
        q, p = z.chunk(2, -1)

        def force(q):
            q = q.detach().requires_grad_()
            energy = 0.5 * base * q.square().sum() + scale * self.H.residual_V(q).sum()
            return -torch.autograd.grad(energy, q)[0]

        for _ in range(steps):
            p = p + dt / 2 * force(q)
            q = q + dt * p
            p = p + dt / 2 * force(q)
        return torch.cat((q, p), -1)


@pytest.mark.parametrize(("imagenet", "layer", "prefix"), [(False, 3, ""), (True, 3, "module."), (False, 2, "")])
def test_the_authors_layout(imagenet, layer, prefix, tmp_path):
    torch.manual_seed(0)
    theirs = TheirEncoder(imagenet=imagenet, layer=layer, channels=4).double()
    images = torch.randn(3, 3, 64 if imagenet else 16, 64 if imagenet else 16, dtype=torch.float64)
    theirs(images)  # in training mode, so that BatchNorm has statistics
    z = theirs.eval()(images).detach()
    energy = TheirEnergy(z.shape[1] // 2).double()
    settings = {"steps": 3, "dt": 0.2, "base_coeff": 0.3, "residual_scale": 0.5, "hamiltonian": "separable"}
    checkpoint = {
        "encoder": {prefix + k: v for k, v in theirs.state_dict().items()},
        "predictor": energy.state_dict(),
        "config": {"model": {"token_hw": [8, 8] if imagenet else None}, "hjepa": settings},
    }
    torch.save(checkpoint, tmp_path / "theirs.pt")
    encoder, predictor = sj.load_reference_checkpoint(tmp_path / "theirs.pt")
    # Single precision weights are what a checkpoint of theirs holds; here they were made double.
    torch.testing.assert_close(encoder.double()(images), z, rtol=1e-5, atol=1e-5)
    expected = energy(z, dt=0.2, steps=3, base=0.3, scale=0.5)
    torch.testing.assert_close(predictor.double()(z), expected, rtol=1e-6, atol=1e-6)


def test_the_authors_baseline_and_defaults(tmp_path):
    path = tmp_path / "theirs.pt"
    weights = TheirEncoder(imagenet=False, layer=3, channels=4).state_dict()
    for empty in ({"predictor": None, "config": None}, {}, {"predictor": {}}):
        torch.save({"encoder": weights, **empty}, path)
        assert sj.load_reference_checkpoint(path)[1] is None
    torch.save({"encoder": weights, "predictor": TheirEnergy(32).state_dict(), "config": {}}, path)
    predictor = sj.load_reference_checkpoint(path)[1]
    assert (predictor.dt, predictor.steps, predictor.hamiltonian.base_coeff) == (0.05, 2, 0.1)
    assert predictor.hamiltonian.residual_scale.item() == 0.02


def test_files_of_another_layout_are_refused(tmp_path):
    path = tmp_path / "theirs.pt"
    weights = TheirEncoder(imagenet=False, layer=3, channels=4).state_dict()
    energy = TheirEnergy(32).state_dict()
    missing = {k: v for k, v in weights.items() if k != "layer2.0.conv1.weight"}
    for checkpoint, message in (
        ({"model": {}}, r"must hold a dict with 'encoder', 'predictor' and 'config', got \['model'\]"),
        ([1], "got list"),
        ({"encoder": {"conv1.weight": torch.ones(1)}}, r"must hold 'stem\.0\.weight', got conv1\.weight"),
        ({"encoder": missing}, r"do not fit: .*layer|do not fit"),
        ({"encoder": weights, "predictor": {k: v for k, v in energy.items() if "2.bias" not in k}}, r"hidden\.1\.bias"),
        ({"encoder": {**weights, "extra.weight": torch.ones(1)}}, r"holds 'extra\.weight'"),
        ({"encoder": weights, "predictor": energy, "config": {"hjepa": {"method": "rk4"}}}, r"hjepa\.method .* 'rk4'"),
    ):
        torch.save(checkpoint, path)
        with pytest.raises(ValueError, match=message):
            sj.load_reference_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"encoder": {"stem.0.weight": Evil()}}, tmp_path / "evil.pt")
    with pytest.raises(pickle.UnpicklingError):
        sj.load_reference_checkpoint(tmp_path / "evil.pt")

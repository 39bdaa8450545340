"""The reference implementation's checkpoints are read; its layout is written here in plain PyTorch."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

import symplectic_jepa as sj


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
    assert predictor.hamiltonian.residual_scale == pytest.approx(0.02)


def test_an_imagenet_stem_without_settings_has_a_grid_of_eight(tmp_path):
    theirs = TheirEncoder(imagenet=True, layer=2, channels=4).eval()
    torch.save({"encoder": theirs.state_dict()}, tmp_path / "theirs.pt")
    encoder, predictor = sj.load_reference_checkpoint(tmp_path / "theirs.pt")
    assert predictor is None
    images = torch.randn(2, 3, 96, 96)  # 12 tokens a side, were they not pooled
    torch.testing.assert_close(encoder.eval()(images), theirs(images))


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
        ({"encoder": {**weights, "stem.0.weight": 3}}, r"encoder of .* must hold tensors by name, got int"),
        ({"encoder": {**weights, "stem.0.weight": torch.ones(2)}}, r"stem\.0\.weight of .* must be \(out, in"),
        ({"encoder": weights, "config": [3]}, "config of .* must be a dict, got list"),
        ({"encoder": weights, "predictor": {"H.residual_V.0.weight": energy["H.residual_V.0.weight"]}}, "two or more"),
        ({"encoder": weights, "predictor": {"H.residual_V.net.weight": torch.ones(2)}}, "two or more layers"),
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
    with pytest.raises(ValueError, match="not a checkpoint of tensors and primitives"):
        sj.load_reference_checkpoint(tmp_path / "evil.pt")

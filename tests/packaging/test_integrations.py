"""The recipes of docs/integrations.md do what the page says: each runs once, as printed, and is then looked at."""

import copy
import functools
import hashlib
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

import symplectic_jepa as sj
from tests.helpers.paths import ROOT

SECTIONS = re.split(r"^## ", (ROOT / "docs" / "integrations.md").read_text(), flags=re.MULTILINE)[1:]
BLOCKS = {s.partition("\n")[0]: re.findall(r"```python\n(.*?)```", s, re.DOTALL) for s in SECTIONS}
HERE = ["Plain PyTorch", "Lightning", "lightly", "timm", "Hugging Face Hub"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The namespace that a section's block leaves."""

    def refuse(*_):
        raise AssertionError("a recipe must not need a network")

    @functools.cache
    def run(title):
        folder = tmp_path_factory.mktemp("recipe")
        (folder / "working").mkdir()
        namespace = {"__name__": "recipe"}
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
            patch.chdir(folder / "working")
            patch.setattr(tempfile, "tempdir", str(folder))
            patch.setattr(socket.socket, "connect", refuse)
            exec(compile(BLOCKS[title][0], title, "exec"), namespace)
        assert printed.getvalue()
        assert "False" not in printed.getvalue()
        assert not list((folder / "working").iterdir())
        return namespace

    return run


def test_every_section_has_one_block():
    assert sorted(BLOCKS) == sorted([*HERE, "stable-pretraining"])
    assert all(len(blocks) == 1 and "manual_seed" in blocks[0] for blocks in BLOCKS.values())


@pytest.mark.parametrize("title", HERE)
def test_a_recipe_runs_as_printed(title, recipe):
    recipe(title)


def test_lightning_trains_as_the_plain_loop_does(recipe):
    plain, module = recipe("Plain PyTorch"), recipe("Lightning")["module"]
    trainer = recipe("Lightning")["trainer"]
    assert trainer.global_step == plain["step"] == 4
    for name in ("encoder", "objective"):
        ours, theirs = plain[name].state_dict(), getattr(module, name).state_dict()
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(theirs[key], ours[key], rtol=1e-5, atol=1e-7)
    assert all(p.grad.any() for p in plain["encoder"].parameters())
    assert ours["prediction.predictor.hamiltonian.residual_scale"].item() == pytest.approx(0.02 * 4 / 8)
    torch.testing.assert_close(trainer.callback_metrics["loss"], plain["loss"].detach(), rtol=1e-5, atol=0)
    for name, term in plain["terms"].items():
        torch.testing.assert_close(trainer.callback_metrics[name], term, rtol=1e-5, atol=1e-7)


def test_lightly_puts_view_v_of_image_b_there(recipe):
    from lightly.data.multi_view_collate import MultiViewCollate

    names = recipe("lightly")
    assert isinstance(names["loader"].collate_fn, MultiViewCollate)
    encoder = names["encoder"]
    images = torch.rand(3, 5, 3, 32, 32)  # three views, that V and B cannot be mistaken for one another
    items = [([*images[:, b]], 10 + b, f"{b}.png") for b in range(5)]
    views, labels, files = names["loader"].collate_fn(items)
    encoder.eval()  # each image by itself
    with torch.no_grad():
        states = names["encode"](views)
        for v in range(3):
            for b in range(5):
                torch.testing.assert_close(states[v, b], encoder(images[v, b][None])[0], rtol=1e-4, atol=1e-5)
    encoder.train()
    assert labels.tolist() == [10, 11, 12, 13, 14]
    assert files == [f"{b}.png" for b in range(5)]


def test_lightly_recipe_matches_two_different_views_of_every_image(recipe):
    names = recipe("lightly")
    views, states = names["views"], names["states"]
    assert len(views) == 2
    assert states.shape == (2, 8, 128)
    assert (views[0] - views[1]).flatten(1).norm(dim=1).min() > 1
    torch.testing.assert_close(names["terms"]["prediction"], names["objective"].prediction_loss(*states))
    assert all(p.grad.any() for p in names["encoder"].parameters())


def test_lightlys_crops_of_two_sizes_come_large_ones_first():
    from lightly.transforms import DINOTransform
    from torchvision.datasets import FakeData

    image, _ = FakeData(1, image_size=(3, 40, 40))[0]
    views = DINOTransform(global_crop_size=32, local_crop_size=16, n_local_views=3)(image)
    assert [view.shape[-1] for view in views] == [32, 32, 16, 16, 16]
    encoder = sj.PhaseSpaceTokenEncoder.resnet18(stem="imagenet", token_layer=2, token_channels=8, grid=2).eval()
    with torch.no_grad():
        states = torch.cat([encoder(torch.stack(views[:2])), encoder(torch.stack(views[2:]))])[:, None]
    loss, _ = sj.LeJEPAObjective(global_views=2)(states)
    torch.testing.assert_close(loss, 0.5 * (states - states[:2].mean(0)).square().mean())


@pytest.mark.parametrize(("name", "side", "grid"), [("vit", 4, 2), ("convnext", 4, None)])
def test_a_timm_state_is_the_projected_tokens_in_order(name, side, grid, recipe):
    encoder = recipe("timm")["encoders"][name].eval()
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        features = encoder.backbone.model(images)
        if name == "vit":
            assert features.shape[1] == side * side + 5  # one class token, four registers
            features = features[:, 5:].mT.unflatten(2, (side, side))
        else:
            features = features[-1]
        assert features.shape[2:] == (side, side)
        if grid:
            features = features.unflatten(3, (grid, -1)).mean(4).unflatten(2, (grid, -1)).mean(3)
        expected = encoder.token_projection(features).unflatten(1, (2, 4)).permute(1, 0, 3, 4, 2).flatten(2)
        q, p = sj.split_state(encoder(images))
    encoder.train()
    side = grid or side
    assert q.shape[1] + p.shape[1] == side * side * 8  # 2d = h · w · token_channels
    torch.testing.assert_close(torch.stack((q, p)), expected, rtol=1e-4, atol=1e-5)


def test_class_and_register_tokens_do_not_reach_the_state(recipe):
    encoder = copy.deepcopy(recipe("timm")["encoders"]["vit"]).eval()
    vit, images = encoder.backbone.model, torch.rand(2, 3, 32, 32)

    def spoil(tokens, where):
        return tokens.index_fill(1, torch.arange(tokens.shape[1])[where], torch.nan)

    for where, reaches in ((slice(0, 5), False), (slice(5, 6), True)):
        hook = vit.norm.register_forward_hook(lambda *args, where=where: spoil(args[2], where))
        assert encoder(images).isnan().any() == reaches
        hook.remove()
    bare = sj.PhaseSpaceTokenEncoder(vit, in_channels=vit.num_features, token_channels=8, grid=2)
    with pytest.raises(ValueError, match="class and register tokens"):
        bare(images)


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_a_timm_encoder_learns_and_comes_back(name, recipe, tmp_path):
    names = recipe("timm")
    encoder = copy.deepcopy(names["encoders"][name]).eval()
    idle = [key for key, p in names["encoders"][name].named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    backbone = copy.deepcopy(encoder.backbone)
    for p in backbone.parameters():
        torch.nn.init.zeros_(p)
    encoder.save_pretrained(tmp_path)
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path, backbone=backbone).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), encoder(images))


def test_the_hub_gives_back_the_same_encoder(recipe):
    names = recipe("Hugging Face Hub")
    encoder, loaded, images = names["encoder"], names["loaded"], torch.rand(4, 3, 32, 32)
    for mode in (False, True):
        expected = encoder.train(mode)(images)
        assert torch.equal(loaded.train(mode)(images), expected)
    fresh = sj.PhaseSpaceTokenEncoder.resnet18(stem="imagenet", token_layer=2, token_channels=8)
    assert not torch.equal(fresh(images), expected)


def test_the_hubs_folder_is_a_repository_with_a_card(recipe):
    names = recipe("Hugging Face Hub")
    local = Path(names["local"])
    assert local == names["folder"] / "cache" / "models--me--hamjepa" / "snapshots" / names["commit"]
    assert re.fullmatch(r"README\.md config\.json model-\w{12}\.safetensors", " ".join(sorted(os.listdir(local))))
    for file in local.iterdir():
        content = file.resolve().read_bytes()
        assert file.is_symlink()
        assert hashlib.sha256(content).hexdigest() == file.resolve().name
        assert content == (names["folder"] / "upload" / file.name).read_bytes()
    header = names["ModelCard"].load(local / "README.md").data
    assert (header.license, header.library_name, header.tags) == ("apache-2.0", "symplectic-jepa", ["jepa"])


# It adds its callbacks to every Lightning trainer of an environment, so it has one apart from the other tests'.
_LAYER = Path(sys.prefix) / "stable-pretraining" / "bin" / "python"
_CHECKS = """
batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=8)))
module.train()
assert "loss" not in module(batch, "validate")
state = module(batch, "fit")
state["loss"].backward()
idle = [name for name, p in module.backbone.named_parameters() if p.grad is None or not p.grad.any()]
assert not idle, idle

z = module.backbone(torch.cat([view["image"] for view in batch["views"]]))
variance = sj.VarianceFloor(1.0)(z)
spectrum = sj.SpectralFloors(log_det=-1.5, participation=0.12, top_share=0.35)(z)
assert variance > 0 and spectrum > 0
match = ((z[:8] - z[8:]) / 2).square().mean()
torch.testing.assert_close(state["loss"], match + 0.5 * variance + 0.5 * spectrum, rtol=1e-4, atol=1e-6)
torch.testing.assert_close(state["embedding"], z[:8], rtol=1e-4, atol=1e-5)

torch.manual_seed(0)
untrained = resnet18(num_classes=64).state_dict()
unmoved = [name for name, p in module.backbone.named_parameters() if torch.equal(p, untrained[name])]
assert not unmoved, unmoved
assert trainer.global_step == 2
assert any(name.startswith("spectrum.") for name in module.state_dict())
"""


@pytest.mark.slow
def test_stable_pretraining_trains_the_backbone_through_the_regularizers(tmp_path):
    if not _LAYER.exists():
        pytest.skip("stable-pretraining has no environment here: `make test` makes it")
    script, working = tmp_path / "recipe.py", tmp_path / "working"
    script.write_text(BLOCKS["stable-pretraining"][0] + _CHECKS)
    working.mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [str(_LAYER), str(script)]
    result = subprocess.run(command, cwd=working, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout
    assert "False" not in result.stdout
    assert not list(working.iterdir())

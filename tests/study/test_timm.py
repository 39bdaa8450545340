"""``encoder.backbone=timm:NAME``: the grid is found, and class and register tokens do not reach the state."""

import pytest
import torch

import symplectic_jepa as sj
from examples.model.build import build_encoder, build_model
from examples.model.timm_backbone import TimmBackbone
from examples.recipe.schema import load_recipe
from tests.helpers.runs import tiny, train

pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "size", "channels", "side"),
    [
        ("resnet18", 64, 512, 2),  # (B, C, h, w)
        ("convnext_atto", 64, 320, 2),
        ("vit_tiny_patch16_224", 48, 192, 3),  # (B, N, C), with position embeddings of a fixed size
        ("vit_small_patch14_reg4_dinov2", 28, 384, 2),  # and with registers
        ("swin_tiny_patch4_window7_224", 56, 768, 2),  # (B, h, w, C)
    ],
)
def test_the_map_is_timms_without_other_tokens_and_every_weight_is_trained(name, size, channels, side):
    import timm

    torch.manual_seed(0)
    backbone = TimmBackbone(name, size)
    assert (backbone.channels, backbone.grid) == (channels, (side, side))
    images = torch.rand(2, 3, size, size)
    found = backbone.eval()(images)
    settings = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    whole = timm.create_model(name, **settings).eval()
    ours = backbone.model.state_dict()
    whole.load_state_dict({**whole.state_dict(), **ours})
    with torch.no_grad():
        expected = whole.forward_features(images)
    if expected.ndim == 3:
        expected = expected[:, whole.num_prefix_tokens :].mT.unflatten(2, (side, side))
    elif expected.shape[1] != channels:
        expected = expected.permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    assert [key for key, p in backbone.named_parameters() if p.grad is None] == []  # DDP would wait for them


def test_a_state_has_the_tokens_of_the_grid():
    keys = ["encoder.backbone=timm:vit_tiny_patch16_224", "encoder.token_channels=8", "train.precision=fp32"]
    recipe = load_recipe("textures", keys)
    model = build_model(recipe, torch.Size((3, 32, 32)))
    assert isinstance(model.encoder, sj.PhaseSpaceTokenEncoder)
    assert model.encoder.eval()(torch.rand(5, 3, 32, 32)).shape == (5, 2 * 2 * 8)
    pooled = load_recipe("textures", [*keys, "encoder.grid=1"])
    assert build_model(pooled, torch.Size((3, 32, 32))).encoder.eval()(torch.rand(5, 3, 32, 32)).shape == (5, 8)


def test_it_trains_in_the_study(tmp_path):
    out = train(tiny(tmp_path / "run", "encoder.backbone=timm:convnext_atto", "train.epochs=1"))
    assert (out / "checkpoint.pt").is_file()


def test_what_timm_does_not_have_is_refused_by_name():
    def refused(name, message, size=32):
        with pytest.raises(SystemExit, match=message):
            build_encoder(load_recipe("textures", [f"encoder.backbone=timm:{name}"]).encoder, size)

    refused("vit_tiny_patch16", r"encoder.backbone=timm:vit_tiny_patch16 must be a model of timm .*, see vit_ti|vit_")
    refused("hiera_tiny_224", r"encoder.backbone=timm:hiera_tiny_224 has no feature map for images of 224 pixels", 224)
    with pytest.raises(SystemExit, match="encoder.backbone must be resnet18, small_cnn or a model of timm"):
        load_recipe("textures", ["encoder.backbone=vit"])
    with pytest.raises(SystemExit, match=r"augment.size must be 32, .* for encoder.backbone=timm:resnet18, got 24"):
        load_recipe("textures", ["encoder.backbone=timm:resnet18", "augment.size=24", "encoder.grid=1"])

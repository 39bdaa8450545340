"""What a checkpoint in the authors' layout leaves unsaid."""

import torch

import symplectic_jepa as sj

NAMES = {"token_projection": "token_proj", "backbone.0": "stem.0", "backbone.1": "stem.1"}
NAMES |= {f"backbone.{3 + i}": f"layer{i}" for i in (1, 2)}  # after a max-pool


def test_an_imagenet_stem_without_settings_has_a_grid_of_eight(tmp_path):
    ours = sj.PhaseSpaceTokenEncoder.resnet18(stem="imagenet", token_layer=2, token_channels=4, grid=8).eval()
    theirs = {}
    for key, value in ours.state_dict().items():
        prefix = next(name for name in NAMES if key.startswith(name + "."))
        theirs[NAMES[prefix] + key.removeprefix(prefix)] = value
    torch.save({"encoder": theirs}, tmp_path / "theirs.pt")
    encoder, predictor = sj.load_reference_checkpoint(tmp_path / "theirs.pt")
    assert predictor is None
    for side in (64, 96):  # 8 or 12 tokens a side, were they not pooled
        images = torch.randn(2, 3, side, side)
        assert torch.equal(encoder(images), ours(images))

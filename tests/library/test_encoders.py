import pytest
import torch
import torchvision
from torch import nn

from symplectic_jepa import PhaseSpaceTokenEncoder, split_state

IMAGES = torch.zeros(2, 3, 8, 8)


class Fixed(nn.Module):
    """A backbone whose feature map is given."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, images):
        return self.features


def raw(features, channels, **kwargs):
    """An encoder in eval mode whose projection is the identity, so that the layout shows."""
    encoder = PhaseSpaceTokenEncoder(Fixed(features), in_channels=channels, token_channels=channels, **kwargs).eval()
    encoder.token_projection[0].weight.data = torch.eye(channels)[:, :, None, None]
    encoder.token_projection[1].eps = 1e-30
    return encoder


def test_layout_is_q_then_p_each_by_row_column_channel():
    b, c, h, w = 2, 6, 3, 4
    features = torch.randn(b, c, h, w)
    q, p = split_state(raw(features, c)(IMAGES))
    for i in range(h):
        for j in range(w):
            for k in range(c // 2):
                index = (i * w + j) * (c // 2) + k
                assert torch.equal(q[:, index], features[:, k, i, j])
                assert torch.equal(p[:, index], features[:, c // 2 + k, i, j])


def test_tokens_and_their_feature_map_give_the_same_state():
    features = torch.randn(2, 6, 4, 4)
    tokens = features.flatten(2).mT  # (B, N, C)
    assert torch.equal(raw(tokens, 6)(IMAGES), raw(features, 6)(IMAGES))
    assert torch.equal(raw(tokens, 6, grid=2)(IMAGES), raw(features, 6, grid=2)(IMAGES))


@pytest.mark.parametrize("grid", [None, 2])
def test_prefix_tokens_and_shapes_of_token_grids(grid):
    features = torch.randn(2, 6, 4, 4)
    patches, prefix = features.flatten(2).mT, torch.randn(2, 5, 6)
    expected = raw(features, 6, grid=grid)(IMAGES)
    tokens = torch.cat((prefix, patches), 1)
    assert torch.equal(raw(tokens, 6, grid=grid, prefix_tokens=5)(IMAGES), expected)
    # 16 tokens are 4 × 4 of a square image; of a wide one they may be 2 × 8, and only the user knows.
    wide = torch.zeros(2, 3, 8, 32)
    with pytest.raises(ValueError, match=r"token_shape=\(h, w\) must be given for 16 tokens of a non-square image"):
        raw(patches, 6, grid=grid)(wide)
    features = patches.mT.unflatten(2, (2, 8))
    assert torch.equal(raw(patches, 6, grid=grid, token_shape=(2, 8))(wide), raw(features, 6, grid=grid)(wide))
    with pytest.raises(ValueError, match=r"must be given for 17 tokens of a square .* set prefix_tokens=1"):
        raw(torch.randn(2, 17, 6), 6, grid=grid)(IMAGES)
    with pytest.raises(ValueError, match=r"token_shape=\(2, 8\) needs 16 tokens, got 15 after prefix_tokens=2"):
        raw(torch.randn(2, 17, 6), 6, grid=grid, prefix_tokens=2, token_shape=(2, 8))(IMAGES)
    with pytest.raises(ValueError, match="are for a backbone that returns tokens"):
        raw(features, 6, grid=grid, prefix_tokens=1)(wide)


def test_leading_dimensions_are_one_batch():
    encoder = PhaseSpaceTokenEncoder.resnet18(token_layer=2)
    views = torch.randn(2, 3, 4, 3, 16, 16)
    together = encoder(views)
    assert together.shape[:-1] == (2, 3, 4)
    assert torch.equal(together, encoder(views.flatten(0, 2)).unflatten(0, (2, 3, 4)))
    with pytest.raises(ValueError, match=r"images must have shape \(\.\.\., B, 3, H, W\), got \(3, 16, 16\)"):
        encoder(views[0, 0, 0])


def test_grid_pools_adaptively():
    features = torch.randn(2, 4, 14, 14)
    pooled = nn.functional.adaptive_avg_pool2d(features, (8, 8))
    assert torch.equal(raw(features, 4, grid=8)(IMAGES), raw(pooled, 4)(IMAGES))
    assert raw(features, 4, grid=(2, 7))(IMAGES).shape == (2, 4 * 14)


@pytest.mark.parametrize(
    ("stem", "size", "grid", "layer", "half"),
    [
        ("cifar", 32, None, 3, 1024),
        ("imagenet", 224, 8, 3, 1024),
        ("cifar", 32, None, 2, 4096),
        ("cifar", 32, None, 4, 256),
    ],
)
def test_resnet18_has_the_papers_dimensions(stem, size, grid, layer, half):
    encoder = PhaseSpaceTokenEncoder.resnet18(stem=stem, grid=grid, token_layer=layer)
    z = encoder(torch.randn(2, 3, size, size))
    assert z.shape == (2, 2 * half)
    assert sum(isinstance(m, torchvision.models.resnet.BasicBlock) for m in encoder.modules()) == 2 * layer


def test_bad_arguments_and_features_are_named():
    for call, message in (
        (lambda: PhaseSpaceTokenEncoder(nn.Identity(), in_channels=4, token_channels=5), "must be even, .* got 5"),
        (
            lambda: PhaseSpaceTokenEncoder(nn.Identity(), in_channels=4, grid=0),
            "grid must be an int >= 1, a pair of them, or None, got 0",
        ),
        (lambda: PhaseSpaceTokenEncoder.resnet18(stem="mnist"), "stem must be one of .* got 'mnist'"),
        (lambda: PhaseSpaceTokenEncoder.resnet18(token_layer=1), "token_layer must be 2, 3 or 4, got 1"),
        (lambda: raw(torch.randn(2, 5, 3, 3), 4)(IMAGES), r"backbone must return \(B, 4, h, w\) .* got \(2, 5, 3, 3\)"),
        (lambda: raw(IMAGES, 4, prefix_tokens=-1), "prefix_tokens must be an int >= 0, got -1"),
        (lambda: raw(IMAGES, 4, token_shape=(0, 4)), r"token_shape must be an int >= 1, .* got \(0, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()

"""Vector encoders: which frame each half of a state reads."""

import pytest
import torch
from torch import nn

import symplectic_jepa as sj

F, D = 12, 4


def backbone():
    return nn.Sequential(nn.Flatten(), nn.Linear(27, F), nn.Tanh())


def test_a_vector_state_is_a_linear_map_of_the_features():
    encoder = sj.PhaseSpaceVectorEncoder(nn.Tanh(), features=F, dim=D).double()
    x = torch.randn(3, 5, F, dtype=torch.float64)
    expected = x.tanh() @ encoder.projection.weight.T + encoder.projection.bias
    torch.testing.assert_close(encoder(x), expected)


@pytest.mark.parametrize("k", [2, 3])
def test_position_reads_the_current_frame_and_momentum_the_last_k(k):
    torch.manual_seed(0)
    encoder = sj.PhaseSpaceCausalEncoder(backbone(), features=F, dim=D, frames=k).double()
    x = torch.randn(6, 2, 3, 3, 3, dtype=torch.float64)

    def half_of_sample_0(x, half):
        return encoder(x)[:, 0].split(D, -1)[half]

    for half, reads in ((0, 1), (1, k)):
        jacobian = torch.autograd.functional.jacobian(lambda x, half=half: half_of_sample_0(x, half), x)
        depends = jacobian.abs().sum((1, -1, -2, -3)) > 0  # (states, frames, samples)
        frames = torch.arange(6)
        state = torch.arange(k - 1, 6)[:, None]
        assert torch.equal(depends[..., 0], (frames > state - reads) & (frames <= state))
        assert not depends[..., 1].any()  # nor the other sample


def test_momentum_is_the_weighted_sum_over_frames_written_out():
    encoder = sj.PhaseSpaceCausalEncoder(nn.Flatten(), features=F, dim=D, frames=3).double()
    x = torch.randn(5, 2, F, dtype=torch.float64)
    weights, bias = encoder.momentum.weight.split(F, -1), encoder.momentum.bias
    p = torch.stack([sum(x[t + i] @ weights[i].T for i in range(3)) + bias for t in range(3)])
    torch.testing.assert_close(sj.split_state(encoder(x))[1], p)


def test_they_train_save_and_load(tmp_path):
    encoder = sj.PhaseSpaceCausalEncoder(backbone(), features=F, dim=D).eval()
    x = torch.randn(4, 2, 3, 3, 3)
    encoder.save_pretrained(tmp_path)
    loaded = sj.PhaseSpaceCausalEncoder.from_pretrained(tmp_path, backbone=backbone())
    assert torch.equal(loaded(x), encoder(x))
    encoder(x).square().sum().backward()
    assert all(w.grad is not None for w in encoder.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sj.PhaseSpaceCausalEncoder(nn.Flatten(), features=F, dim=D, frames=1), "frames must be an int >= 2"),
        (lambda: sj.PhaseSpaceVectorEncoder(nn.Flatten(), features=0, dim=D), "features must be an int >= 1"),
        (lambda: sj.PhaseSpaceVectorEncoder(nn.Flatten(), features=F, dim=0), "dim must be an int >= 1"),
        (
            lambda: sj.PhaseSpaceCausalEncoder(nn.Flatten(), features=F, dim=D)(torch.randn(1, 2, F)),
            r"x must have shape \(T >= 2, B, ...\), got \(1, 2, 12\)",
        ),
        (
            lambda: sj.PhaseSpaceVectorEncoder(nn.Identity(), features=F, dim=D)(torch.randn(2, F + 1)),
            r"backbone must return features \(..., 12\), got \(2, 13\)",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()

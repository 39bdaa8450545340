"""Random projections and directions: a function of seed and step alone."""

import pytest
import torch

from symplectic_jepa import ProjectedLogDetFloor, SIGReg
from symplectic_jepa.regularizers import draws
from tests.helpers.samples import directions, orthonormal, samples


def test_projections_are_orthonormal_and_directions_unit():
    r = orthonormal(20, 7)
    torch.testing.assert_close(r.T @ r, torch.eye(7, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(directions(20, 7).norm(dim=0), torch.ones(7, dtype=torch.float64))


def draws_of(module, x, steps):
    seen = []
    hook = module.schedule.register_forward_hook(lambda _, __, matrix: seen.append(matrix.clone()))
    for _ in range(steps):
        module(x)
    hook.remove()
    return seen


def test_directions_are_redrawn_every_step():
    first, second, third = draws_of(SIGReg(slices=4), samples(30, 6), 3)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize(
    "make", [lambda s: SIGReg(slices=4, seed=s), lambda s: ProjectedLogDetFloor(refresh_every=2, seed=s)]
)
def test_draws_follow_the_seed_alone_and_go_on_after_a_resume(make):
    x = samples(30, 6)
    torch.manual_seed(1)
    first = draws_of(make(7), x, 6)
    state = torch.random.get_rng_state()
    resumed = make(7)
    part = make(7)
    draws_of(part, x, 3)
    resumed.load_state_dict(part.state_dict())
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(draws_of(make(7), x, 6), first, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(draws_of(resumed, x, 3), first[3:], strict=True))
    assert not any(torch.equal(a, b) for a in draws_of(make(8), x, 6) for b in first)  # no neighbour's stream, shifted
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_draw_is_its_formula():
    """So that a run resumed in another version goes on with the same matrices."""
    seen = draws_of(ProjectedLogDetFloor(proj_dim=4, refresh_every=2, seed=3), samples(30, 6), 4)
    for step, got in zip(range(4), seen, strict=True):
        generator = torch.Generator().manual_seed((3 * 0x9E3779B97F4A7C15 + step // 2) % 2**63)
        assert torch.equal(got, torch.linalg.qr(torch.randn(6, 4, generator=generator).double()).Q)


def test_eval_mode_does_not_consume_draws():
    x, sigreg_ = samples(30, 6), SIGReg(slices=4)
    sigreg_.eval()
    first, second = draws_of(sigreg_, x, 2)
    assert torch.equal(first, second)
    sigreg_.train()
    assert torch.equal(draws_of(sigreg_, x, 1)[0], first)


def test_old_projections_are_dropped(monkeypatch):
    """One matrix of each stream is kept, and all of them together are bounded by bytes, except the newest."""
    monkeypatch.setattr(draws, "_kept", {})
    kept = lambda: [matrix.nbytes for _, matrix in draws._kept.values()]  # noqa: E731
    x, floor = samples(30, 64), ProjectedLogDetFloor(proj_dim=8, refresh_every=2)
    first = draws_of(floor, x, 9)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])
    assert kept() == [64 * 8 * 8]
    monkeypatch.setattr(draws, "_KEPT_BYTES", 10_000)
    for seed in range(1, 5):
        ProjectedLogDetFloor(proj_dim=8, refresh_every=2, seed=seed)(x)
        assert sum(kept()) <= 10_000
    ProjectedLogDetFloor(proj_dim=32, refresh_every=2)(x)
    assert kept() == [64 * 32 * 8]


def test_a_redraw_does_not_spoil_a_pending_backward_pass():
    floor, x = ProjectedLogDetFloor(1.0, refresh_every=1), samples(30, 6).requires_grad_()
    (floor(x) + floor(x) + floor(x)).backward()
    assert torch.isfinite(x.grad).all()

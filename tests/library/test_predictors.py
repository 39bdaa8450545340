import pytest
import torch

import symplectic_jepa as sj


@pytest.mark.parametrize("integrator", [sj.leapfrog, sj.symplectic_euler])
def test_hamiltonian_predictor_integrates_the_halves_and_reverses_exactly(integrator):
    h = sj.SeparableHamiltonian(3, hidden_dim=8, residual_scale=1.0).double()
    predictor = sj.HamiltonianPredictor(h, dt=0.1, steps=3, integrator=integrator)
    z = torch.randn(4, 5, 6, dtype=torch.float64)
    expected = torch.cat(integrator(h, z[..., :3], z[..., 3:], dt=0.1, steps=3), -1)
    assert torch.equal(predictor(z), expected)
    torch.testing.assert_close(predictor(predictor(z), direction=-1), z, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(predictor(predictor(z, direction=-1)), z, rtol=1e-13, atol=1e-13)


def test_residual_mlp_predictor_is_the_rollout_and_not_invertible():
    predictor = sj.ResidualMLPPredictor(3, hidden_dim=8, dt=0.1, steps=2).double()
    z = torch.randn(4, 6, dtype=torch.float64)
    g = predictor.residual
    for direction in (1, -1):
        first = z + direction * 0.1 * g(z)
        expected = first + direction * 0.1 * g(first)
        torch.testing.assert_close(predictor(z, direction=direction), expected, rtol=1e-13, atol=1e-13)
    assert [tuple(m.weight.shape) for m in g if hasattr(m, "weight")] == [(8, 6), (8, 8), (6, 8)]
    assert (predictor(predictor(z), direction=-1) - z).abs().max() > 1e-6


def test_split_and_join_are_inverse_views():
    z = torch.randn(2, 3, 8)
    q, p = sj.split_state(z)
    assert torch.equal(q, z[..., :4])
    assert torch.equal(p, z[..., 4:])
    assert q.data_ptr() == z.data_ptr()
    assert torch.equal(sj.join_state(q, p), z)


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda options=options: sj.HamiltonianPredictor(
                sj.SeparableHamiltonian(2, hidden_dim=4), steps=3, **options
            )
            for options in (
                {"gradient": "reversible"},
                *({"integrator": x} for x in sj.integrators.SPLITTINGS.values()),
            )
        ),
        lambda: sj.HamiltonianPredictor(sj.GeneralHamiltonian(2, hidden_dim=4), integrator=sj.implicit_midpoint),
        lambda: sj.ResidualMLPPredictor(2, hidden_dim=4),
    ],
)
@pytest.mark.parametrize("signs", [(1, -1), [-1, 1]])
def test_states_may_go_both_ways_in_one_call(make, signs, monkeypatch):
    torch.manual_seed(0)
    predictor, z = make().double(), torch.randn(2, 5, 4, dtype=torch.float64)
    expected = torch.stack([predictor(x, direction=sign) for x, sign in zip(z, signs, strict=True)])
    calls, roll_out = [], predictor.roll_out
    monkeypatch.setattr(predictor, "roll_out", lambda *args, **kwargs: (calls.append(1), roll_out(*args, **kwargs))[1])
    torch.testing.assert_close(predictor(z, direction=signs), expected, rtol=0, atol=1e-15)
    assert len(calls) == (1 if predictor.dt_per_state else 2)


def test_a_learned_step_starts_at_dt_and_is_trained_in_both_directions():
    z = torch.randn(2, 5, 4, dtype=torch.float64)
    predictor = sj.HamiltonianPredictor(sj.QuadraticHamiltonian(2), dt=0.3, learn_dt=True).double()
    assert predictor.dt.item() == pytest.approx(0.3, rel=1e-6)
    (got,) = torch.autograd.grad(predictor(z, direction=(1, -1)).square().sum(), predictor.raw_dt)
    apart = sum(predictor(x, direction=sign).square().sum() for x, sign in zip(z, (1, -1), strict=True))
    torch.testing.assert_close(got, torch.autograd.grad(apart, predictor.raw_dt)[0])
    assert got.abs() > 0
    with pytest.raises(ValueError, match="dt -> 0 minimises the matching loss"):
        predictor.check_matching()


@pytest.mark.parametrize("direction", [0, 2, True, "1", None, (1,), (1, -1, 1), (1, 0), torch.tensor([1, -1]), 1.0, ()])
@pytest.mark.parametrize("integrator", [sj.leapfrog, sj.symplectic_euler])
def test_any_other_direction_is_refused(direction, integrator):
    predictor = sj.HamiltonianPredictor(sj.QuadraticHamiltonian(2), integrator=integrator)
    with pytest.raises(ValueError, match=r"direction must be 1 .* got"):
        predictor(torch.randn(2, 5, 4), direction=direction)
    with pytest.raises(ValueError, match="direction must be 1"):  # the first dimension is that of the coordinates
        predictor(torch.randn(4), direction=(1, -1))


def test_bad_arguments_are_named():
    predictor = sj.HamiltonianPredictor(sj.QuadraticHamiltonian(2))
    for call, message in (
        (lambda: predictor(torch.randn(3, 5)), r"even last dimension .* got shape \(3, 5\)"),
        (lambda: sj.HamiltonianPredictor(sj.QuadraticHamiltonian(2), dt=-0.1), "dt must be a finite number > 0"),
        (lambda: sj.HamiltonianPredictor(sj.QuadraticHamiltonian(2), steps=0), "steps must be an int >= 1, got 0"),
        (lambda: sj.ResidualMLPPredictor(2)(torch.randn(3, 6)), r"q must have shape \(..., 2\), got \(3, 3\)"),
        (lambda: sj.join_state(torch.zeros(2), torch.zeros(3)), r"share a shape .* got \(2,\) and \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in (
        (lambda: sj.HamiltonianPredictor("quadratic"), "hamiltonian must be a Hamiltonian, got str"),
        (
            lambda: sj.HamiltonianPredictor(sj.QuadraticHamiltonian(2), integrator="leapfrog"),
            "integrator must be a module or a function, got str",
        ),
        (
            lambda: predictor(torch.ones(3, 4, dtype=torch.int64)),
            "z must be a floating-point tensor, got dtype torch.int64",
        ),
        (lambda: predictor(torch.ones(3, 4), control=torch.ones(3, 1)), "control must be None for a Quadratic"),
        (lambda: sj.ResidualMLPPredictor(2)(torch.ones(3, 4), control=torch.ones(3, 1)), "control must be None"),
    ):
        with pytest.raises(TypeError, match=message):
            call()

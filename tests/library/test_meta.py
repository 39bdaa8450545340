"""On the meta device every module gives shapes and dtypes, without values and without an error from deep inside."""

import inspect

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa.integrators import SPLITTINGS
from tests.helpers.cases import CASES, DRIVEN, OBJECTIVES, REGULARIZERS, D

META = torch.device("meta")


class Tokens(nn.Module):
    """A backbone that returns tokens ``(B, N, C)``."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)

    def forward(self, images):
        return self.patches(images).flatten(2).mT


# Modules that the cases of compilation do not hold, with their inputs and the shape of what they return.
OTHERS = {
    "diagonal": (lambda: sj.geometries.DiagonalGeometry(torch.ones(6)), "sqrt_apply", [(2, 6)], (2, 6)),
    "identity": (sj.geometries.IdentityGeometry, "sqrt_apply", [(2, 6)], (2, 6)),
    "matrix": (lambda: sj.geometries.MatrixGeometry(torch.eye(6)), "sqrt_apply", [(2, 6)], (2, 6)),
    "laplacian": (lambda: sj.geometries.LaplacianGeometry((2, 3)), "sqrt_apply", [(2, 24)], (2, 24)),
    "radial": (lambda: sj.geometries.RadialGeometry((2, 3)), "sqrt_apply", [(2, 24)], (2, 24)),
    "separable": (lambda: sj.SeparableHamiltonian(6, learn_mass=True), "__call__", [(2, 6), (2, 6)], (2,)),
    "general": (lambda: sj.hamiltonians.GeneralHamiltonian(6), "__call__", [(2, 6), (2, 6)], (2,)),
    "mass matrix": (
        lambda: sj.MassMatrixHamiltonian(lambda q: q.diag_embed(), lambda q: q.cos().sum(-1), floor=0.1),
        "__call__",
        [(2, 6), (2, 6)],
        (2,),
    ),
    "quadratic": (lambda: sj.QuadraticHamiltonian(6), "__call__", [(2, 6), (2, 6)], (2,)),
    "potential": (lambda: sj.PotentialHamiltonian(lambda q: q.cos().sum(-1)), "force", [(2, 6)], (2, 6)),
    "controlled": (
        lambda: sj.ControlledHamiltonian(sj.QuadraticHamiltonian(6), torch.ones(6, 2)),
        "input_force",
        [(2, 6), (2, 2)],
        (2, 6),
    ),
    "damped": (
        lambda: sj.DampedHamiltonian(sj.QuadraticHamiltonian(6), torch.ones(6)),
        "__call__",
        [(2, 6), (2, 6)],
        (2,),
    ),
    "resnet": (
        lambda: sj.PhaseSpaceTokenEncoder.resnet18(token_channels=4, grid=2), "__call__", [(2, 3, 16, 16)], (2, 16)
    ),
    "tokens": (
        lambda: sj.PhaseSpaceTokenEncoder(Tokens(), in_channels=8, token_channels=4),
        "__call__",
        [(5, 2, 3, 16, 16)],
        (5, 2, 64),
    ),
    "vectors": (
        lambda: sj.PhaseSpaceVectorEncoder(nn.Linear(7, 6), features=6, dim=3), "__call__", [(5, 2, 7)], (5, 2, 6)
    ),
    "causal": (
        lambda: sj.PhaseSpaceCausalEncoder(nn.Linear(7, 6), features=6, dim=3), "__call__", [(5, 2, 7)], (4, 2, 6)
    ),
}  # fmt: skip


def build(make, *, there):
    """On the meta device from the start, or moved there."""
    if there:
        with META:
            return make()
    return make().to(META)


@pytest.mark.parametrize("there", [True, False], ids=["built", "moved"])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", {**CASES, **DRIVEN})
def test_losses_and_maps_have_their_shapes_and_gradients(name, mode, there):
    module = build({**CASES, **DRIVEN}[name], there=there).train(mode)
    states = torch.randn(2, 32, 2 * D, device=META, requires_grad=True)
    for x in (states, states.detach().bfloat16().requires_grad_()):
        output = module(x)
        if name in OBJECTIVES:
            terms = output.terms.values()
            assert all(term.is_meta and term.shape == () for term in terms)
            output = output.loss
        scalar = name in REGULARIZERS or name in OBJECTIVES
        assert output.is_meta
        assert output.shape == (() if scalar else x.shape)
        assert output.dtype == (torch.float32 if scalar else x.dtype)
        (grad,) = torch.autograd.grad(output.sum(), x)
        assert grad.is_meta
        assert grad.shape == x.shape


@pytest.mark.parametrize("there", [True, False], ids=["built", "moved"])
@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_has_its_shapes(name, there):
    make, method, inputs, shape = OTHERS[name]
    output = getattr(build(make, there=there), method)(*(torch.randn(s, device=META) for s in inputs))
    assert output.is_meta
    assert output.shape == shape


@pytest.mark.parametrize("options", [{}, {"gradient": "reversible"}], ids=["stored", "reversible"])
@pytest.mark.parametrize("integrator", SPLITTINGS.values(), ids=lambda i: i.name)
def test_explicit_integrators_have_their_shapes_and_gradients(integrator, options):
    q, p = torch.randn(2, 5, D, device=META, requires_grad=True)
    end = integrator(sj.SeparableHamiltonian(D).to(META), q, p, dt=0.1, steps=3, **options)
    assert all(x.is_meta and x.shape == (5, D) for x in end)
    assert torch.autograd.grad(sum(end).sum(), q)[0].shape == (5, D)


def test_held_draws_have_their_shapes_too():
    module = sj.SIGReg(slices=4).to(META)
    sj.hold_draws(module)
    x = torch.randn(8, 6, device=META)
    assert module(x).is_meta
    sj.advance_draws(module)
    assert module(x).shape == ()


def test_the_tables_name_every_public_module():
    """So that a new one cannot be forgotten."""
    spaces = (sj, sj.geometries, sj.hamiltonians, sj.integrators, sj.objectives, sj.predictors, sj.regularizers)
    public = {
        value
        for space in spaces
        for name, value in vars(space).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and not inspect.isabstract(value)
    }
    cases = [*({**CASES, **DRIVEN}).values(), *(make for make, *_ in OTHERS.values())]
    built = {type(part) for make in cases for part in make().modules()}
    assert public - built == {sj.objectives.Objective}  # of which the others are

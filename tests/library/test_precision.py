"""Constants that decide a loss: exact whatever dtype or device a module has been through."""

import copy
import math
import pickle

import pytest
import torch

import symplectic_jepa as sj
from symplectic_jepa.geometries import DiagonalGeometry, LaplacianGeometry, MatrixGeometry, RadialGeometry
from tests.helpers.cases import CASES, DRIVEN, MAPS, REGULARIZERS, D

GEOMETRIES = {
    "diagonal": lambda: DiagonalGeometry(torch.linspace(0.1, 2.3, 2 * D)),
    "matrix": lambda: MatrixGeometry(torch.linspace(0.1, 2.3, 2 * D).diag() + 0.01),
    "laplacian": lambda: LaplacianGeometry((2, 2), kappa=0.7, eps=0.3, boundary="periodic"),
    "radial": lambda: RadialGeometry((2, 4)),
}
EVERY = {**CASES, **DRIVEN, **{f"geometry, {name}": make for name, make in GEOMETRIES.items()}}


class Bare(torch.nn.Module):
    """An integrator itself, without a predictor's guard."""

    def __init__(self, integrator):
        super().__init__()
        self.integrator = integrator
        self.hamiltonian = sj.SeparableHamiltonian(D, hidden_dim=8, residual_scale=1.0, learn_mass=True)

    def forward(self, z):
        return torch.cat(self.integrator(self.hamiltonian, *z.chunk(2, -1), dt=0.1, steps=2), -1)


INTEGRATORS = [*sj.integrators.SPLITTINGS.values(), sj.implicit_midpoint]
TABLES = {f"bare {x.name}": lambda x=x: Bare(x) for x in INTEGRATORS}


def output(module, *dtypes):
    """What a module makes of the same states, drawn anew and rounded to these dtypes in turn, as one vector."""
    for part in module.modules():
        if hasattr(part, "schedule"):
            part.schedule.step.zero_()
    z = torch.randn(2, 24, 2 * D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for dtype in dtypes:
        z = z.to(dtype)
    image = module.sqrt_apply(z) if isinstance(module, sj.geometries.Geometry) else module(z)
    return (image[0] if isinstance(image, tuple) else image).detach().flatten()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("there", [torch.nn.Module.bfloat16, torch.nn.Module.half, torch.nn.Module.float])
def test_no_change_of_dtype_spoils_a_constant(name, there):
    torch.manual_seed(1)
    module = EVERY[name]().double()
    moved = there(copy.deepcopy(module)).double()
    for x, exact in zip(moved.parameters(), module.parameters(), strict=True):
        x.data.copy_(exact)  # weights are rounded, as was asked
    assert torch.equal(output(moved), output(module))


@pytest.mark.parametrize("name", EVERY)
def test_a_module_built_on_the_meta_device_is_the_same_once_its_weights_are_there(name):
    torch.manual_seed(1)
    module = EVERY[name]()
    with torch.device("meta"):
        built = EVERY[name]()
    built.to_empty(device="cpu")
    for x in (*built.parameters(), *built.buffers()):
        x.data.fill_(math.nan if x.is_floating_point() else 17)  # what "empty" memory may hold
    built.load_state_dict(module.state_dict())
    assert torch.equal(output(built, torch.float32), output(module, torch.float32))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, dtype) for n in EVERY | TABLES for dtype in (torch.bfloat16, torch.float32)]
    + [(n, torch.float16) for n in REGULARIZERS],
)
def test_everything_runs_in_float32_or_better_under_autocast_too(name, dtype):
    torch.manual_seed(1)
    module = (EVERY | TABLES)[name]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = output(module, dtype)
    single = output(module, dtype, torch.float32)
    assert single.dtype == torch.float32
    assert got.dtype == (dtype if name in {*MAPS, *DRIVEN, *TABLES} else torch.float32)
    assert torch.equal(got, single.to(got.dtype))
    double = output(copy.deepcopy(module).double(), dtype, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)
    # float64 states keep their digits with float32 weights
    if name in {"leapfrog", "ResidualMLPPredictor", "SymplecticNetPredictor", *TABLES}:
        torch.testing.assert_close(output(module, dtype, torch.float64), double, rtol=1e-12, atol=1e-12)


def test_scales_are_the_numbers_that_were_given():
    hamiltonian = sj.SeparableHamiltonian(D, hidden_dim=4, residual_scale=0.7)
    objective = sj.HamJEPAObjective(sj.HamiltonianPredictor(hamiltonian))
    objective.set_regularizer_scale(0.1)
    before = hamiltonian.residual_scale, objective.regularizer_scale
    objective.half().bfloat16().float().double()
    after = hamiltonian.residual_scale, objective.regularizer_scale
    assert [x.item() for x in after] == [0.7, 0.1]
    assert all(a is b for a, b in zip(after, before, strict=True))  # a captured graph reads the same memory
    hamiltonian.set_residual_scale(0.3)
    assert hamiltonian.residual_scale.item() == 0.3
    old = {"residual_scale": torch.tensor(0.25)}  # as it was saved when the buffer was float32
    hamiltonian.load_state_dict({**hamiltonian.state_dict(), **old})
    assert (hamiltonian.residual_scale.item(), hamiltonian.residual_scale.dtype) == (0.25, torch.float64)


def test_a_schedule_counts_on_the_cpu_wherever_it_is_built():
    with torch.device("meta"):
        sigreg = sj.SIGReg(slices=4)
    assert sigreg.schedule.step.device.type == "cpu"
    sigreg(torch.randn(6, 3))
    state = pickle.loads(pickle.dumps(sigreg.state_dict()))
    resumed = sj.SIGReg(slices=4)
    resumed.load_state_dict(state)
    assert resumed.schedule.step.item() == 1

"""The tables of ``docs/components.md``: equations from the docstrings, costs measured."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import symplectic_jepa as sj

N, D = 512, 1024

REGULARIZERS: dict[str, nn.Module] = {
    "EnergyBudget": sj.EnergyBudget(),
    "VarianceFloor": sj.VarianceFloor(),
    "MeanPenalty": sj.MeanPenalty(),
    "ProjectedLogDetFloor": sj.ProjectedLogDetFloor(),
    "ParticipationRatioFloor": sj.ParticipationRatioFloor(),
    "TopEigenvalueCeiling": sj.TopEigenvalueCeiling(),
    "SpectralFloors": sj.SpectralFloors(log_det=-1.5, participation=0.12, top_share=0.35),
    "SIGReg": sj.SIGReg(),
    "HamSIGReg": sj.HamSIGReg(sj.geometries.LaplacianGeometry((8, 8))),
    "MMD": sj.MMD(),
    "SlicedMMD": sj.SlicedMMD(),
    "VICReg": sj.VICReg(),
    "BarlowTwins": sj.BarlowTwins(),
    "CodingRate": sj.CodingRate(),
}
INTRODUCTION = f"""# Regularizers, integrators and predictors

Generated from the code by `python -m docs.helpers.generate`; a test checks that it is current.

## Regularizers

Each maps samples `(…, N, D)` to a scalar. Costs are for N = {N}, D = {D}, float32 and default settings (Barlow Twins:
two such views). GFLOP counts the matrix products, forward and backward. "MiB kept" is what the forward pass saves for
the backward pass, without its input. "Exact under DDP" means that value and gradient are those of the global batch,
tested on 2 to 4 processes. For this the MMDs exchange all samples, and so do VICReg, the coding rate and the full
participation ratio if there are fewer samples than coordinates; the others exchange a few sums.

| name | equation | GFLOP | MiB kept | exact under DDP |
| --- | --- | --- | --- | --- |"""

INTEGRATORS = f"""
## Integrators

Each maps `(q, p) → (q, p)`. All are symplectic, and a negative step inverts a positive one. The explicit ones also take
a `DampedHamiltonian`, with the same order and as many force evaluations; volume then shrinks by exactly the damping.
Autograd keeps the states and activations of every force evaluation, so memory grows with their number. With
`gradient="reversible"` the explicit integrators keep only the final state. Costs are for two steps of {N} states with
d = {D} and hidden width 256, forward and backward, counted as above. Samples do not interact, so every integrator is
exact under data parallelism.

| name | equation | order | symmetric | force evaluations for S steps | GFLOP | MiB kept | exact under DDP |
| --- | --- | --- | --- | --- | --- | --- | --- |"""

PREDICTORS: dict[str, tuple[Callable[[], sj.predictors.Predictor], str, str]] = {  # with equation and structure
    "HamiltonianPredictor": (
        lambda: sj.HamiltonianPredictor(sj.SeparableHamiltonian(D)),
        "S steps of an integrator of one H(q, p)",
        "symplectic, exact inverse",
    ),
    "SymplecticNetPredictor": (
        lambda: sj.SymplecticNetPredictor(D, hidden_dim=256),
        "p ← p − (h/L) ∇V_i(q, u), q ← q + (h/L) ∇T_i(p), i = 1 … L",
        "symplectic, exact inverse",
    ),
    "ResidualMLPPredictor": (lambda: sj.ResidualMLPPredictor(D), "z ← z ± h g(z), S times", "none"),
}
PREDICTION = f"""
## Predictors

Each maps states `(…, 2d)`, forward or backward in time. Costs are for {N} states with d = {D}, hidden width 256 and
default settings otherwise (leapfrog, S = 2, L = 3), counted as above.

| name | map | structure | GFLOP | MiB kept |
| --- | --- | --- | --- | --- |"""

DERIVED: dict[type, str] = {
    sj.BarlowTwins: "`Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij²`, `C` the cross-correlation of the views",
    sj.HamSIGReg: "`SIGReg` of `H^{1/2} z`",
    sj.CodingRate: "`−R(Z)`, `R = ½ log det(I + D/(N ε²) ZᵀZ)`",
    sj.MMD: "`mean_nm k(x_n, x_m) − 2 mean_n E k(x_n, g) + E k(g, g')`, `k(x, y) = exp(−‖x − y‖²/2σ²)`, `g ~ N(0, I)`",
    sj.SlicedMMD: "`MMD` of `zᵀa`, mean over unit directions `a`",
}


def page() -> str:
    """The page as markdown."""
    midpoint = sj.implicit_midpoint
    cost = _integrator_cost(midpoint, sj.GeneralHamiltonian(D))
    lines = [
        INTRODUCTION,
        *(_regularizer_row(name, module) for name, module in REGULARIZERS.items()),
        INTEGRATORS,
        *(_splitting_row(splitting) for splitting in sj.integrators.SPLITTINGS.values()),
        f"| `implicit_midpoint` | z′ = z + h Ω∇H((z + z′)/2), any Hamiltonian | {midpoint.order} | yes | "
        f"{_count_midpoint()}S gradients of H | {cost} | yes |",
        PREDICTION,
        *(
            f"| `{name}` | {text} | {structure} | {_map_cost(make())} |"
            for name, (make, text, structure) in PREDICTORS.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _regularizer_row(name: str, module: nn.Module) -> str:
    torch.manual_seed(0)
    x = torch.randn((2, N, D) if name == "BarlowTwins" else (N, D), requires_grad=True)
    exact = "yes" if isinstance(module, sj.regularizers.BatchRegularizer) else "no"
    return f"| `{name}` | {_equation(type(module))} | {_cost(lambda: module(x), [x])} | {exact} |"


def _cost(loss: Callable[[], Tensor], inputs: list[Tensor]) -> str:
    """GFLOP of a loss and its gradient, and MiB kept between the two apart from inputs and parameters."""
    given = {x.untyped_storage().data_ptr() for x in inputs}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            value = loss()
        value.backward()
    return f"{counter.get_total_flops() / 1e9:.2f} | {sum(kept.values()) / 2**20:.1f}"


def _equation(cls: type) -> str:
    """The longest formula in the class's docstring, unless the class is described in terms of another."""
    if cls in DERIVED:
        return DERIVED[cls]
    text = (inspect.getdoc(cls) or "").split("Args:")[0]
    formula = max(re.findall(r"``(.+?)``", text, re.DOTALL), key=len)
    return "`" + " ".join(formula.split()).replace("|", r"\|") + "`"


def _splitting_row(splitting: sj.integrators.Splitting) -> str:
    one, two = splitting.force_evaluations(1), splitting.force_evaluations(2)
    per_step, once = two - one, 2 * one - two
    evaluations = ("" if per_step == 1 else str(per_step)) + "S" + (f" + {once}" if once else "")
    kicks, drifts = (", ".join(f"{c:.4g}" for c in table) for table in (splitting.kicks, splitting.drifts))
    symmetric = "yes" if splitting.symmetric else "no"
    equation = f"kicks {kicks}; drifts {drifts}"
    cost = _integrator_cost(splitting, sj.SeparableHamiltonian(D))
    return f"| `{splitting.name}` | {equation} | {splitting.order} | {symmetric} | {evaluations} | {cost} | yes |"


def _integrator_cost(integrator: sj.integrators.Integrator, hamiltonian: sj.hamiltonians.Hamiltonian) -> str:
    """Cost of two steps."""
    torch.manual_seed(0)
    q, p = torch.randn(N, D, requires_grad=True), torch.randn(N, D, requires_grad=True)

    def loss() -> Tensor:
        q_end, p_end = integrator(hamiltonian, q, p, dt=0.05, steps=2)
        return q_end.sum() + p_end.sum()

    return _cost(loss, [q, p, *hamiltonian.parameters(), *hamiltonian.buffers()])


def _map_cost(predictor: sj.predictors.Predictor) -> str:
    torch.manual_seed(0)
    z = torch.randn(N, 2 * D, requires_grad=True)
    return _cost(lambda: predictor(z).sum(), [z, *predictor.parameters(), *predictor.buffers()])


def _count_midpoint() -> int:
    class Counting(sj.hamiltonians.Hamiltonian):
        calls = 0

        def forward(self, q: Tensor, p: Tensor) -> Tensor:
            return 0.5 * (q.square() + p.square()).sum(-1)

        def gradient(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            self.calls += 1
            return q, p

    hamiltonian = Counting()
    sj.implicit_midpoint(hamiltonian, torch.zeros(1, 1), torch.zeros(1, 1), dt=0.1)
    return hamiltonian.calls

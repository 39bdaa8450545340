"""One of every module, small: to compile, to save, to count."""

import torch
from torch import nn

import symplectic_jepa as sj

D = 8  # of q and of p

REGULARIZERS = {
    "EnergyBudget": sj.EnergyBudget,
    "VarianceFloor": sj.VarianceFloor,
    "MeanPenalty": sj.MeanPenalty,
    "ProjectedLogDetFloor": lambda: sj.ProjectedLogDetFloor(1.0, proj_dim=6, refresh_every=2),
    "ParticipationRatioFloor": lambda: sj.ParticipationRatioFloor(0.9, proj_dim=6),
    "ParticipationRatioFloor, full": lambda: sj.ParticipationRatioFloor(0.9, proj_dim=None),
    "TopEigenvalueCeiling": lambda: sj.TopEigenvalueCeiling(0.1, proj_dim=6),
    "SpectralFloors": lambda: sj.SpectralFloors(log_det=1.0, participation=0.9, top_share=0.1, refresh_every=2),
    "SpectralFloors, corrected": lambda: sj.SpectralFloors(log_det=1.0, participation=0.9, bias_correction=True),
    "ParticipationRatioFloor, full, corrected": lambda: sj.ParticipationRatioFloor(
        0.9, proj_dim=None, bias_correction=True
    ),
    "SIGReg": lambda: sj.SIGReg(slices=16, knots=5),
    "HamSIGReg, Laplacian": lambda: sj.HamSIGReg(sj.geometries.LaplacianGeometry((2, 2)), slices=16, knots=5),
    "HamSIGReg, matrix": lambda: sj.HamSIGReg(
        sj.geometries.MatrixGeometry(torch.diag(torch.arange(1.0, 2 * D + 1))), slices=16, knots=5
    ),
    "HamSIGReg, radial": lambda: sj.HamSIGReg(sj.geometries.RadialGeometry((2, 2)), slices=16, knots=5),
    "MMD": sj.MMD,
    "SlicedMMD": lambda: sj.SlicedMMD(slices=4),
    "VICReg": sj.VICReg,
    "BarlowTwins": sj.BarlowTwins,
    "CodingRate": sj.CodingRate,
}
MAPS = {
    "leapfrog": lambda: sj.HamiltonianPredictor(sj.SeparableHamiltonian(D, hidden_dim=8)),
    "learned mass": lambda: sj.HamiltonianPredictor(sj.SeparableHamiltonian(D, hidden_dim=8, learn_mass=True)),
    "damped": lambda: sj.HamiltonianPredictor(
        sj.DampedHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=8), torch.linspace(0.1, 2.0, D), learn=True)
    ),
    "damped, fixed": lambda: sj.HamiltonianPredictor(
        sj.DampedHamiltonian(sj.SeparableHamiltonian(D, hidden_dim=8, learn_mass=True), 0.7), integrator=sj.yoshida4
    ),
    "learned step": lambda: sj.HamiltonianPredictor(sj.SeparableHamiltonian(D, hidden_dim=8), learn_dt=True),
    "symplectic_euler": lambda: sj.HamiltonianPredictor(
        sj.SeparableHamiltonian(D, hidden_dim=8), integrator=sj.symplectic_euler
    ),
    "yoshida6": lambda: sj.HamiltonianPredictor(sj.QuadraticHamiltonian(D), integrator=sj.yoshida6),
    "implicit_midpoint": lambda: sj.HamiltonianPredictor(
        sj.GeneralHamiltonian(D, hidden_dim=8), integrator=sj.implicit_midpoint
    ),
    "mass matrix": lambda: sj.HamiltonianPredictor(
        sj.MassMatrixHamiltonian(
            nn.Sequential(nn.Linear(D, 2 * D), nn.Tanh(), nn.Unflatten(-1, (D, 2))),
            nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(-2)),
            floor=0.3,
        ),
        integrator=sj.implicit_midpoint,
    ),
    "quadratic": lambda: sj.HamiltonianPredictor(sj.QuadraticHamiltonian(D, geometry=0.7 * torch.eye(D))),
    "controlled": lambda: sj.HamiltonianPredictor(
        sj.ControlledHamiltonian(sj.QuadraticHamiltonian(D), 0.7 * torch.eye(D))
    ),
    "user potential": lambda: sj.HamiltonianPredictor(
        sj.PotentialHamiltonian(nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(-2)))
    ),
    "ResidualMLPPredictor": lambda: sj.ResidualMLPPredictor(D, hidden_dim=8),
    "SymplecticNetPredictor": lambda: sj.SymplecticNetPredictor(D, layers=2, hidden_dim=8),
}
USER_ENERGIES = {"user potential", "mass matrix"}  # made of the user's modules: no file names them; forces by autograd
OBJECTIVES = {
    "HamJEPA": lambda: sj.hamjepa_cifar100(MAPS["leapfrog"]()),
    "HamJEPA, ImageNet": lambda: sj.hamjepa_imagenet100(MAPS["leapfrog"]()),
    "HamJEPA, energy": lambda: sj.HamJEPAObjective(MAPS["leapfrog"](), energy_weight=0.1),
    "MLP-HJEPA": lambda: sj.hamjepa_cifar100(MAPS["ResidualMLPPredictor"]()),
    "trajectories": lambda: sj.TrajectoryObjective(MAPS["leapfrog"](), horizon=1, penalties=sj.hamjepa_penalties()),
    "LeJEPA": sj.sigreg_baseline,
}
CASES = {**REGULARIZERS, **MAPS, **OBJECTIVES}


class Energy(nn.Module):
    """A user's ``V(q, u)``."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D + 2, 8)

    def forward(self, q, u):
        return self.layer(torch.cat((q, u), -1)).tanh().sum(-1)


class Driven(nn.Module):
    """A predictor that takes a control together with its control, which bfloat16 holds exactly."""

    def __init__(self, predictor):
        super().__init__()
        self.predictor = predictor
        self.control = nn.Parameter(torch.tensor([0.5, -1.25]))

    def forward(self, z):
        return self.predictor(z, control=self.control.to(z.dtype))


def driven_by_matrix(input_matrix, hamiltonian=sj.SeparableHamiltonian, **options):
    system = sj.ControlledHamiltonian(hamiltonian(D, hidden_dim=8), input_matrix)
    return Driven(sj.HamiltonianPredictor(system, **options))


DRIVEN = {
    "driven, parameter": lambda: driven_by_matrix(nn.Parameter(torch.randn(D, 2))),
    "driven, module": lambda: driven_by_matrix(nn.Sequential(nn.Linear(D, 2 * D), nn.Unflatten(-1, (D, 2)))),
    "driven, general": lambda: driven_by_matrix(
        nn.Parameter(torch.randn(D, 2)), sj.GeneralHamiltonian, integrator=sj.implicit_midpoint
    ),
    "driven, V(q, u)": lambda: Driven(sj.HamiltonianPredictor(sj.SeparableHamiltonian(D, hidden_dim=8, control_dim=2))),
    "driven, user V(q, u)": lambda: Driven(sj.HamiltonianPredictor(sj.PotentialHamiltonian(Energy(), control_dim=2))),
    "driven, network": lambda: Driven(sj.SymplecticNetPredictor(D, layers=2, hidden_dim=8, control_dim=2)),
    "driven, MLP": lambda: Driven(sj.ResidualMLPPredictor(D, hidden_dim=8, control_dim=2)),
}


def settings(module):
    """Every number, switch and option of a module and of its parts, by name."""
    return {
        f"{name}.{key}": value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, bool | int | float | str | None)
    }

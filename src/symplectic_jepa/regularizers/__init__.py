"""Regularizers: samples ``(..., N, D)`` to a scalar."""

from symplectic_jepa.regularizers._base import BatchRegularizer as BatchRegularizer
from symplectic_jepa.regularizers._base import Reduction as Reduction
from symplectic_jepa.regularizers._base import complete as complete
from symplectic_jepa.regularizers.barlow_twins import BarlowTwins as BarlowTwins
from symplectic_jepa.regularizers.coding_rate import CodingRate as CodingRate
from symplectic_jepa.regularizers.covariance import log_det_per_dim as log_det_per_dim
from symplectic_jepa.regularizers.covariance import participation_ratio as participation_ratio
from symplectic_jepa.regularizers.covariance import projected_covariance as projected_covariance
from symplectic_jepa.regularizers.covariance import top_eigenvalue as top_eigenvalue
from symplectic_jepa.regularizers.draws import advance_draws as advance_draws
from symplectic_jepa.regularizers.draws import hold_draws as hold_draws
from symplectic_jepa.regularizers.draws import orthonormal_projection as orthonormal_projection
from symplectic_jepa.regularizers.draws import unit_directions as unit_directions
from symplectic_jepa.regularizers.energy_budget import EnergyBudget as EnergyBudget
from symplectic_jepa.regularizers.hamsigreg import HamSIGReg as HamSIGReg
from symplectic_jepa.regularizers.kerjepa import MMD as MMD
from symplectic_jepa.regularizers.kerjepa import SlicedMMD as SlicedMMD
from symplectic_jepa.regularizers.mean_penalty import MeanPenalty as MeanPenalty
from symplectic_jepa.regularizers.sigreg import SIGReg as SIGReg
from symplectic_jepa.regularizers.spectral_floors import ParticipationRatioFloor as ParticipationRatioFloor
from symplectic_jepa.regularizers.spectral_floors import ProjectedLogDetFloor as ProjectedLogDetFloor
from symplectic_jepa.regularizers.spectral_floors import SpectralFloors as SpectralFloors
from symplectic_jepa.regularizers.spectral_floors import TopEigenvalueCeiling as TopEigenvalueCeiling
from symplectic_jepa.regularizers.variance_floor import VarianceFloor as VarianceFloor
from symplectic_jepa.regularizers.vicreg import VICReg as VICReg

"""Measures frozen features (kNN, linear probe, spectrum, geometry) and the structure of a predictor."""

from symplectic_jepa.evaluation._linear_probe import ProbeResult as ProbeResult
from symplectic_jepa.evaluation._linear_probe import linear_probe as linear_probe
from symplectic_jepa.evaluation._spectrum import Spectrum as Spectrum
from symplectic_jepa.evaluation._spectrum import effective_rank as effective_rank
from symplectic_jepa.evaluation._spectrum import spectrum as spectrum
from symplectic_jepa.evaluation.geometry import alignment as alignment
from symplectic_jepa.evaluation.geometry import feature_norms as feature_norms
from symplectic_jepa.evaluation.geometry import pair_cosines as pair_cosines
from symplectic_jepa.evaluation.geometry import uniformity as uniformity
from symplectic_jepa.evaluation.knn import KNNAccuracy as KNNAccuracy
from symplectic_jepa.evaluation.knn import knn_sweep as knn_sweep
from symplectic_jepa.evaluation.structure import energy_drift as energy_drift
from symplectic_jepa.evaluation.structure import reversibility_error as reversibility_error
from symplectic_jepa.evaluation.structure import symplecticity_defect as symplecticity_defect

"""Predictors: maps from one view's phase-space state to the other's."""

from symplectic_jepa.predictors._base import Predictor as Predictor
from symplectic_jepa.predictors._stepped import SteppedPredictor as SteppedPredictor
from symplectic_jepa.predictors.hamiltonian import HamiltonianPredictor as HamiltonianPredictor
from symplectic_jepa.predictors.residual_mlp import ResidualMLPPredictor as ResidualMLPPredictor
from symplectic_jepa.predictors.symplectic_net import SymplecticNetPredictor as SymplecticNetPredictor

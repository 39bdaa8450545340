"""Objectives: map states ``(V, B, D)`` to a loss and its named terms."""

from symplectic_jepa.objectives._base import Objective as Objective
from symplectic_jepa.objectives._base import ObjectiveOutput as ObjectiveOutput
from symplectic_jepa.objectives._base import PredictionLoss as PredictionLoss
from symplectic_jepa.objectives._base import mean_over_samples as mean_over_samples
from symplectic_jepa.objectives.hamjepa import HamJEPAObjective as HamJEPAObjective
from symplectic_jepa.objectives.hamjepa import Matching as Matching
from symplectic_jepa.objectives.lejepa import LeJEPAObjective as LeJEPAObjective
from symplectic_jepa.objectives.lejepa import ViewMean as ViewMean
from symplectic_jepa.objectives.penalties import Floors as Floors
from symplectic_jepa.objectives.penalties import hamjepa_penalties as hamjepa_penalties
from symplectic_jepa.objectives.penalties import sigreg_penalties as sigreg_penalties
from symplectic_jepa.objectives.penalty import Penalty as Penalty
from symplectic_jepa.objectives.penalty import StateParts as StateParts
from symplectic_jepa.objectives.presets import hamjepa_cifar100 as hamjepa_cifar100
from symplectic_jepa.objectives.presets import hamjepa_imagenet100 as hamjepa_imagenet100
from symplectic_jepa.objectives.presets import sigreg_baseline as sigreg_baseline
from symplectic_jepa.objectives.trajectory import TrajectoryMatching as TrajectoryMatching
from symplectic_jepa.objectives.trajectory import TrajectoryObjective as TrajectoryObjective

"""Objectives: states ``(V, B, D)`` to a loss and its named terms."""

from symplectic_jepa.objectives.hamjepa import HamJEPAObjective as HamJEPAObjective
from symplectic_jepa.objectives.lejepa import LeJEPAObjective as LeJEPAObjective
from symplectic_jepa.objectives.penalties import Floors as Floors
from symplectic_jepa.objectives.penalties import ObjectiveOutput as ObjectiveOutput
from symplectic_jepa.objectives.penalties import Penalty as Penalty
from symplectic_jepa.objectives.penalties import phase_space_penalties as phase_space_penalties
from symplectic_jepa.objectives.penalties import sigreg_penalty as sigreg_penalty
from symplectic_jepa.objectives.presets import hamjepa_cifar100 as hamjepa_cifar100
from symplectic_jepa.objectives.presets import hamjepa_imagenet100 as hamjepa_imagenet100
from symplectic_jepa.objectives.presets import sigreg_cifar100 as sigreg_cifar100
from symplectic_jepa.objectives.presets import sigreg_imagenet100 as sigreg_imagenet100

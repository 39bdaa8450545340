"""The paper's recipes as objectives [paper, appendix F.11]."""

from __future__ import annotations

from symplectic_jepa.objectives.hamjepa import HamJEPAObjective
from symplectic_jepa.objectives.lejepa import LeJEPAObjective
from symplectic_jepa.objectives.penalties import CIFAR100_P, CIFAR100_Q, Floors, hamjepa_penalties, sigreg_penalties
from symplectic_jepa.predictors import Predictor
from symplectic_jepa.regularizers._base import Group


def hamjepa_cifar100(
    predictor: Predictor, *, seed: int = 42, sync: bool = True, process_group: Group = None
) -> HamJEPAObjective:
    """HamJEPA (or, with a `ResidualMLPPredictor`, MLP-HJEPA) for CIFAR-100 [paper, appendix F.11].

    Args:
        predictor: the view-to-view map on states ``(..., 2d)``.
        seed: seed of the random projections.
        sync: see `Objective`.
        process_group: see `Objective`.
    """
    penalties = hamjepa_penalties(q=CIFAR100_Q, p=CIFAR100_P, seed=seed)
    return HamJEPAObjective(
        predictor, match="q", p_weight=0.2, penalties=penalties, sync=sync, process_group=process_group
    )


def hamjepa_imagenet100(
    predictor: Predictor, *, seed: int = 42, sync: bool = True, process_group: Group = None
) -> HamJEPAObjective:
    """HamJEPA for ImageNet-100 [paper, appendix F.11].

    Full-state matching ``(q, p)``, forward time in both directions, no variance floor on ``p``.

    Args:
        predictor: the view-to-view map on states ``(..., 2d)``.
        seed: seed of the random projections.
        sync: see `Objective`.
        process_group: see `Objective`.
    """
    penalties = hamjepa_penalties(
        q=Floors(energy=1.0, std=0.2, log_det=-1.2, participation=0.25, top_share=0.10),
        p=Floors(energy=1.0, log_det=-1.2, participation=0.25, top_share=0.10),
        variance=1.0,
        spectrum=1.0,
        seed=seed,
    )
    return HamJEPAObjective(
        predictor, match="qp", reverse_time=False, penalties=penalties, sync=sync, process_group=process_group
    )


def sigreg_baseline(*, seed: int = 42, sync: bool = True, process_group: Group = None) -> LeJEPAObjective:
    """The SIGReg baseline of both data sets, ``λ = 0.02, M = 64, T = 9`` [paper, appendix F.11].

    Args:
        seed: seed of the random directions.
        sync: see `Objective`.
        process_group: see `Objective`.
    """
    return LeJEPAObjective(sigreg_penalties(seed=seed), sync=sync, process_group=process_group)

"""The paper's recipes as objectives [paper, appendix F.11]."""

from __future__ import annotations

from symplectic_jepa.objectives.hamjepa import HamJEPAObjective
from symplectic_jepa.objectives.lejepa import LeJEPAObjective
from symplectic_jepa.objectives.penalties import Floors, hamjepa_penalties, sigreg_penalties
from symplectic_jepa.predictors import Predictor


def hamjepa_cifar100(predictor: Predictor, *, seed: int = 42, sync: bool = True) -> HamJEPAObjective:
    """HamJEPA (or, with a `ResidualMLPPredictor`, MLP-HJEPA) for CIFAR-100 [paper, appendix F.11].

    Args:
        predictor: the view-to-view map on states ``(..., 2d)``.
        seed: seed of the random projections.
        sync: ``False``: statistics of the local batch, see `HamJEPAObjective`.
    """
    penalties = hamjepa_penalties(
        q=Floors(participation=0.12, top_share=0.35), p=Floors(participation=0.16, top_share=0.30), seed=seed
    )
    return HamJEPAObjective(predictor, match="q", p_weight=0.2, backward="reverse", penalties=penalties, sync=sync)


def hamjepa_imagenet100(predictor: Predictor, *, seed: int = 42, sync: bool = True) -> HamJEPAObjective:
    """HamJEPA for ImageNet-100: full-state matching, forward time in both directions, no variance floor on ``p``.

    The settings of [paper, appendix F.11].

    Args:
        predictor: the view-to-view map on states ``(..., 2d)``.
        seed: seed of the random projections.
        sync: ``False``: statistics of the local batch, see `HamJEPAObjective`.
    """
    penalties = hamjepa_penalties(
        q=Floors(log_det=-1.2, participation=0.25, top_share=0.10),
        p=Floors(log_det=-1.2, participation=0.25, top_share=0.10, std=None),
        variance=1.0,
        spectrum=1.0,
        seed=seed,
    )
    return HamJEPAObjective(predictor, match="qp", backward="forward", penalties=penalties, sync=sync)


def sigreg_baseline(*, seed: int = 42, sync: bool = True) -> LeJEPAObjective:
    """The SIGReg baseline of both data sets, ``λ = 0.02, M = 64, T = 9`` [paper, appendix F.11].

    Args:
        seed: seed of the random directions.
        sync: ``False``: statistics of the local batch, see `HamJEPAObjective`.
    """
    return LeJEPAObjective(sigreg_penalties(seed=seed), sync=sync)

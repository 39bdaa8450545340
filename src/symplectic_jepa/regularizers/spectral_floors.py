"""Hinges on the spectrum of a batch's covariance: volume, participation, the largest share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision
from symplectic_jepa.regularizers.covariance import (
    log_det_per_dim,
    participation_ratio,
    projected_covariance,
    top_eigenvalue,
)
from symplectic_jepa.regularizers.draws import Schedule, orthonormal_projection


class SpectralFloors(nn.Module):
    r"""Log-det floor, participation-ratio floor and top-eigenvalue ceiling of ONE projected covariance ``C``.

    ``relu(ℓ_min − (1/k) log det C)² + relu(r_min − PR(C)/k)² + relu(λ_max/tr(C) − a_max)²`` with
    ``k = min(proj_dim, D, N − 1)`` [paper, eqs. 34–38 and appendix F.8]; a hinge set to ``None`` is left out. Why
    several: log-det alone allows one spike (lemma A.10), the participation ratio alone fixes no scale (A.11), together
    with an energy budget they bound the condition number (A.15).

    Args:
        log_det: ``ℓ_min``.
        participation: ``r_min``, between 0 and 1.
        top_share: ``a_max``, between 0 and 1.
        proj_dim: largest ``k``.
        eps: ridge ``ε`` of the covariance.
        refresh_every: redraw the projection after this many training steps.
        seed: seed of the projections.

    After each call ``statistics`` holds, detached and on the device, whichever of ``log_det``, ``participation`` and
    ``top_share`` has a hinge.

    Raises:
        ValueError: if no hinge is set, or an argument is out of its range.
    """

    def __init__(
        self,
        *,
        log_det: float | None = None,
        participation: float | None = None,
        top_share: float | None = None,
        proj_dim: int = 128,
        eps: float = 1e-4,
        refresh_every: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if log_det is None and participation is None and top_share is None:
            raise ValueError("at least one of log_det, participation and top_share must be set, got None for all")
        self.log_det = None if log_det is None else _checks.finite("log_det", log_det)
        self.participation = None if participation is None else _checks.fraction("participation", participation)
        self.top_share = None if top_share is None else _checks.fraction("top_share", top_share)
        self.proj_dim = _checks.positive_int("proj_dim", proj_dim)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)
        self.schedule = Schedule(orthonormal_projection, seed=seed, every=refresh_every)
        self.statistics: dict[str, Tensor] = {}

    @full_precision
    def forward(self, x: Tensor, *, projection: Tensor | None = None) -> Tensor:
        """``(..., N, D)`` with ``N ≥ 2`` to a scalar, the mean over leading dimensions.

        Args:
            x: samples.
            projection: ``R``, ``(D, k)`` with orthonormal columns; by default from the schedule.
        """
        _checks.samples("x", x, minimum=2)
        if projection is None:
            k = min(self.proj_dim, x.shape[-1], x.shape[-2] - 1)
            projection = self.schedule(x.shape[-1], k, dtype=x.dtype, device=x.device)
        return self.penalty(projected_covariance(x, projection, eps=self.eps)).to(x.dtype)

    def penalty(self, cov: Tensor) -> Tensor:
        """The hinges of a given covariance ``(..., k, k)``, as a scalar."""
        hinges: list[Tensor] = []
        statistics: dict[str, Tensor] = {}
        if self.log_det is not None:
            statistics["log_det"] = log_det_per_dim(cov)
            hinges.append(torch.relu(self.log_det - statistics["log_det"]))
        if self.participation is not None:
            statistics["participation"] = participation_ratio(cov) / cov.shape[-1]
            hinges.append(torch.relu(self.participation - statistics["participation"]))
        if self.top_share is not None:
            statistics["top_share"] = top_eigenvalue(cov) / cov.diagonal(dim1=-2, dim2=-1).sum(-1)
            hinges.append(torch.relu(statistics["top_share"] - self.top_share))
        self.statistics = {name: value.detach().mean() for name, value in statistics.items()}
        return torch.stack(hinges).square().sum(0).mean()


class ProjectedLogDetFloor(SpectralFloors):
    r"""``relu(ℓ_min − (1/k) log det C)²`` of the projected covariance [paper, eq. 36].

    Args:
        floor: ``ℓ_min``.
        proj_dim: see `SpectralFloors`, as for the others.
        eps: ridge of the covariance.
        refresh_every: steps between projections.
        seed: seed of the projections.
    """

    def __init__(
        self, floor: float = -1.5, *, proj_dim: int = 128, eps: float = 1e-4, refresh_every: int = 16, seed: int = 0
    ) -> None:
        super().__init__(log_det=floor, proj_dim=proj_dim, eps=eps, refresh_every=refresh_every, seed=seed)


class TopEigenvalueCeiling(SpectralFloors):
    r"""``relu(λ_max/tr(C) − a_max)²`` of the projected covariance [paper, appendix F.8].

    Args:
        ceiling: ``a_max``, between 0 and 1.
        proj_dim: see `SpectralFloors`, as for the others.
        eps: ridge of the covariance.
        refresh_every: steps between projections.
        seed: seed of the projections.
    """

    def __init__(
        self, ceiling: float = 0.35, *, proj_dim: int = 128, eps: float = 1e-4, refresh_every: int = 16, seed: int = 0
    ) -> None:
        super().__init__(top_share=ceiling, proj_dim=proj_dim, eps=eps, refresh_every=refresh_every, seed=seed)


class ParticipationRatioFloor(SpectralFloors):
    r"""``relu(r_min − PR/k)²``, of the projected or of the full covariance [paper, eqs. 37 and 38].

    The full one (``proj_dim=None``, ``k = min(D, N − 1)``, no ridge) reads ``tr(Σ)`` and ``tr(Σ²)`` off the smaller of
    the ``D × D`` covariance and the ``N × N`` Gram matrix, which share their non-zero eigenvalues.

    Args:
        floor: ``r_min``, between 0 and 1.
        proj_dim: largest ``k``, or ``None`` for the full covariance.
        eps: ridge of the projected covariance.
        refresh_every: steps between projections.
        seed: seed of the projections.
    """

    def __init__(
        self,
        floor: float = 0.12,
        *,
        proj_dim: int | None = 128,
        eps: float = 1e-4,
        refresh_every: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(participation=floor, proj_dim=proj_dim or 1, eps=eps, refresh_every=refresh_every, seed=seed)
        self.full = proj_dim is None
        self.floor = floor

    @full_precision
    def forward(self, x: Tensor, *, projection: Tensor | None = None) -> Tensor:
        """``(..., N, D)`` with ``N ≥ 2`` to a scalar, the mean over leading dimensions.

        Raises:
            ValueError: if ``projection`` is given and the floor is of the full covariance.
        """
        if not self.full:
            return super().forward(x, projection=projection)
        if projection is not None:
            raise ValueError("projection must be None for the floor of the full covariance (proj_dim=None)")
        _checks.samples("x", x, minimum=2)
        n, dim = x.shape[-2:]
        centred = x - x.mean(-2, keepdim=True)
        gram = centred @ centred.mT if n < dim else centred.mT @ centred
        # PR does not depend on scale, so neither 1/(N − 1) nor a ridge is needed; a point has the ratio 0.
        square = gram.square().sum((-2, -1)).clamp_min(torch.finfo(x.dtype).tiny)
        ratio = gram.diagonal(dim1=-2, dim2=-1).sum(-1).square() / square / min(dim, n - 1)
        self.statistics = {"participation": ratio.detach().mean()}
        return torch.relu(self.floor - ratio).square().mean()

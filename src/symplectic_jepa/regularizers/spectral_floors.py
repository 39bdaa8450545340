"""Hinges on the spectrum of a batch's covariance: volume, participation, the largest share."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import full_precision
from symplectic_jepa.regularizers._base import BatchRegularizer, Reduction, complete
from symplectic_jepa.regularizers.covariance import (
    covariance,
    log_det_per_dim,
    moments,
    participation_ratio,
    project,
    top_eigenvalue,
)
from symplectic_jepa.regularizers.draws import Schedule


class SpectralFloors(BatchRegularizer):
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
        sync: see `BatchRegularizer`.

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
        sync: bool = True,
    ) -> None:
        super().__init__(sync=sync)
        if log_det is None and participation is None and top_share is None:
            raise ValueError("at least one of log_det, participation and top_share must be set, got None for all")
        self.log_det = None if log_det is None else _checks.finite("log_det", log_det)
        self.participation = None if participation is None else _checks.fraction("participation", participation)
        self.top_share = None if top_share is None else _checks.fraction("top_share", top_share)
        self.proj_dim = _checks.positive_int("proj_dim", proj_dim)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)
        self.schedule = Schedule(
            "orthonormal_projection", seed=seed, every=_checks.positive_int("refresh_every", refresh_every)
        )

    @property
    def refresh_every(self) -> int:
        """Training steps between projections."""
        return self.schedule.every

    @property
    def seed(self) -> int:
        """Seed of the projections."""
        return self.schedule.seed

    @full_precision
    def forward(self, x: Tensor, *, projection: Tensor | None = None) -> Tensor:
        """``(..., N, D)`` to a scalar, the mean over leading dimensions.

        Args:
            x: samples, at least two over all ranks.
            projection: ``R``, ``(D, k)`` with orthonormal columns; by default from the schedule.
        """
        return complete([self.reduction(x, projection=projection)], sync=self.sync)[0]

    def reduction(self, x: Tensor, *, projection: Tensor | None = None) -> Reduction:
        """Moments of the projected samples; see `BatchRegularizer`."""
        n, dim = _checks.samples("x", x, minimum=1 if self.shared else 2).shape[-2:]
        k = projection.shape[-1] if projection is not None else min(self.proj_dim, dim)
        limited = projection is None and n <= k  # this rank alone does not see k degrees of freedom
        if projection is None:
            projection = self.schedule(dim, k, dtype=x.dtype, device=x.device)

        def finish(sums: list[Tensor]) -> Tensor:
            rank = (sums[0] - 1).clamp_max(k) if limited else None
            return self.penalty(covariance(*sums, eps=self.eps), rank=rank).to(x.dtype)

        return Reduction(moments(project(x, projection)), finish)

    def penalty(self, cov: Tensor, *, rank: Tensor | None = None) -> Tensor:
        """The hinges of a given covariance ``(..., k, k)``, or of its leading ``rank × rank`` block, as a scalar.

        The leading block is the covariance under the first columns of ``R``. ``rank``, a scalar tensor, is known to the
        device alone where the batch is shared between ranks, so the block is a mask and not a slice.
        """
        size: Tensor | int = cov.shape[-1]
        filled = cov
        if rank is not None:
            inside = torch.arange(cov.shape[-1], device=cov.device) < rank
            cov = cov.where(inside & inside[:, None], 0)
            filled, size = cov + torch.diag(~inside).to(cov.dtype), rank  # ones outside leave the determinant alone
        hinges: list[Tensor] = []
        statistics: dict[str, Tensor] = {}
        if self.log_det is not None:
            statistics["log_det"] = log_det_per_dim(filled) * (cov.shape[-1] / size)
            hinges.append(torch.relu(self.log_det - statistics["log_det"]))
        if self.participation is not None:
            statistics["participation"] = participation_ratio(cov) / size
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
        sync: see `BatchRegularizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        floor: float = -1.5,
        *,
        proj_dim: int = 128,
        eps: float = 1e-4,
        refresh_every: int = 16,
        seed: int = 0,
        sync: bool = True,
    ) -> None:
        super().__init__(
            log_det=_checks.finite("floor", floor),
            proj_dim=proj_dim,
            eps=eps,
            refresh_every=refresh_every,
            seed=seed,
            sync=sync,
        )

    @property
    def floor(self) -> float | None:
        """``ℓ_min``."""
        return self.log_det


class TopEigenvalueCeiling(SpectralFloors):
    r"""``relu(λ_max/tr(C) − a_max)²`` of the projected covariance [paper, appendix F.8].

    Args:
        ceiling: ``a_max``, between 0 and 1.
        proj_dim: see `SpectralFloors`, as for the others.
        eps: ridge of the covariance.
        refresh_every: steps between projections.
        seed: seed of the projections.
        sync: see `BatchRegularizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        ceiling: float = 0.35,
        *,
        proj_dim: int = 128,
        eps: float = 1e-4,
        refresh_every: int = 16,
        seed: int = 0,
        sync: bool = True,
    ) -> None:
        super().__init__(
            top_share=_checks.fraction("ceiling", ceiling),
            proj_dim=proj_dim,
            eps=eps,
            refresh_every=refresh_every,
            seed=seed,
            sync=sync,
        )

    @property
    def ceiling(self) -> float | None:
        """``a_max``."""
        return self.top_share


class ParticipationRatioFloor(SpectralFloors):
    r"""``relu(r_min − PR/k)²``, of the projected or of the full covariance [paper, eqs. 37 and 38].

    The full one (``proj_dim=None``, ``k = min(D, N − 1)``, no ridge) reads ``tr(Σ)`` and ``tr(Σ²)`` off the smaller of
    the ``D × D`` covariance and the ``N × N`` Gram matrix, which share their non-zero eigenvalues; over several ranks,
    off the ``D × D`` one.

    Args:
        floor: ``r_min``, between 0 and 1.
        proj_dim: largest ``k``, or ``None`` for the full covariance.
        eps: ridge of the projected covariance.
        refresh_every: steps between projections.
        seed: seed of the projections.
        sync: see `BatchRegularizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        floor: float = 0.12,
        *,
        proj_dim: int | None = 128,
        eps: float = 1e-4,
        refresh_every: int = 16,
        seed: int = 0,
        sync: bool = True,
    ) -> None:
        super().__init__(
            participation=_checks.fraction("floor", floor),
            proj_dim=1 if proj_dim is None else proj_dim,
            eps=eps,
            refresh_every=refresh_every,
            seed=seed,
            sync=sync,
        )
        if proj_dim is None:
            self.proj_dim = None  # type: ignore[assignment]  # the base class is not asked to project then

    @property
    def floor(self) -> float:
        """``r_min``."""
        assert self.participation is not None
        return self.participation

    def reduction(self, x: Tensor, *, projection: Tensor | None = None) -> Reduction:
        """Moments of the projected samples, or of the samples; see `BatchRegularizer`.

        Raises:
            ValueError: if ``projection`` is given and the floor is of the full covariance.
        """
        if self.proj_dim is not None:
            return super().reduction(x, projection=projection)
        if projection is not None:
            raise ValueError("projection must be None for the floor of the full covariance (proj_dim=None)")
        n, dim = _checks.samples("x", x, minimum=1 if self.shared else 2).shape[-2:]
        if not self.shared:
            centred = x - x.mean(-2, keepdim=True)
            gram = centred @ centred.mT if n < dim else centred.mT @ centred
            return Reduction([], lambda _: self._hinge(gram, min(dim, n - 1)))

        def finish(sums: list[Tensor]) -> Tensor:
            return self._hinge(covariance(*sums).to(x.dtype), (sums[0] - 1).clamp_max(dim).to(x.dtype))

        return Reduction(moments(x), finish)

    def _hinge(self, matrix: Tensor, k: Tensor | int) -> Tensor:
        """The hinge of a covariance or Gram matrix: the ratio does not depend on their scale, a point has ratio 0."""
        square = matrix.square().sum((-2, -1)).clamp_min(torch.finfo(matrix.dtype).tiny)
        ratio = matrix.diagonal(dim1=-2, dim2=-1).sum(-1).square() / square / k
        self.statistics = {"participation": ratio.detach().mean()}
        return torch.relu(self.floor - ratio).square().mean()

"""Hinges on the spectrum of a batch covariance: log-determinant, participation ratio and top share."""

from __future__ import annotations

from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor
from typing_extensions import Unpack

from symplectic_jepa import _checks
from symplectic_jepa.distributed import Ranks
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction
from symplectic_jepa.regularizers.covariance import (
    covariance,
    log_det_per_dim,
    moments,
    participation_ratio,
    project,
    top_eigenvalue,
)
from symplectic_jepa.regularizers.draws import Schedule

PROJ_DIM, EPS, REFRESH_EVERY = 128, 1e-4, 16  # the paper's; `Floors` shares them


class SpectralFloors(BatchRegularizer):
    r"""Log-det floor, participation-ratio floor and top-eigenvalue ceiling of ONE projected covariance ``C``.

    ``relu(ℓ_min − (1/k) log det C)² + relu(r_min − PR(C)/k)² + relu(λ_max/tr(C) − a_max)²`` with
    ``k = min(proj_dim, D, N − 1)`` [paper, eqs. 34–38 and appendix F.8]; a hinge set to ``None`` is disabled. Log-det
    alone allows one spike (lemma A.10), and the participation ratio alone does not fix the scale (A.11). Together with
    an energy budget they bound the condition number (A.15).

    Args:
        log_det: floor ``ℓ_min``.
        participation: floor ``r_min``, between 0 and 1.
        top_share: ceiling ``a_max``, between 0 and 1.
        proj_dim: upper limit of ``k``.
        eps: ridge ``ε`` of the covariance.
        refresh_every: redraw the projection after this many training steps.
        seed: seed of the projections.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    The statistics are those of ``log_det``, ``participation`` and ``top_share`` that have a hinge.

    Raises:
        ValueError: if no hinge is set, or an argument is out of range.
    """

    proj_dim: int | None  # None: no limit

    def __init__(
        self,
        *,
        log_det: float | None = None,
        participation: float | None = None,
        top_share: float | None = None,
        proj_dim: int = PROJ_DIM,
        eps: float = EPS,
        refresh_every: int = REFRESH_EVERY,
        seed: int = 0,
        sync: bool = True,
        process_group: Group = None,
    ) -> None:
        super().__init__(sync=sync, process_group=process_group)
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

    def reduction(self, x: Tensor, ranks: Ranks, *, projection: Tensor | None = None) -> Reduction:
        """Moments of the projected samples ``(..., N, D)``; see `BatchRegularizer`.

        Args:
            x: samples, at least two over all ranks.
            ranks: whose samples form the batch.
            projection: ``R``, ``(D, k)`` with orthonormal columns; by default from the schedule.
        """
        n, dim = _checks.samples("x", x, minimum=1 if ranks.shared else 2).shape[-2:]
        if projection is not None:
            _checks.columns("projection", projection, x)
        k = projection.shape[-1] if projection is not None else min(self.proj_dim or dim, dim)
        limited = projection is None and n <= k  # this rank alone has fewer than k degrees of freedom
        if projection is None:
            projection = self.schedule(dim, k, dtype=x.dtype, device=x.device)

        def finish(sums: list[Tensor]) -> Measured:
            rank = (sums[0] - 1).clamp_max(k) if limited else None
            value, statistics = self.penalty(covariance(*sums, eps=self.eps), rank=rank)
            return Measured(value.to(x.dtype), statistics)

        return Reduction(moments(project(x, projection)), finish)

    def penalty(self, cov: Tensor, *, rank: Tensor | None = None) -> Measured:
        """The hinges of a given covariance ``(..., k, k)``, or of its leading ``rank × rank`` block.

        The leading block is the covariance under the first columns of ``R``. If ranks share the batch, the scalar
        tensor ``rank`` is known only on the device, so the block is selected by a mask instead of a slice.
        """
        size: Tensor | int = cov.shape[-1]
        filled = cov
        if rank is not None:
            inside = torch.arange(cov.shape[-1], device=cov.device) < rank
            cov = cov.where(inside & inside[:, None], 0)
            filled, size = cov + torch.diag(~inside).to(cov.dtype), rank  # ones outside keep the determinant
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
        value = torch.stack(hinges).square().sum(0).mean()
        return Measured(value, {name: x.mean() for name, x in statistics.items()})


class _Settings(TypedDict, total=False):
    """Keyword arguments that the single-hinge classes pass to `SpectralFloors`."""

    eps: float
    refresh_every: int
    seed: int
    sync: bool
    process_group: Group


class _OneHinge(SpectralFloors):
    _level: ClassVar[str]  # name of the hinge argument in the constructor

    def config(self) -> dict[str, Any]:
        """See `Pretrained.config`."""
        return {name: getattr(self, name) for name in (self._level, "proj_dim", *_Settings.__annotations__)}


class ProjectedLogDetFloor(_OneHinge):
    r"""``relu(ℓ_min − (1/k) log det C)²`` of the projected covariance [paper, eq. 36].

    Args:
        floor: floor ``ℓ_min``.
        proj_dim: upper limit of ``k``.
        settings: ``eps``, ``refresh_every``, ``seed``, ``sync`` and ``process_group``; see `SpectralFloors`.

    Raises:
        ValueError: if an argument is out of range.
    """

    _level = "floor"

    def __init__(self, floor: float = -1.5, *, proj_dim: int = PROJ_DIM, **settings: Unpack[_Settings]) -> None:
        super().__init__(log_det=_checks.finite("floor", floor), proj_dim=proj_dim, **settings)

    @property
    def floor(self) -> float | None:
        """``ℓ_min``."""
        return self.log_det


class TopEigenvalueCeiling(_OneHinge):
    r"""``relu(λ_max/tr(C) − a_max)²`` of the projected covariance [paper, appendix F.8].

    Args:
        ceiling: ceiling ``a_max``, between 0 and 1.
        proj_dim: upper limit of ``k``.
        settings: ``eps``, ``refresh_every``, ``seed``, ``sync`` and ``process_group``; see `SpectralFloors`.

    Raises:
        ValueError: if an argument is out of range.
    """

    _level = "ceiling"

    def __init__(self, ceiling: float = 0.35, *, proj_dim: int = PROJ_DIM, **settings: Unpack[_Settings]) -> None:
        super().__init__(top_share=_checks.fraction("ceiling", ceiling), proj_dim=proj_dim, **settings)

    @property
    def ceiling(self) -> float | None:
        """``a_max``."""
        return self.top_share


class ParticipationRatioFloor(_OneHinge):
    r"""``relu(r_min − PR/k)²``, of the projected or the full covariance [paper, eqs. 37 and 38].

    With ``proj_dim=None`` it uses the full covariance, ``k = min(D, N − 1)`` and no ridge, and computes ``tr(Σ)`` and
    ``tr(Σ²)`` from the smaller of the ``D × D`` covariance and the ``N × N`` Gram matrix, which share their non-zero
    eigenvalues; over several ranks, from the ``D × D`` one.

    Args:
        floor: floor ``r_min``, between 0 and 1.
        proj_dim: upper limit of ``k``, or ``None`` for the full covariance.
        settings: ``eps``, ``refresh_every``, ``seed``, ``sync`` and ``process_group``; see `SpectralFloors`.

    Raises:
        ValueError: if an argument is out of range.
    """

    _level = "floor"

    def __init__(self, floor: float = 0.12, *, proj_dim: int | None = PROJ_DIM, **settings: Unpack[_Settings]) -> None:
        limit = 1 if proj_dim is None else proj_dim
        super().__init__(participation=_checks.fraction("floor", floor), proj_dim=limit, **settings)
        self.proj_dim = proj_dim

    @property
    def floor(self) -> float | None:
        """``r_min``."""
        return self.participation

    def reduction(self, x: Tensor, ranks: Ranks, *, projection: Tensor | None = None) -> Reduction:
        """Moments of the samples, projected unless ``proj_dim`` is ``None``; see `BatchRegularizer`.

        Raises:
            ValueError: if ``projection`` is given with ``proj_dim=None``.
        """
        if self.proj_dim is not None:
            return super().reduction(x, ranks, projection=projection)
        if projection is not None:
            raise ValueError("projection must be None for the floor of the full covariance (proj_dim=None)")
        n, dim = _checks.samples("x", x, minimum=1 if ranks.shared else 2).shape[-2:]
        if not ranks.shared:
            centred = x - x.mean(-2, keepdim=True)
            gram = centred @ centred.mT if n < dim else centred.mT @ centred
            return Reduction([], lambda _: self._hinge(gram, min(dim, n - 1)))

        def finish(sums: list[Tensor]) -> Measured:
            return self._hinge(covariance(*sums).to(x.dtype), (sums[0] - 1).clamp_max(dim).to(x.dtype))

        return Reduction(moments(x), finish)

    def _hinge(self, matrix: Tensor, k: Tensor | int) -> Measured:
        """The hinge of a covariance or Gram matrix: the ratio does not depend on scale, and is 0 for a single point."""
        square = matrix.square().sum((-2, -1)).clamp_min(torch.finfo(matrix.dtype).tiny)
        ratio = matrix.diagonal(dim1=-2, dim2=-1).sum(-1).square() / square / k
        assert self.participation is not None  # its only hinge
        return Measured(torch.relu(self.participation - ratio).square().mean(), {"participation": ratio.mean()})

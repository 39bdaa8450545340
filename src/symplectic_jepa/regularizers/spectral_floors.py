"""Hinges on the spectrum of a batch covariance: log-determinant, participation ratio and top share."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

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
from symplectic_jepa.regularizers.finite_sample import log_det_bias, unbiased_participation_ratio

PROJ_DIM, EPS, REFRESH_EVERY = 128, 1e-4, 16  # the paper's; `Floors` shares them


class SpectralFloors(BatchRegularizer):
    r"""Log-det floor, participation-ratio floor and top-eigenvalue ceiling of ONE projected covariance ``C``.

    ``relu(ℓ_min − (1/k) log det C)² + relu(r_min − PR(C)/k)² + relu(λ_max/tr(C) − a_max)²`` with
    ``k = min(proj_dim, D, N − 1)`` [paper, eqs. 34–38 and appendix F.8]; a hinge set to ``None`` is disabled. Log-det
    alone allows one spike (lemma A.10), and the participation ratio alone does not fix the scale (A.11). Together with
    an energy budget they bound the condition number (A.15).

    A finite batch spreads the eigenvalues of ``C`` and so biases all three statistics: the log-det of a unit Gaussian
    is about −1.0 for ``N ≤ 129`` and ``proj_dim=128``, −0.31 for 256 and −0.06 for 1024. A floor therefore means
    something else at another batch size. Below ``N = 2k`` an uncorrected module warns once (not in a compiled graph),
    taking ``N`` to be its own samples times the number of ranks.

    Args:
        log_det: floor ``ℓ_min``.
        participation: floor ``r_min``, between 0 and 1.
        top_share: ceiling ``a_max``, between 0 and 1.
        proj_dim: upper limit of ``k``.
        eps: ridge ``ε`` of the covariance.
        refresh_every: redraw the projection after this many training steps.
        seed: seed of the projections.
        bias_correction: remove the bias that Gaussian samples would have. With ``n = N − 1``, subtract
            ``(1/k) Σ_{i=1..k} ψ((n − i + 1)/2) − log(n/2)`` from the log-det [Muirhead 1982, section 3.2], which is
            exact without a ridge, and use unbiased ``(tr Σ)² ∝ (n + 1) (tr S)² − 2 tr(S²)`` and
            ``tr(Σ²) ∝ n tr(S²) − (tr S)²`` in the participation ratio [Srivastava 2005]. The top share has no such
            formula and stays as it is.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    The statistics are those of ``log_det``, ``participation`` and ``top_share`` that have a hinge.

    Raises:
        ValueError: if no hinge is set, only ``top_share`` with a correction, or an argument is out of range.
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
        bias_correction: bool = False,
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
        self.bias_correction = _checks.boolean("bias_correction", bias_correction)
        if bias_correction and log_det is None and participation is None:
            raise ValueError("bias_correction must be False for a ceiling alone: it has no unbiased estimate")
        self._warned = False
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
            x: samples, at least two over all ranks, three for ``bias_correction``.
            ranks: whose samples form the batch.
            projection: ``R``, ``(D, k)`` with orthonormal columns; by default from the schedule.

        Raises:
            ValueError: if ``bias_correction`` is given a projection with ``k ≥ N``. Over several ranks, where ``N`` is
                known only on the device, the result is NaN.
        """
        n, dim = _checks.samples("x", x, minimum=self._minimum(ranks)).shape[-2:]
        if projection is not None:
            _checks.columns("projection", projection, x)
        k = projection.shape[-1] if projection is not None else min(self.proj_dim or dim, dim)
        limited = projection is None and n <= k  # this rank alone has fewer than k degrees of freedom
        if self.bias_correction and projection is not None and n <= k and not ranks.shared:
            raise ValueError(f"x must have N > {k} samples for bias_correction with this projection, got {n}")
        self._warn_if_biased(n * ranks.size, k)
        if projection is None:
            projection = self.schedule(dim, k, dtype=x.dtype, device=x.device)

        def finish(sums: list[Tensor]) -> Measured:
            rank = (sums[0] - 1).clamp_max(k) if limited else None
            degrees = sums[0] - 1 if self.bias_correction else None
            value, statistics = self.penalty(covariance(*sums, eps=self.eps), rank=rank, degrees=degrees)
            return Measured(value.to(x.dtype), statistics)

        return Reduction(moments(project(x, projection)), finish)

    def penalty(self, cov: Tensor, *, rank: Tensor | None = None, degrees: Tensor | None = None) -> Measured:
        """The hinges of a given covariance ``(..., k, k)``, or of its leading ``rank × rank`` block.

        The leading block is the covariance under the first columns of ``R``. If ranks share the batch, the scalar
        tensor ``rank`` is known only on the device, so the block is selected by a mask instead of a slice.
        ``bias_correction`` needs the ``degrees`` of freedom, ``N − 1``.

        Raises:
            ValueError: if ``degrees`` is missing with ``bias_correction``, or given without.
        """
        if (degrees is not None) != self.bias_correction:
            raise ValueError(f"degrees must be N - 1 with bias_correction and None without, got {degrees}")
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
            if degrees is not None:
                statistics["log_det"] = statistics["log_det"] - log_det_bias(degrees, size, cov.shape[-1])
            hinges.append(torch.relu(self.log_det - statistics["log_det"]))
        if self.participation is not None:
            if degrees is None:
                ratio = participation_ratio(cov)
            else:
                ratio = unbiased_participation_ratio(cov, size, degrees, eps=self.eps)
            statistics["participation"] = ratio / size
            hinges.append(torch.relu(self.participation - statistics["participation"]))
        if self.top_share is not None:
            statistics["top_share"] = top_eigenvalue(cov) / cov.diagonal(dim1=-2, dim2=-1).sum(-1)
            hinges.append(torch.relu(statistics["top_share"] - self.top_share))
        value = torch.stack(hinges).square().sum(0).mean()
        return Measured(value, {name: x.mean() for name, x in statistics.items()})

    def _minimum(self, ranks: Ranks) -> int:
        """The fewest samples on this rank."""
        return 1 if ranks.shared else 3 if self.bias_correction else 2

    def _warn_if_biased(self, n: int, k: int) -> None:
        """Warn once; a compiled graph cannot."""
        if torch.compiler.is_compiling() or self._warned or n >= 2 * k:
            return
        if self.bias_correction and self.top_share is None:
            return
        self._warned = True
        warnings.warn(
            f"the spectral floors of a small batch are biased: {type(self).__name__} got N = {n} samples for k = {k} "
            "dimensions, N < 2k, so its levels mean something else at another batch size; use more samples, a smaller "
            "proj_dim, or bias_correction",
            stacklevel=2,
        )

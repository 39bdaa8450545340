"""The three hinges of `SpectralFloors`, each by itself."""

from __future__ import annotations

from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor
from typing_extensions import Unpack

from symplectic_jepa import _checks
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import Group, Measured, Reduction
from symplectic_jepa.regularizers.covariance import scatter, shifted
from symplectic_jepa.regularizers.finite_sample import unbiased_squares
from symplectic_jepa.regularizers.pairs import centred, few_rows, pair_sum, squared_products
from symplectic_jepa.regularizers.spectral_floors import PROJ_DIM, SpectralFloors


class _Settings(TypedDict, total=False):
    """Keyword arguments that the single-hinge classes pass to `SpectralFloors`."""

    eps: float
    refresh_every: int
    seed: int
    sync: bool
    process_group: Group


class _OneHinge(SpectralFloors):
    _own: ClassVar[tuple[str, ...]]  # arguments of the constructor beside the settings

    def config(self) -> dict[str, Any]:
        """See `Pretrained.config`."""
        return {name: getattr(self, name) for name in (*self._own, *_Settings.__annotations__)}


class ProjectedLogDetFloor(_OneHinge):
    r"""``relu(ℓ_min − (1/k) log det C)²`` of the projected covariance [paper, eq. 36].

    Args:
        floor: floor ``ℓ_min``.
        proj_dim: upper limit of ``k``.
        bias_correction: estimate the log-det of the distribution; see `SpectralFloors`.
        settings: ``eps``, ``refresh_every``, ``seed``, ``sync`` and ``process_group``; see `SpectralFloors`.

    Raises:
        ValueError: if an argument is out of range.
    """

    _own = ("floor", "proj_dim", "bias_correction")

    def __init__(
        self,
        floor: float = -1.5,
        *,
        proj_dim: int = PROJ_DIM,
        bias_correction: bool = False,
        **settings: Unpack[_Settings],
    ) -> None:
        level = _checks.finite("floor", floor)
        super().__init__(log_det=level, proj_dim=proj_dim, bias_correction=bias_correction, **settings)

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

    _own = ("ceiling", "proj_dim")

    def __init__(self, ceiling: float = 0.35, *, proj_dim: int = PROJ_DIM, **settings: Unpack[_Settings]) -> None:
        super().__init__(top_share=_checks.fraction("ceiling", ceiling), proj_dim=proj_dim, **settings)

    @property
    def ceiling(self) -> float | None:
        """``a_max``."""
        return self.top_share


class ParticipationRatioFloor(_OneHinge):
    r"""``relu(r_min − PR/k)²``, of the projected or the full covariance [paper, eqs. 37 and 38].

    With ``proj_dim=None`` it uses the full covariance, ``k = min(D, N − 1)`` (with ``bias_correction``, which does not
    depend on the batch, ``k = D``) and no ridge, and computes ``tr(Σ)`` and
    ``tr(Σ²)`` from the smaller of the ``D × D`` covariance and the ``N × N`` Gram matrix, which share their non-zero
    eigenvalues. Over several ranks this takes a small collective for the row counts before the objective's, and with
    ``N < D`` another one for the samples; a compiled graph cannot wait for the counts and uses the covariance.

    Args:
        floor: floor ``r_min``, between 0 and 1.
        proj_dim: upper limit of ``k``, or ``None`` for the full covariance.
        bias_correction: estimate the ratio of the distribution; see `SpectralFloors`.
        settings: ``eps``, ``refresh_every``, ``seed``, ``sync`` and ``process_group``; see `SpectralFloors`.

    Raises:
        ValueError: if an argument is out of range.
    """

    _own = ("floor", "proj_dim", "bias_correction")

    def __init__(
        self,
        floor: float = 0.12,
        *,
        proj_dim: int | None = PROJ_DIM,
        bias_correction: bool = False,
        **settings: Unpack[_Settings],
    ) -> None:
        level, limit = _checks.fraction("floor", floor), 1 if proj_dim is None else proj_dim
        super().__init__(participation=level, proj_dim=limit, bias_correction=bias_correction, **settings)
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
        n, dim = _checks.samples("x", x, minimum=self._minimum(ranks)).shape[-2:]
        self._warn_if_biased(n * ranks.size, dim)
        total = count(n, x)
        if not ranks.shared:
            local = x - x.mean(-2, keepdim=True)
            gram = local @ local.mT if n < dim else local.mT @ local
            return Reduction([], lambda _: self._hinge(gram, total, dim))
        counts = few_rows(x, ranks)
        if counts is not None:
            return self._of_pairs(x, ranks.gather(x, counts))
        samples = shifted(x)

        def finish(sums: list[Tensor]) -> Measured:
            return self._hinge(scatter(*sums).to(x.dtype), sums[0], dim)

        return Reduction([total, samples.first(ranks), samples.products(samples, ranks)], finish)

    def _of_pairs(self, x: Tensor, everyone: Tensor) -> Reduction:
        """From ``tr(C) ∝ Σ_n ‖x_n‖²`` and ``tr(C²) ∝ Σ_nm ⟨x_n, x_m⟩²``, without a ``D × D`` matrix."""
        own, others = centred(x, everyone)
        pairs = pair_sum(own, others, squared_products)
        trace = own.square().sum((-2, -1)).to(pairs.dtype)

        return Reduction(
            [count(x.shape[-2], x), trace, pairs],
            lambda sums: self._ratio(sums[1].to(x.dtype), sums[2].to(x.dtype), sums[0], x.shape[-1]),
        )

    def _hinge(self, matrix: Tensor, total: Tensor, dim: int) -> Measured:
        """The hinge of the scatter matrix of ``N`` samples, or of their Gram matrix; the scale does not matter."""
        trace, square = matrix.diagonal(dim1=-2, dim2=-1).sum(-1), matrix.square().sum((-2, -1))
        return self._ratio(trace, square, total, dim)

    def _ratio(self, trace: Tensor, square: Tensor, total: Tensor, dim: int) -> Measured:
        """The hinge from ``tr(C)`` and ``tr(C²)``; the ratio is 0 for a single point."""
        degrees = (total - 1).to(trace.dtype)
        first, k = trace.square(), degrees.clamp_max(dim)
        if self.bias_correction:
            first, square = unbiased_squares(trace, square, degrees)
            k = torch.full_like(k, dim)
        ratio = first / square.clamp_min(torch.finfo(square.dtype).tiny) / k
        assert self.participation is not None  # its only hinge
        return Measured(torch.relu(self.participation - ratio).square().mean(), {"participation": ratio.mean()})

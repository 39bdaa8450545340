"""VICReg's variance and covariance terms."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction
from symplectic_jepa.regularizers.covariance import scatter, shifted
from symplectic_jepa.regularizers.pairs import centred, few_rows, pair_sum, squared_products


class VICReg(BatchRegularizer):
    r"""``μ mean_i relu(γ − sqrt(C_ii + ε)) + ν (1/D) Σ_{i≠j} C_ij²``, ``C`` the unbiased covariance [arXiv:2105.04906].

    The objective's prediction loss replaces the invariance term, 25 times the mean squared distance of two views.
    VICReg sums over its two views; this averages over leading dimensions. With a mean squared distance of weight 1 as
    prediction loss, ``Penalty(VICReg(), weight=2/25, views="separate")`` gives the original ratios. In
    `LeJEPAObjective`, whose two-view loss is an eighth of that distance, use an eighth of that weight.

    With ``N < D`` the covariance term is computed from pairs of samples, without a ``D × D`` matrix. Over several ranks
    this takes a small collective for the row counts before the objective's, and with ``N < D`` another one for the
    samples; a compiled graph cannot wait for the counts and uses the matrix.

    Args:
        variance: weight ``μ`` of the variance hinge.
        covariance: weight ``ν`` of the covariance term.
        floor: standard deviation ``γ`` below which a coordinate is penalised.
        eps: offset ``ε``, which keeps the gradient of the root finite at zero variance.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    Raises:
        ValueError: if a weight is negative, or ``floor`` or ``eps`` not positive.
    """

    def __init__(
        self,
        *,
        variance: float = 25.0,
        covariance: float = 1.0,
        floor: float = 1.0,
        eps: float = 1e-4,
        sync: bool = True,
        process_group: Group = None,
    ) -> None:
        super().__init__(sync=sync, process_group=process_group)
        self.variance = _checks.finite("variance", variance, minimum=0.0)
        self.covariance = _checks.finite("covariance", covariance, minimum=0.0)
        self.floor = _checks.finite("floor", floor, minimum=0.0, exclusive=True)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)

    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Moments up to the second, or sums over pairs if there are fewer samples than coordinates."""
        dim = _checks.samples("x", x, minimum=1 if ranks.shared else 2).shape[-1]
        counts = few_rows(x, ranks)
        if counts is not None:
            return self._of_pairs(x, ranks.gather(x, counts))
        samples = shifted(x)

        def finish(sums: list[Tensor]) -> Measured:
            cov = scatter(*sums).to(x.dtype) / (sums[0] - 1)
            redundancy = off_diagonal(cov).square().sum((-2, -1)) / dim
            return self._value(cov.diagonal(dim1=-2, dim2=-1), redundancy, x.dtype)

        return Reduction([count(x.shape[-2], x), samples.first(ranks), samples.products(samples, ranks)], finish)

    def _of_pairs(self, x: Tensor, everyone: Tensor) -> Reduction:
        """From ``Σ_ij C_ij² ∝ Σ_nm ⟨x_n, x_m⟩²``, without a ``D × D`` matrix."""
        own, others = centred(x, everyone)
        pairs = pair_sum(own, others, squared_products)

        def finish(sums: list[Tensor]) -> Measured:
            total, square, pairs = sums
            var = square / (total - 1)
            redundancy = (pairs / (total - 1).square() - var.square().sum(-1)) / x.shape[-1]
            return self._value(var, redundancy, x.dtype)

        square = own.square().sum(-2).to(pairs.dtype)
        return Reduction([count(x.shape[-2], x), square, pairs], finish)

    def _value(self, var: Tensor, redundancy: Tensor, dtype: torch.dtype) -> Measured:
        std, redundancy = (var.clamp_min(0) + self.eps).sqrt(), redundancy.mean()
        value = self.variance * torch.relu(self.floor - std).mean() + self.covariance * redundancy
        return Measured(value.to(dtype), {"std": std.mean(), "covariance": redundancy})


def off_diagonal(matrix: Tensor) -> Tensor:
    """``(..., D, D)`` with zeros on the diagonal."""
    return matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))

"""VICReg's variance and covariance terms."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import wide_dtype
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction


class VICReg(BatchRegularizer):
    r"""``μ mean_i relu(γ − sqrt(C_ii + ε)) + ν (1/D) Σ_{i≠j} C_ij²``, ``C`` the unbiased covariance [arXiv:2105.04906].

    The objective's prediction loss replaces the invariance term, 25 times the mean squared distance of two views.
    VICReg sums over its two views; this averages over leading dimensions. With a mean squared distance of weight 1 as
    prediction loss, ``Penalty(VICReg(), weight=2/25, views="separate")`` gives the original ratios. In
    `LeJEPAObjective`, whose two-view loss is an eighth of that distance, use an eighth of that weight.

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
        """Moments up to the second; see `BatchRegularizer`."""
        n, dim = _checks.samples("x", x, minimum=1 if ranks.shared else 2).shape[-2:]
        local, mean = centred(x)
        product = torch.addcmul((local.mT @ local).to(mean.dtype), mean.mT, mean, value=n)

        def finish(sums: list[Tensor]) -> Measured:
            total, first, second = sums
            cov = (second - first[..., :, None] * first[..., None, :] / total) / (total - 1)
            std = (cov.diagonal(dim1=-2, dim2=-1).clamp_min(0) + self.eps).sqrt()
            hinge = torch.relu(self.floor - std).mean()
            redundancy = off_diagonal(cov).square().sum((-2, -1)).mean() / dim
            value = (self.variance * hinge + self.covariance * redundancy).to(x.dtype)
            return Measured(value, {"std": std.mean(), "covariance": redundancy})

        return Reduction([count(n, x), n * mean.squeeze(-2), product], finish)


def centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Samples minus their mean on this rank, and that mean ``(..., 1, D)``, in float64 where available.

    ``Σ x xᵀ = Σ (x − m)(x − m)ᵀ + N m mᵀ``: the ``N D²`` multiplications run in the dtype of the centred samples,
    and only ``D²`` numbers are added in float64, so that a large mean does not cost precision. Both terms must use the
    same ``m``.
    """
    mean = x.mean(-2, keepdim=True)
    return x - mean, mean.to(wide_dtype(x))


def off_diagonal(matrix: Tensor) -> Tensor:
    """``(..., D, D)`` with zeros on the diagonal."""
    return matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))

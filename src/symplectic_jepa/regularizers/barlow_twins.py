"""Barlow Twins: match the cross-correlation matrix of two views to the identity."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction
from symplectic_jepa.regularizers.covariance import Shifted, scatter, shifted
from symplectic_jepa.regularizers.vicreg import off_diagonal


class BarlowTwins(BatchRegularizer):
    r"""``Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij²`` [arXiv:2103.03230].

    ``C_ij = cov(a_i, b_j) / sqrt((var(a_i) + ε)(var(b_j) + ε))`` between coordinates of the two views, over the batch,
    biased. The diagonal is itself an invariance term. As a `Penalty` it needs ``views="separate"``.

    Args:
        redundancy: weight ``λ`` of the off-diagonal term.
        eps: variance offset ``ε``, which keeps the correlation of a constant coordinate finite.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    Raises:
        ValueError: if ``redundancy`` is negative or ``eps`` not positive.
    """

    def __init__(
        self, *, redundancy: float = 5e-3, eps: float = 1e-5, sync: bool = True, process_group: Group = None
    ) -> None:
        super().__init__(sync=sync, process_group=process_group)
        self.redundancy = _checks.finite("redundancy", redundancy, minimum=0.0)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)

    def forward(self, x: Tensor, other: Tensor | None = None, **given: Tensor | None) -> Tensor:
        """Map two views to a scalar, averaged over leading dimensions.

        Args:
            x: the first view, ``(..., N, D)``, or both, ``(2, ..., N, D)``.
            other: the second view, ``(..., N, D)``.
            given: see `BatchRegularizer`; unused.

        Raises:
            TypeError: if a view is not a floating-point tensor.
            ValueError: unless there are two views of the same shape, on one device.
        """
        if other is not None:
            if _checks.floating("x", x).shape != _checks.floating("other", other).shape:
                raise ValueError(f"other must have the shape of x, {tuple(x.shape)}, got {tuple(other.shape)}")
            _checks.same_device(x=x, other=other)
            dtype = torch.promote_types(x.dtype, torch.float32)
            x = torch.stack((x.to(dtype), other.to(dtype)))
        return super().forward(x, **given)

    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Moments up to the second of views ``(2, ..., N, D)``; see `BatchRegularizer`."""
        if x.ndim < 3 or x.shape[0] != 2:
            raise ValueError(
                f"x must hold exactly two views, (2, ..., N, D), got {tuple(x.shape)}; a Penalty needs "
                "views='separate' and two views"
            )
        n = _checks.samples("x", x, minimum=1 if ranks.shared else 2).shape[-2]
        samples = shifted(x)
        first, second = (Shifted(*parts) for parts in zip(*samples, strict=True))  # the views

        def finish(sums: list[Tensor]) -> Measured:
            total, first, square, cross = sums
            std = ((square / total - (first / total).square()).clamp_min(0) + self.eps).sqrt().to(x.dtype)
            cov = (scatter(total, first[0], cross, first[1]) / total).to(x.dtype)
            correlation = cov / (std[0][..., :, None] * std[1][..., None, :])
            invariance = (1 - correlation.diagonal(dim1=-2, dim2=-1)).square().sum(-1).mean()
            redundancy = off_diagonal(correlation).square().sum((-2, -1)).mean()
            value = invariance + self.redundancy * redundancy
            return Measured(value, {"invariance": invariance, "redundancy": redundancy})

        return Reduction(
            [count(n, x), samples.first(ranks), samples.squares(ranks), first.products(second, ranks)], finish
        )

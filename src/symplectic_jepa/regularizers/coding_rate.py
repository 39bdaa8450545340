"""The coding rate: the nats needed to encode the features of a batch up to a given distortion."""

from __future__ import annotations

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._precision import wide_dtype
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction
from symplectic_jepa.regularizers.covariance import log_det_per_dim


class CodingRate(BatchRegularizer):
    r"""``−R(Z)``, ``R = ½ log det(I + D/(N ε²) ZᵀZ)``, to be minimised [MCR², arXiv:2006.08558; arXiv:2502.10385].

    ``R`` is MCR²'s expansion term; the compression term, over views of one image, is the objective's prediction loss.
    ``R`` grows without bound with the scale of ``Z``: normalise the features, or add an `EnergyBudget`.

    Args:
        eps: distortion ``ε`` up to which features are encoded.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    On one rank the smaller of ``ZᵀZ`` and ``ZZᵀ`` is used, over several ranks ``ZᵀZ``; in float64, because in float32
    the ``I`` is lost next to the one large eigenvalue of collapsed features.

    Raises:
        ValueError: if ``eps`` is not positive.
    """

    def __init__(self, *, eps: float = 0.5, sync: bool = True, process_group: Group = None) -> None:
        super().__init__(sync=sync, process_group=process_group)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)

    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Sums of ``N`` and ``z zᵀ``; see `BatchRegularizer`."""
        n, dim = _checks.samples("x", x).shape[-2:]
        z = x.to(wide_dtype(x))
        smaller = n < dim and not ranks.shared
        total, product = count(n, x), z @ z.mT if smaller else z.mT @ z

        def finish(sums: list[Tensor]) -> Measured:
            total, product = sums
            size = product.shape[-1]
            eye = torch.eye(size, dtype=product.dtype, device=product.device)
            rate = 0.5 * size * log_det_per_dim(eye + product * (dim / self.eps**2 / total))
            return Measured(-rate.mean().to(x.dtype), {"rate": rate.mean()})

        return Reduction([total, product], finish)

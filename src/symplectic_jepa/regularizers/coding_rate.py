"""The coding rate: the nats needed to encode the features of a batch up to a given distortion."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from symplectic_jepa import _checks
from symplectic_jepa._precision import wide_dtype
from symplectic_jepa.distributed import Ranks, count
from symplectic_jepa.regularizers._base import BatchRegularizer, Group, Measured, Reduction
from symplectic_jepa.regularizers.covariance import log_det_per_dim
from symplectic_jepa.regularizers.pairs import few_rows, with_gradient


class CodingRate(BatchRegularizer):
    r"""``−R(Z)``, ``R = ½ log det(I + D/(N ε²) ZᵀZ)``, to be minimised [MCR², arXiv:2006.08558; arXiv:2502.10385].

    ``R`` is MCR²'s expansion term; the compression term, over views of one image, is the objective's prediction loss.
    ``R`` grows without bound with the scale of ``Z``: normalise the features, or add an `EnergyBudget`.

    Args:
        eps: distortion ``ε`` up to which features are encoded.
        sync: see `BatchRegularizer`.
        process_group: see `BatchRegularizer`.

    The smaller of ``ZᵀZ`` and ``ZZᵀ`` is used; in float64, because in float32 the ``I`` is lost next to the one large
    eigenvalue of collapsed features. Over several ranks this takes a small collective for the row counts before the
    objective's, and with ``N < D`` two more, for the rows and their products; a compiled graph cannot wait for the
    counts and uses ``ZᵀZ``.

    Raises:
        ValueError: if ``eps`` is not positive.
    """

    def __init__(self, *, eps: float = 0.5, sync: bool = True, process_group: Group = None) -> None:
        super().__init__(sync=sync, process_group=process_group)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)

    def reduction(self, x: Tensor, ranks: Ranks) -> Reduction:
        """Sums of ``N`` and ``z zᵀ``; see `BatchRegularizer`."""
        n, dim = _checks.samples("x", x).shape[-2:]
        counts = few_rows(x, ranks)
        if counts is not None and ranks.shared:
            return self._of_pairs(x, counts, ranks)
        z = x.to(wide_dtype(x))
        product = z.mT @ z if counts is None else z @ z.mT

        def finish(sums: list[Tensor]) -> Measured:
            total, product = sums
            rate = 0.5 * product.shape[-1] * log_det_per_dim(self._plus_identity(product, dim / total))
            return Measured(-rate.mean().to(x.dtype), {"rate": rate.mean()})

        return Reduction([count(n, x), product], finish)

    def _of_pairs(self, x: Tensor, counts: list[int], ranks: Ranks) -> Reduction:
        """From ``ZZᵀ`` of all ranks, of which each multiplies its own rows; every rank has the whole value then.

        The gradient of ``R`` at this rank's rows is ``D/(N ε²) (I + D/(N ε²) ZZᵀ)⁻¹ Z``. A sum over ranks also sums
        gradients, so each rank gives the gradient of its rows and its share of the value.
        """
        z, everyone = (rows.to(wide_dtype(x)).reshape(-1, *rows.shape[-2:]) for rows in (x, ranks.gather(x, counts)))
        with torch.no_grad():
            scale = x.shape[-1] / sum(counts)
            matrix = self._plus_identity(ranks.gather(z @ everyone.mT, counts), scale)
            factor = torch.linalg.cholesky_ex(matrix).L
            first = sum(counts[: ranks.rank])
            own = torch.eye(sum(counts), dtype=z.dtype, device=z.device)[:, first : first + counts[ranks.rank]]
            own = functional.pad(own, (0, z.shape[-2] - counts[ranks.rank]))  # of an empty rank, whose row is none
            gradient = scale / self.eps**2 * torch.cholesky_solve(own.expand(len(z), -1, -1), factor).mT @ everyone
            share = counts[ranks.rank] / sum(counts)
            value = share * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        rates = with_gradient(z, value, gradient)
        return Reduction([rates], lambda sums: Measured(-sums[0].mean().to(x.dtype), {"rate": sums[0].mean()}))

    def _plus_identity(self, product: Tensor, scale: Tensor | float) -> Tensor:
        """``I + scale/ε² · product``."""
        eye = torch.eye(product.shape[-1], dtype=product.dtype, device=product.device)
        return eye + product * (scale / self.eps**2)

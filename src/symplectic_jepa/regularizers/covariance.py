"""Covariances and the spectral statistics behind the floors; no eigendecomposition, no host synchronisation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from symplectic_jepa import _checks
from symplectic_jepa._derivatives import once_differentiable
from symplectic_jepa._precision import wide_dtype
from symplectic_jepa.distributed import Ranks, count


def moments(x: Tensor) -> list[Tensor]:
    """``N``, ``Σ x`` and ``Σ x xᵀ`` of samples ``(..., N, k)``, to be summed over ranks; in float64 where available.

    In float64, rounding affects neither the subtraction of the mean in `covariance` nor a ridge of 1e-4.
    """
    x = x.to(wide_dtype(x))
    return [count(x.shape[-2], x), x.sum(-2), _gram(x)]


class Shifted(NamedTuple):
    """Samples minus a constant ``m`` near their mean, so that products in float32 keep their digits.

    Ranks have different ``m``. So over several ranks it is added to the sums again, in float64; one rank alone leaves
    it out, because no covariance sees it. There is one ``total`` for all sums: its gradients are as large as ``m``,
    and cancel in float64.
    """

    rows: Tensor  # (..., N, D), in the dtype of the samples
    shift: Tensor  # (..., D), in float64 where available
    total: Tensor  # (..., D), the sum of the rows, which is small but not 0, in float64 where available

    def first(self, ranks: Ranks) -> Tensor:
        """``Σ x``, ``(..., D)``."""
        return self.total + self.rows.shape[-2] * self.shift if ranks.shared else self.total

    def squares(self, ranks: Ranks) -> Tensor:
        """``Σ x²``, ``(..., D)``."""
        local = self.rows.square().sum(-2).to(self.shift.dtype)
        return local + self.shift * (self.total + self.first(ranks)) if ranks.shared else local

    def products(self, other: Shifted, ranks: Ranks) -> Tensor:
        """``Σ x yᵀ``, ``(..., D, D)``: over several ranks, only ``D²`` numbers in float64."""
        local = _gram(self.rows) if other is self else self.rows.mT @ other.rows
        if not ranks.shared:
            return local
        left = torch.stack((self.total, self.shift), -1)
        return local.to(self.shift.dtype) + left @ torch.stack((other.shift, other.first(ranks)), -2)


def shifted(x: Tensor) -> Shifted:
    """Samples ``(..., N, D)`` minus the mean of this rank; to autograd a constant, rounded to their dtype."""
    shift = x.detach().mean(-2, keepdim=True)
    rows, wide = x - shift, wide_dtype(x)
    return Shifted(rows, shift.squeeze(-2).to(wide), rows.sum(-2).to(wide))


def scatter(total: Tensor, first: Tensor, second: Tensor, other: Tensor | None = None) -> Tensor:
    """``Σ x yᵀ − Σ x Σ yᵀ / N`` from ``N``, ``Σ x``, ``Σ x yᵀ`` and ``Σ y`` (by default ``Σ x``)."""
    means = (first if other is None else other) / total
    return second - first.to(second.dtype)[..., :, None] * means.to(second.dtype)[..., None, :]


def covariance(total: Tensor, first: Tensor, second: Tensor, *, eps: float = 0.0) -> Tensor:
    """``(Σ x xᵀ − Σ x Σ xᵀ / N) / (N − 1) + εI`` from `moments`, ``(..., k, k)``."""
    ridge = eps * torch.eye(second.shape[-1], dtype=second.dtype, device=second.device)
    return scatter(total, first, second) / (total - 1) + ridge


def projected_covariance(x: Tensor, projection: Tensor, *, eps: float = 1e-4) -> Tensor:
    r"""``C = YᵀY / (N − 1) + εI`` with ``Y = (X − mean) R``, of the local batch [paper, eq. 34].

    Args:
        x: samples ``(..., N, D)``, ``N ≥ 2``.
        projection: ``R``, ``(D, k)`` with orthonormal columns.
        eps: ridge ``ε``.

    Returns:
        ``(..., k, k)``, in float64 on devices that have it.

    Raises:
        TypeError: if ``x`` or ``projection`` is not a floating-point tensor.
        ValueError: if ``projection`` does not have ``D`` rows, ``N < 2``, or ``eps`` is negative.
    """
    _checks.samples("x", x, minimum=2)
    _checks.finite("eps", eps, minimum=0.0)
    return covariance(*moments(project(x, projection)), eps=eps)


def project(x: Tensor, projection: Tensor, *, name: str = "projection") -> Tensor:
    """``X R``: ``(..., N, D)`` to ``(..., N, k)``, in float64 where available.

    The ``N D k`` multiplications run in the dtype of ``x`` minus its mean, so that a large mean costs no digits.

    Raises:
        TypeError: if ``projection``, called ``name`` in errors, is not a floating-point tensor.
        ValueError: if it does not have ``D`` rows, or is on another device.
    """
    columns = _checks.columns(name, projection, x)
    rows, shift, _ = shifted(x)
    return (rows @ columns).to(shift.dtype) + (shift @ columns.to(shift.dtype))[..., None, :]


def log_det_per_dim(cov: Tensor) -> Tensor:
    """``(1/k) log det C`` of positive definite ``(..., k, k)``, by Cholesky [paper, eq. 35]; NaN for any other.

    Raises:
        TypeError: if ``cov`` is not a floating-point tensor.
        ValueError: if it is not ``(..., k, k)``.
    """
    _checks.matrices("cov", cov)
    with torch.no_grad():
        # cholesky_ex, unlike cholesky, does not wait for the device to report failure.
        factor = torch.linalg.cholesky_ex(cov).L
    log_det: Tensor = _LogDet.apply(cov, factor)
    return log_det / cov.shape[-1]


def _gram(x: Tensor) -> Tensor:
    """``xᵀ x`` with one product in the backward pass; autograd would use one for each of the two factors."""
    product: Tensor = _Gram.apply(x)
    return product


class _Gram(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.mT @ x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        product: Tensor = x @ (grad + grad.mT)
        return product


class _LogDet(torch.autograd.Function):
    """``log det C`` with gradient ``C⁻¹`` from the same factor; autograd would differentiate the factorisation."""

    generate_vmap_rule = True

    @staticmethod
    def forward(cov: Tensor, factor: Tensor) -> Tensor:
        log_det: Tensor = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_det

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factor, _ = ctx.saved_tensors
        eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        return grad[..., None, None] * (inverse.mT @ inverse), None


def participation_ratio(cov: Tensor) -> Tensor:
    """``PR = tr(C)² / tr(C²)`` of symmetric ``(..., k, k)``, between 1 and ``k`` [paper, eq. 37].

    Raises:
        TypeError: if ``cov`` is not a floating-point tensor.
        ValueError: if it is not ``(..., k, k)``.
    """
    trace = _checks.matrices("cov", cov).diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace.square() / cov.square().sum((-2, -1))


def top_eigenvalue(cov: Tensor, *, squarings: int = 17) -> Tensor:
    r"""``λ_max`` of positive semi-definite ``(..., k, k)``, using only matrix products [paper, appendix F.8].

    With ``W = Cⁿ / tr(Cⁿ)``, ``n = 2^squarings``, the value ``⟨C, W⟩`` is a mean of the eigenvalues with weights
    ``∝ λ_iⁿ``. It is below ``λ_max`` by at most ``(k − 1) λ_max / (e n)``, or ``0.3 λ_max / n`` if two eigenvalues are
    nearly equal. In the limit ``W`` is the projector on the top eigenspace, hence the gradient; ``W`` itself is not
    differentiated.

    Raises:
        TypeError: if ``cov`` is not a floating-point tensor.
        ValueError: if it is not ``(..., k, k)``, or ``squarings`` is not between 1 and 64.
    """
    _checks.matrices("cov", cov)
    _checks.positive_int("squarings", squarings, maximum=64)
    with torch.no_grad():
        # Float32 is enough except for the last squaring, which squares rounding along eigenvectors that W must exclude.
        weight = _unit_trace(cov).to(torch.float32)
        for i in range(squarings - 1):
            weight = weight @ weight
            if i % 3 == 2:  # three squarings shrink a unit trace by at most k⁷, a unit norm by less
                weight = weight / torch.linalg.vector_norm(weight, dim=(-2, -1), keepdim=True)
        weight = _unit_trace(weight.to(cov.dtype))
        weight = _unit_trace(weight @ weight)
    return (cov * weight).sum((-2, -1))


def _unit_trace(matrix: Tensor) -> Tensor:
    return matrix / matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]

"""A mechanical energy whose mass depends on the position."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians._autograd import check_energy
from symplectic_jepa.hamiltonians._base import Hamiltonian


class MassMatrixHamiltonian(Hamiltonian):
    r"""``H(q, p) = ½ pᵀM⁻¹(q)p + V(q)`` with ``M⁻¹(q) = L(q)L(q)ᵀ + εI`` [Symplectic ODE-Net, arXiv:1909.12077].

    The energy of a mechanical system in generalized coordinates, such as an arm with two joints, whose inertia depends
    on its pose. ``L`` and ``V`` may be networks or formulas; ``M⁻¹`` is symmetric and its eigenvalues are at least
    ``ε``, whatever ``L`` is. Velocities are ``q̇ = M⁻¹(q)p``. The gradient comes from autograd (see
    `Hamiltonian.gradient`). The energy is not separable: use `implicit_midpoint`. For a constant diagonal mass,
    ``SeparableHamiltonian(dim, learn_mass=True)`` is faster. Inputs enter through a `ControlledHamiltonian`.

    From positions and momenta everything but a constant in ``V`` can be learned. From positions and velocities only,
    ``(M⁻¹, V, B)`` and ``(M⁻¹/α, αV, αB)`` give the same motion for every ``α > 0``.

    Args:
        factor: ``L``, a module or callable from ``(..., d)`` to ``(..., d, k)``.
        potential: ``V``, a module or callable from ``(..., d)`` to ``(...)``. Each output of ``factor`` and
            ``potential`` may depend only on its own row; modules become submodules.
        floor: ``ε``, a lower bound of the eigenvalues of ``M⁻¹``.

    Raises:
        TypeError: if ``factor`` or ``potential`` is neither a module nor a function.
        ValueError: if ``floor`` is negative or not finite.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import HamiltonianPredictor, implicit_midpoint
        >>> factor = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4), nn.Unflatten(-1, (2, 2)))
        >>> arm = MassMatrixHamiltonian(factor, lambda q: (1 - q.cos()).sum(-1), floor=0.1)
        >>> HamiltonianPredictor(arm, integrator=implicit_midpoint)(torch.randn(8, 4)).shape
        torch.Size([8, 4])
        >>> bool((torch.linalg.eigvalsh(arm.inverse_mass(torch.randn(8, 2))) > 0.09).all())
        True
    """

    def __init__(
        self,
        factor: nn.Module | Callable[[Tensor], Tensor],
        potential: nn.Module | Callable[[Tensor], Tensor],
        *,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        self.factor = _checks.function("factor", factor)
        self.potential = _checks.function("potential", potential)
        self.floor = _checks.finite("floor", floor, minimum=0.0)

    def inverse_mass(self, q: Tensor) -> Tensor:
        """``M⁻¹(q)``: ``(..., d)`` to ``(..., d, d)``.

        Raises:
            TypeError: if ``q`` is not a floating-point tensor.
            ValueError: if ``factor`` does not return ``(..., d, k)``.
        """
        factor = self._factor(q)
        inverse: Tensor = factor @ factor.mT + self.floor * factor.new_ones(q.shape[-1]).diag()
        return inverse

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """``H(q, p)``: ``(..., d)`` twice to ``(...)``.

        Raises:
            TypeError: if a state is not floating-point.
            ValueError: if ``q`` and ``p`` differ in shape, or ``factor`` or ``potential`` returns another shape.
        """
        _checks.states(q, p)
        root = (p.unsqueeze(-2) @ self._factor(q)).squeeze(-2)  # Lᵀp, so that pᵀM⁻¹p = ‖Lᵀp‖² + ε‖p‖²
        kinetic = 0.5 * (root.square().sum(-1) + self.floor * p.square().sum(-1))
        return kinetic + check_energy("potential", self.potential(q), q=q)

    def _factor(self, q: Tensor) -> Tensor:
        factor: Tensor = self.factor(_checks.floating("q", q))
        if factor.ndim != q.ndim + 1 or factor.shape[:-1] != q.shape or not factor.shape[-1]:
            raise ValueError(
                f"factor must map (..., d) to (..., d, k): for q of shape {tuple(q.shape)} got {tuple(factor.shape)}"
            )
        return factor

"""A Hamiltonian with linear damping, for systems that lose energy."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import ExactBuffers, exact_scalar, wide_dtype
from symplectic_jepa.hamiltonians._base import AbstractSeparable
from symplectic_jepa.hamiltonians._wrapper import Wrapper


class DampedHamiltonian(Wrapper, ExactBuffers):
    r"""``q̇ = ∇T(p),  ṗ = −∇V(q) − γ ⊙ ∇T(p)`` with ``γ ≥ 0`` [McLachlan and Perlmutter (2001), J. Geom. Phys. 39, 276].

    The energy never grows: ``Ḣ = −Σᵢ γᵢ q̇ᵢ²``. With ``T(p) = ½ pᵀM⁻¹p`` and a diagonal mass ``M`` (the identity unless
    it is learned) the damping is linear, ``γ ⊙ ∇T(p) = Γp`` with the rates ``Γ = γ/M``, and every `Splitting` solves it
    exactly within its kicks. A step of size ``h`` then shrinks the volume of phase space by exactly ``exp(−h Σᵢ Γᵢ)``;
    if all rates are equal, ``JᵀΩJ = exp(−hΓ) Ω``. The splitting keeps its order and its cost, its energy error comes on
    top of the decay, and without damping it takes the same steps bit for bit. ``−h`` is still the exact inverse, but
    amplifies rounding errors by up to ``exp(hΓ)`` per step. `implicit_midpoint` refuses a damped system.

    A damped system can be controlled, `DampedHamiltonian` of a `ControlledHamiltonian` or the other way round.

    Args:
        hamiltonian: the system without this damping, separable.
        damping: ``γ``, a number or one per coordinate, ``(d,)``, in units of mass per time.
        learn: learn ``γ = softplus(θ)``, starting at ``damping``, to fit observed trajectories. It can lower a matching
            loss by growing, because strong damping freezes the positions.

    Raises:
        TypeError: if ``hamiltonian`` is not separable or overrides its kinetic energy, whose damping would not be
            linear; or ``damping`` is a tensor of integers.
        ValueError: if ``damping`` is negative, not finite, of another shape, or requires a gradient; or it is 0 and
            learned, because softplus is never 0.

    Examples:
        >>> import torch
        >>> from symplectic_jepa import HamiltonianPredictor, QuadraticHamiltonian
        >>> system = DampedHamiltonian(QuadraticHamiltonian(4), 0.3)
        >>> predictor = HamiltonianPredictor(system, dt=0.1, steps=10)
        >>> z = torch.randn(16, 8, dtype=torch.float64)
        >>> bool((predictor.energy(*predictor(z).chunk(2, -1)) < predictor.energy(*z.chunk(2, -1))).all())
        True
        >>> torch.allclose(predictor(predictor(z), direction=-1), z)
        True
    """

    fixed_damping: Tensor | None
    _exact = ("fixed_damping",)

    def __init__(self, hamiltonian: AbstractSeparable, damping: float | Tensor, *, learn: bool = False) -> None:
        super().__init__()
        if not isinstance(hamiltonian, AbstractSeparable):
            raise TypeError(f"hamiltonian must be an AbstractSeparable, got {type(hamiltonian).__name__}")
        _check_kinetic(hamiltonian)
        self.hamiltonian = hamiltonian
        gamma = _check_damping(damping, learn=_checks.boolean("learn", learn))
        self._start = damping if learn else None
        # softplus⁻¹(γ) = log(e^γ − 1), without overflow
        raw = gamma + torch.log(-torch.expm1(-gamma))
        self.raw_damping = nn.Parameter(raw.to(torch.get_default_dtype())) if learn else None
        self.register_buffer("fixed_damping", None if learn else gamma)

    @property
    def damping(self) -> Tensor:
        """``γ``: ``(d,)``, or ``(1,)`` if it is one number."""
        return self._damping(None)

    @property
    def learn(self) -> bool:
        """Whether the damping is learned."""
        return self.raw_damping is not None

    def config(self) -> dict[str, Any]:
        """See `Pretrained.config`; one fixed number is given as a number, a learned damping by its initial value."""
        fixed = self.fixed_damping
        single = fixed is not None and fixed.numel() == 1 and not fixed.is_meta
        damping = self._start if fixed is None else fixed.item() if single else fixed
        return {"hamiltonian": self.hamiltonian, "damping": damping, "learn": self.learn}

    def decay_rate(self, p: Tensor) -> Tensor:
        """``Γ = γ/M``, ``(d,)``, for momenta ``(..., d)``, in their dtype; plus the rates of the wrapped system.

        Raises:
            ValueError: if ``γ`` has another dimension than ``p``.
        """
        gamma, dim = self._damping(p.dtype), p.shape[-1]
        if gamma.shape[-1] not in (1, dim):
            raise ValueError(f"damping must be a number or have shape ({dim},), got shape {tuple(gamma.shape)}")
        rate = gamma * self.velocity(p.new_ones(dim))
        inner = self.hamiltonian.decay_rate(p)
        return rate if inner is None else rate + inner

    @property
    def takes_control(self) -> bool:
        """Whether the wrapped system takes a control."""
        return self.hamiltonian.takes_control

    def with_control(self, control: Tensor) -> AbstractSeparable:
        """This system under a fixed input ``u``, ``(..., m)``: the wrapped system under it, damped.

        Raises:
            TypeError: if the wrapped system takes no control, or ``control`` is not a floating-point tensor.
        """
        return _Driven(self, control)

    def _damping(self, dtype: torch.dtype | None) -> Tensor:
        if self.raw_damping is not None:
            return F.softplus(self.raw_damping.to(dtype=dtype))
        assert self.fixed_damping is not None
        return self.fixed_damping.to(dtype=dtype)


class _Driven(Wrapper):
    """A damped system with its input bound."""

    def __init__(self, system: DampedHamiltonian, control: Tensor) -> None:
        super().__init__()
        driven = system.hamiltonian.with_control(control)
        assert isinstance(driven, AbstractSeparable)
        self.system, self.hamiltonian = system, driven

    def decay_rate(self, p: Tensor) -> Tensor:
        """The rates of the damped system."""
        return self.system.decay_rate(p)


def _check_damping(damping: float | Tensor, *, learn: bool) -> Tensor:
    """``γ`` as ``(d,)`` or ``(1,)`` in float64."""
    if not isinstance(damping, Tensor):
        return exact_scalar(_checks.finite("damping", damping, minimum=0.0, exclusive=learn))
    if _checks.floating("damping", damping).ndim != 1 or not len(damping):
        raise ValueError(f"damping must be a number or have shape (d,), got shape {tuple(damping.shape)}")
    if damping.requires_grad:
        raise ValueError("damping must not require a gradient, got a tensor that does; learn=True makes it a parameter")
    if not damping.is_meta and not ((damping > 0 if learn else damping >= 0) & damping.isfinite()).all():
        raise ValueError(f"damping must be finite and {'> 0' if learn else '>= 0'}, got {damping.tolist()}")
    return damping.to(wide_dtype(damping), copy=True)


def _check_kinetic(hamiltonian: AbstractSeparable) -> None:
    """Raise unless the velocity is ``M⁻¹p`` with a diagonal ``M``, as that of every class of this library.

    A class that wraps another has the velocity of that one, which is checked in turn.
    """
    for part in hamiltonian.modules():
        for name in ("kinetic", "velocity") if isinstance(part, AbstractSeparable) else ():
            if not getattr(type(part), name).__module__.startswith("symplectic_jepa."):
                raise TypeError(
                    f"hamiltonian must have the kinetic energy ½‖p‖² or a learned mass, because only their damping is "
                    f"linear; got {type(part).__name__}, which overrides {name}"
                )

"""View-to-view maps on flat phase-space states."""

from __future__ import annotations

import inspect
import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa.hamiltonians import ControlledHamiltonian, Hamiltonian
from symplectic_jepa.integrators import Integrator, leapfrog
from symplectic_jepa.integrators._base import GRADIENTS, at_full_precision
from symplectic_jepa.pretrained import Pretrained
from symplectic_jepa.state import join_state, split_state


class Predictor(Pretrained, nn.Module):
    """A map ``ẑ = Φ_{±h}^S(z)``; subclasses implement ``forward(z, *, direction=1)`` [paper, eq. 28].

    Args:
        dt: step size ``h > 0``; the direction carries the sign.
        steps: number of steps ``S``.
        learn_dt: learn ``h = softplus(θ)``, starting at ``dt``. Not for a JEPA matching loss, which ``h → 0``
            minimises (`HamJEPAObjective` refuses it); for fitting observed trajectories.

    Raises:
        ValueError: if ``dt`` is not positive and finite, or ``steps < 1``.
    """

    def __init__(self, *, dt: float, steps: int, learn_dt: bool = False) -> None:
        super().__init__()
        self._dt = _checks.finite("dt", dt, minimum=0.0, exclusive=True)
        self.steps = _checks.positive_int("steps", steps)
        # softplus⁻¹(h) = log(eʰ − 1)
        self.raw_dt = nn.Parameter(torch.tensor(math.log(math.expm1(dt)))) if learn_dt else None

    @property
    def mixes_directions(self) -> bool:
        """Whether ``direction`` may be a tensor, some states forward in time and some in reverse in one call."""
        return False

    @property
    def dt(self) -> float | Tensor:
        """The step size: a float, or a scalar tensor when it is learned."""
        return self._dt if self.raw_dt is None else F.softplus(self.raw_dt)

    def forward(self, z: Tensor, *, direction: int | Tensor = 1) -> Tensor:
        """Predict the other view's state: ``(..., 2d)`` to ``(..., 2d)``."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward(z, *, direction)")

    def flow(self, q: Tensor, p: Tensor, *, direction: int | Tensor = 1) -> tuple[Tensor, Tensor]:
        """The same map on the two halves of the state apart: ``(..., d)`` twice to ``(..., d)`` twice.

        ``direction`` may be a tensor of 1 and −1, ``(..., 1)``, where `mixes_directions`.
        """
        return split_state(self(join_state(q, p), direction=direction))

    def _signed_dt(self, direction: int | Tensor, like: Tensor) -> float | Tensor:
        if isinstance(direction, Tensor) and self.mixes_directions:
            return direction.to(like.dtype) * self.dt
        if isinstance(direction, Tensor) or direction not in (1, -1):
            raise ValueError(f"direction must be 1 (forward time) or -1 (reverse time), got {direction!r}")
        return direction * self.dt

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"dt={self._dt:g}, steps={self.steps}, learn_dt={self.raw_dt is not None}"


class HamiltonianPredictor(Predictor):
    r"""``ẑ = Φ_{±h}^S(z)`` by a symplectic integrator of a Hamiltonian [paper, eq. 28 and 29].

    ``predictor(predictor(z), direction=-1)`` returns ``z`` to rounding (with `implicit_midpoint`, to its solver's
    error). The dynamics run in float32 or better under any autocast, float64 stays float64, whatever the integrator.

    Args:
        hamiltonian: the energy; the default integrator needs a separable one.
        dt: step size ``h > 0``.
        steps: number of steps ``S``.
        integrator: a function like `leapfrog`; see `Integrator` for one of your own.
        learn_dt: see `Predictor`.
        gradient: ``"stored"``, or ``"reversible"`` for memory that does not grow with ``steps``; see `Splitting`.

    Raises:
        TypeError: if ``hamiltonian`` is no `Hamiltonian`, or ``integrator`` cannot be called.
        ValueError: if ``dt`` is not positive and finite, ``steps < 1``, ``gradient`` is unknown, or it is
            ``"reversible"`` and the integrator has no such argument.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        *,
        dt: float = 0.05,
        steps: int = 2,
        integrator: Integrator = leapfrog,
        learn_dt: bool = False,
        gradient: str = "stored",
    ) -> None:
        super().__init__(dt=dt, steps=steps, learn_dt=learn_dt)
        if not isinstance(hamiltonian, Hamiltonian):
            raise TypeError(f"hamiltonian must be a Hamiltonian, got {type(hamiltonian).__name__}")
        if not callable(integrator):
            raise TypeError(f"integrator must be a function like leapfrog, got {integrator!r}")
        self.hamiltonian = hamiltonian
        self.integrator = integrator
        self._options: dict[str, Any] = {}
        if _checks.one_of("gradient", gradient, GRADIENTS) == "reversible":
            if "gradient" not in inspect.signature(integrator).parameters:
                raise ValueError(
                    f"gradient must be 'stored' for an integrator without a reversible one, got 'reversible' with "
                    f"{getattr(integrator, '__name__', integrator)}"
                )
            self._options["gradient"] = gradient

    @property
    def mixes_directions(self) -> bool:
        """See `Predictor`; where the integrator is time-symmetric, so that the sign does not change its order."""
        return self.integrator is leapfrog or bool(getattr(self.integrator, "symmetric", False))

    def forward(self, z: Tensor, *, direction: int | Tensor = 1, control: Tensor | None = None) -> Tensor:
        """Integrate states ``(..., 2d)``, forward or in reverse time.

        Args:
            z: states ``(..., 2d)``.
            direction: 1 or −1, or a tensor of both, ``(..., 1)``, where `mixes_directions`.
            control: the input ``u`` of a `ControlledHamiltonian`, ``(..., m)``, held over all steps; without one the
                system runs free.

        Raises:
            ValueError: if ``direction`` is not 1 or −1, or ``z`` has an odd last dimension.
            TypeError: if ``z`` is not floating, or a ``control`` is given to a Hamiltonian that takes none.
        """
        return join_state(*self.flow(*split_state(z), direction=direction, control=control))

    def flow(
        self, q: Tensor, p: Tensor, *, direction: int | Tensor = 1, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same on the two halves of the state apart: ``(..., d)`` twice to ``(..., d)`` twice."""
        hamiltonian = self.hamiltonian
        if control is not None:
            if not isinstance(hamiltonian, ControlledHamiltonian):
                raise TypeError(f"control needs a ControlledHamiltonian, got {type(hamiltonian).__name__}")
            hamiltonian = hamiltonian.with_control(control)

        def integrate(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            h = self._signed_dt(direction, q)
            return self.integrator(hamiltonian, q, p, dt=h, steps=self.steps, **self._options)

        return at_full_precision(integrate, q, p)


class ResidualMLPPredictor(Predictor):
    r"""The ablation MLP-HJEPA: ``z ← z ± h · g(z)``, ``S`` steps, neither symplectic nor invertible.

    ``g`` is a GELU MLP ``2d → hidden_dim → … → 2d`` [paper, section 5.1]. Precision as for the dynamics:
    float32 or better.

    Args:
        dim: ``d``, half the dimension of a state.
        hidden_dim: width of the hidden layers.
        depth: number of hidden layers.
        dt: step size ``h > 0``.
        steps: number of steps ``S``.
        learn_dt: see `Predictor`.

    Raises:
        ValueError: for a size below 1 or a ``dt`` that is not positive and finite.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden_dim: int = 256,
        depth: int = 2,
        dt: float = 0.05,
        steps: int = 2,
        learn_dt: bool = False,
    ) -> None:
        super().__init__(dt=dt, steps=steps, learn_dt=learn_dt)
        self.dim = _checks.positive_int("dim", dim)
        _checks.positive_int("hidden_dim", hidden_dim)
        _checks.positive_int("depth", depth)
        widths = [2 * dim] + [hidden_dim] * depth
        layers: list[nn.Module] = []
        for i, o in pairwise(widths):
            layers += [nn.Linear(i, o), nn.GELU()]
        self.residual = nn.Sequential(*layers, nn.Linear(widths[-1], 2 * dim))

    @property
    def mixes_directions(self) -> bool:
        """See `Predictor`."""
        return True

    def forward(self, z: Tensor, *, direction: int | Tensor = 1) -> Tensor:
        """Roll out states ``(..., 2d)``, forward or in reverse time.

        Raises:
            ValueError: if ``direction`` is not 1 or −1, or ``z`` does not end in ``2 · dim``.
        """
        _checks.coordinates("z", z, 2 * self.dim)
        dtype = z.dtype
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(torch.promote_types(dtype, torch.float32))
            h = self._signed_dt(direction, z)
            for _ in range(self.steps):
                z = z + h * self._residual(z)
        return z.to(dtype)

    def _residual(self, z: Tensor) -> Tensor:
        """``g(z)``, the weights in the dtype of the state."""
        for layer in self.residual:
            if isinstance(layer, nn.Linear):
                bias = layer.bias
                z = F.linear(z, layer.weight.to(z.dtype), None if bias is None else bias.to(z.dtype))
            else:
                z = layer(z)
        return z

"""The paper's ablation: a residual MLP instead of a Hamiltonian flow."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from symplectic_jepa import _checks
from symplectic_jepa.predictors._stepped import SteppedPredictor
from symplectic_jepa.state import join_state, split_state


class ResidualMLPPredictor(SteppedPredictor):
    r"""The ablation MLP-HJEPA: ``z ← z ± h · g(z)``, ``S`` steps, neither symplectic nor invertible.

    ``g`` is a GELU MLP ``2d → hidden_dim → … → 2d`` [paper, section 5.1]. It runs in float32 or better. With
    ``control_dim=m`` it is ``g([z, u])`` with an input ``u`` of shape ``(..., m)``, constant over all steps:
    ``predictor(z, control=u)``.

    Args:
        dim: half the dimension of a state, ``d``.
        hidden_dim: width of the hidden layers.
        depth: number of hidden layers.
        dt: step size ``h > 0``.
        steps: number of steps ``S``.
        learn_dt: see `SteppedPredictor`.
        control_dim: dimension ``m`` of the control input; 0 for none.

    Raises:
        ValueError: for a size below 1, a ``control_dim`` below 0, or a ``dt`` that is not positive and finite.
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
        control_dim: int = 0,
    ) -> None:
        super().__init__(dt=dt, steps=steps, learn_dt=learn_dt)
        self.dim = _checks.positive_int("dim", dim)
        self.hidden_dim = _checks.positive_int("hidden_dim", hidden_dim)
        self.depth = _checks.positive_int("depth", depth, maximum=1000)
        self.control_dim = _checks.integer("control_dim", control_dim, maximum=2**31 - 1)
        widths = [2 * dim + control_dim] + [hidden_dim] * depth
        layers: list[nn.Module] = []
        for i, o in pairwise(widths):
            layers += [nn.Linear(i, o), nn.GELU()]
        self.residual = nn.Sequential(*layers, nn.Linear(widths[-1], 2 * dim))

    @property
    def dt_per_state(self) -> bool:
        """See `SteppedPredictor`."""
        return True

    @property
    def takes_control(self) -> bool:
        """Whether ``g`` takes a control."""
        return self.control_dim > 0

    def roll_out(
        self, q: Tensor, p: Tensor, *, dt: float | Tensor, control: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add ``dt · g(z)``, or ``dt · g([z, u])``, to the state, ``steps`` times; see `SteppedPredictor`.

        Raises:
            ValueError: if the states are not ``(..., dim)``, or ``control`` is missing or not ``(..., control_dim)``
                with leading dimensions that broadcast to the states'.
            TypeError: if ``control`` is given although ``control_dim`` is 0, or is not floating-point.
        """
        z = join_state(_checks.coordinates("q", q, self.dim), p)
        u = _checks.control_or_none(control, self.control_dim, z, system=self)
        inputs = [] if u is None else [u.expand(*z.shape[:-1], self.control_dim)]
        residual: Callable[[Tensor], Tensor] = self.residual
        # Weights are cast to the dtype of the state, and the layers called in any case, so that their hooks run.
        cast = {
            name: x.to(z.dtype)
            for name, x in self.residual.named_parameters()
            if x.is_floating_point() and x.dtype != z.dtype
        }
        if cast:
            residual = lambda z: functional_call(self.residual, cast, z)  # noqa: E731
        for _ in range(self.steps):
            z = z + dt * residual(torch.cat((z, *inputs), dim=-1) if inputs else z)
        return split_state(z)

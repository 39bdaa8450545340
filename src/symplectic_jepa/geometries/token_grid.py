"""Geometries that are functions of frequency on the token grid."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from symplectic_jepa import _checks
from symplectic_jepa._precision import at_least_float32, full_precision, wide_dtype
from symplectic_jepa.geometries._base import Geometry

Boundary = Literal["free", "periodic"]


class TokenGridGeometry(Geometry):
    """``H`` as a function of frequency, shared by all channels and both halves of ``[q | p]`` [paper, appendix F.2].

    Each half is flattened in (row, column, channel) order. With ``boundary="free"`` (Neumann: opposite edges are not
    neighbours, as in an image) the modes are the cosines of the DCT-II, computed by the FFT of the mirrored grid; with
    ``"periodic"`` they are those of the FFT itself. Subclasses define the `eigenvalues` ``(rows, columns)``.

    Args:
        grid: ``L`` tokens in a chain, or ``(rows, columns)``.
        halves: 2 for a state ``[q | p]``, 1 for ``q`` or ``p`` alone.
        boundary: ``"free"`` or ``"periodic"``.

    Raises:
        ValueError: for an invalid grid or boundary, or a size below 1.
    """

    _place: Tensor  # empty; its device is where the eigenvalues are computed

    def __init__(self, grid: int | tuple[int, int], *, halves: int = 2, boundary: Boundary = "free") -> None:
        super().__init__()
        self.grid = grid if isinstance(grid, tuple) else (grid, 1)
        if len(self.grid) != 2 or any(type(side) is not int for side in self.grid):
            raise ValueError(f"grid must be an int or (rows, columns), got {_checks.shown(grid)}")
        _checks.positive_int("grid", math.prod(self.grid), maximum=2**20)
        self.halves = _checks.positive_int("halves", halves)
        for side in self.grid:
            _checks.positive_int("grid", side)
        self.boundary = _checks.one_of("boundary", boundary, get_args(Boundary))
        self.register_buffer("_place", torch.empty(0), persistent=False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, metadata: Any, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)
        if self._place.is_meta and metadata.get("assign_to_params_buffers", False):  # it is not in the state dict
            loaded = [x for key, x in state_dict.items() if key.startswith(prefix) and isinstance(x, Tensor)]
            self._place = torch.empty(0, device=loaded[0].device if loaded else "cpu")

    # Both are recomputed in float64 on every call, so that dtype changes and the meta device cannot corrupt them.

    def _frequency(self) -> Tensor:
        """Frequency of every mode along both axes, ``(2, rows, columns)``, in radians per token."""
        modes = [torch.arange(side, device=self._place.device) for side in self.grid]
        if self.boundary == "periodic":
            modes = [k.minimum(len(k) - k) * 2 for k in modes]
        angles = [k.to(wide_dtype(k)) * math.pi / len(k) for k in modes]
        return torch.stack(torch.meshgrid(*angles, indexing="ij"))

    def _fold(self, device: torch.device) -> Tensor:
        """For every bin of ``rfft2``, the index of its mode in the flattened eigenvalues."""
        modes = [torch.arange(side, device=device) for side in self.grid]
        if self.boundary == "free":
            modes = [torch.cat((k, k[-1:], k[1:].flip(0))) for k in modes]  # bins k and 2n − k; bin n is empty
        return modes[0][:, None] * self.grid[1] + modes[1][: len(modes[1]) // 2 + 1]

    @full_precision
    def sqrt_apply(self, z: Tensor) -> Tensor:
        """``H^{1/2} z``: ``(..., halves · rows · columns · channels)`` to the same shape."""
        blocks = (self.halves, *self.grid)
        if _checks.floating("z", z).ndim == 0 or z.shape[-1] == 0 or z.shape[-1] % math.prod(blocks):
            raise ValueError(f"z must have a multiple of {blocks} (halves, rows, columns) last, got {tuple(z.shape)}")
        x: Tensor = z.reshape(*z.shape[:-1], *blocks, z.shape[-1] // math.prod(blocks))
        for axis in (-3, -2) if self.boundary == "free" else ():
            x = torch.cat((x, x.flip(axis)), axis)
        root = self.eigenvalues().to(x).sqrt().flatten()[self._fold(x.device)]
        spectrum = torch.fft.rfft2(x, dim=(-3, -2)) * root[..., None]
        x = torch.fft.irfft2(spectrum, s=x.shape[-3:-1], dim=(-3, -2))
        return x[..., : self.grid[0], : self.grid[1], :].reshape(z.shape)


class LaplacianGeometry(TokenGridGeometry):
    """``H = κν + ε`` with the graph Laplacian ``ν`` of the token grid [paper, appendix F.2].

    Args:
        grid: see `TokenGridGeometry`.
        kappa: stiffness ``κ ≥ 0`` of the bonds between neighbours.
        eps: smallest eigenvalue ``ε > 0``.
        halves: see `TokenGridGeometry`.
        boundary: see `TokenGridGeometry`.

    Raises:
        ValueError: as `TokenGridGeometry`, and for ``κ < 0`` or ``ε ≤ 0``.
    """

    def __init__(
        self,
        grid: int | tuple[int, int],
        *,
        kappa: float = 1.0,
        eps: float = 1.0,
        halves: int = 2,
        boundary: Boundary = "free",
    ) -> None:
        super().__init__(grid, halves=halves, boundary=boundary)
        self.kappa = _checks.finite("kappa", kappa, minimum=0.0)
        self.eps = _checks.finite("eps", eps, minimum=0.0, exclusive=True)

    def eigenvalues(self) -> Tensor:
        """``κ Σ_axes (2 − 2 cos f) + ε``, ``(rows, columns)``."""
        return self.kappa * (2 - 2 * self._frequency().cos()).sum(0) + self.eps


class RadialGeometry(TokenGridGeometry):
    r"""A learnable ``H`` whose eigenvalues grow with the radial frequency ``r = |f|`` on the token grid.

    ``log λ(r) = Σ_k w_k clamp(K r / r_max − k, 0, 1) − gauge``: piecewise linear, with steps

    ``w_k = log(max_condition) · e^{θ_k} / (e^b + Σ_j e^{θ_j})``

    The steps are positive, so ``λ`` is monotone. Their sum is below ``log(max_condition)``, so ``λ_max/λ_min`` is below
    ``max_condition``. The gauge makes ``mean log λ = 0``, so ``H`` cannot change the scale of ``z``. All three are true
    for every ``θ``. ``b`` is chosen so that ``θ = 0``, where training starts and to which weight decay pulls, has the
    condition number ``initial_condition``.

    Args:
        grid: see `TokenGridGeometry`; at least two tokens.
        knots: number ``K`` of parameters ``θ``.
        max_condition: upper bound of the condition number, above 1.
        initial_condition: initial condition number, above 1 and below ``max_condition``.
        halves: see `TokenGridGeometry`.
        boundary: see `TokenGridGeometry`.

    Raises:
        ValueError: if the grid has only one token, or a setting is out of range.
    """

    def __init__(
        self,
        grid: int | tuple[int, int],
        *,
        knots: int = 8,
        max_condition: float = 100.0,
        initial_condition: float = 2.0,
        halves: int = 2,
        boundary: Boundary = "free",
    ) -> None:
        super().__init__(grid, halves=halves, boundary=boundary)
        self.theta = nn.Parameter(torch.zeros(_checks.positive_int("knots", knots)))
        self.max_condition = _checks.finite("max_condition", max_condition, minimum=1.0, exclusive=True)
        self.initial_condition = _checks.finite("initial_condition", initial_condition, minimum=1.0, exclusive=True)
        if initial_condition >= max_condition:
            raise ValueError(f"initial_condition must be below {max_condition:g}, got {initial_condition!r}")
        if math.prod(self.grid) < 2:
            raise ValueError(f"grid must have at least two tokens, got {grid!r}")

    @property
    def knots(self) -> int:
        """Number ``K`` of parameters."""
        return self.theta.numel()

    def eigenvalues(self) -> Tensor:
        """``λ``, ``(rows, columns)``, differentiable with respect to ``theta``."""
        theta = at_least_float32(self.theta)
        radius = self._frequency().square().sum(0).sqrt()
        steps = (len(theta) * radius / radius.max())[..., None] - torch.arange(len(theta), device=theta.device)
        bound = math.log(self.max_condition)
        b = math.log(self.knots * (bound / math.log(self.initial_condition) - 1))
        logits = torch.cat((theta, theta.new_full((1,), b)))
        log_values = steps.clamp(0, 1).to(theta.dtype) @ (bound * logits.softmax(0)[:-1])
        return (log_values - log_values.mean()).exp()

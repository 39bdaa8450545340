"""The measured workloads: our version, the textbook's, another library's, and the bare matrix products."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import symplectic_jepa as sj
from benchmarks import textbook
from benchmarks.measure import Function

SQUARINGS = 17  # of `top_eigenvalue`
PRODUCTS = "matrix products"  # the floor: the same products, and nothing else


@dataclass(frozen=True)
class Target:
    """``numerator / denominator`` (of seconds, or of bytes) is at least, or at most, ``limit``."""

    numerator: str
    denominator: str
    limit: float
    at_least: bool = True
    of: str = "seconds"
    floor: str = ""  # a variant that the denominator cannot beat, which gives the best possible ratio

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass
class Work:
    """One row of the table."""

    name: str
    variants: dict[str, Function]
    targets: list[Target]
    notes: dict[str, float | str] = field(default_factory=dict)  # other numbers, by name
    module: nn.Module | None = None  # the module whose random draws a CUDA graph must hold
    flop: float = 0.0  # of the matrix products, forward and backward


def installed(package: str) -> bool:
    """Whether another library can be measured; the table says if not."""
    return importlib.util.find_spec(package) is not None


def gradient_of(loss: Callable[[], Tensor], *inputs: Tensor) -> Function:
    """Forward and backward pass; gradients are returned, so that nothing accumulates."""
    return lambda: torch.autograd.grad(loss(), inputs)


def compiled(function: Callable[..., Tensor], *arguments: Tensor) -> Callable[[], Tensor]:
    whole = torch.compile(function, fullgraph=True)
    return lambda: whole(*arguments)


def matching(device: torch.device, *, smoke: bool = False) -> Work:
    """The bidirectional matching loss on given states."""
    batch, dim, hidden = (16, 32, 16) if smoke else (512, 1024, 256)
    torch.manual_seed(0)
    ours = sj.SeparableHamiltonian(dim, hidden_dim=hidden).to(device)
    theirs = textbook.Hamiltonian(ours).to(device)
    objective = sj.HamJEPAObjective(sj.HamiltonianPredictor(ours), p_weight=0.2)
    z = torch.randn(2, batch, 2 * dim, device=device, requires_grad=True)

    def loss(z: Tensor) -> Tensor:
        return objective(z).loss

    def textbook_loss() -> Tensor:
        return textbook.matching(theirs, z, p_weight=0.2)

    parameters = [z, *ours.parameters()]
    return Work(
        f"bidirectional matching loss, B = {batch}, d = {dim}, hidden {hidden}, S = 2",
        {
            "textbook": gradient_of(textbook_loss, z, *list(theirs.parameters())[:-1]),
            "eager": gradient_of(lambda: loss(z), *parameters),
            "compiled": gradient_of(compiled(loss, z), *parameters),
            PRODUCTS: force_products(device, batch, dim, hidden, forces=6),
        },
        [
            Target("textbook", "eager", 1.8, floor=PRODUCTS),
            Target("textbook", "compiled", 3.0, floor=PRODUCTS),
            Target("compiled", PRODUCTS, 1.3, at_least=False),
        ],
        {"relative difference from the textbook": relative(loss(z), textbook_loss())},
        flop=forces_flop(batch, dim, hidden, forces=6),
    )


def force_products(device: torch.device, batch: int, dim: int, hidden: int, *, forces: int) -> Function:
    """The matrix products of ``forces`` closed-form forces, forward (4) and backward (8), into preallocated memory."""
    x, w1 = torch.randn(batch, dim, device=device), torch.randn(hidden, dim, device=device)
    h, w2 = torch.randn(batch, hidden, device=device), torch.randn(hidden, hidden, device=device)
    wide, narrow = torch.empty_like(x), torch.empty_like(h)
    grad1, grad2 = torch.empty_like(w1), torch.empty_like(w2)

    def run() -> None:
        for _ in range(forces):
            torch.mm(x, w1.T, out=narrow), torch.mm(h, w2.T, out=narrow)  # a₁, a₂
            torch.mm(h, w2, out=narrow), torch.mm(h, w1, out=wide)  # and back
            for _ in range(2):  # each has two in the backward pass, for its input and for the weight
                torch.mm(h, w2, out=narrow), torch.mm(h.T, h, out=grad2), torch.mm(h.T, x, out=grad1)
            torch.mm(h, w1, out=wide), torch.mm(x, w1.T, out=narrow)

    return run


def forces_flop(batch: int, dim: int, hidden: int, *, forces: int) -> float:
    """Operations of `force_products`."""
    return forces * 3 * 2 * 2.0 * batch * (dim * hidden + hidden * hidden)


def sigreg(device: torch.device, *, smoke: bool = False) -> Work:
    """SIGReg with given directions, drawn outside the measurement."""
    views, batch, dim, slices, knots = (2, 16, 8, 8, 5) if smoke else (2, 512, 2048, 1024, 17)
    torch.manual_seed(0)
    ours = sj.SIGReg(slices=slices, knots=knots).to(device)
    z = torch.randn(views, batch, dim, device=device, requires_grad=True)
    a = torch.nn.functional.normalize(torch.randn(dim, slices, device=device), dim=0)

    def loss(z: Tensor, a: Tensor) -> Tensor:
        return ours(z, directions=a)

    def textbook_loss() -> Tensor:
        return textbook.sigreg(z, a, knots=knots)

    y, grad = torch.empty(views * batch, slices, device=device), torch.empty(views * batch, dim, device=device)

    def products() -> None:
        torch.mm(z.detach().flatten(0, 1), a, out=y), torch.mm(y, a.T, out=grad)

    variants = {
        "textbook": gradient_of(textbook_loss, z),
        "eager": gradient_of(lambda: loss(z, a), z),
        "compiled": gradient_of(compiled(loss, z, a), z),
        PRODUCTS: products,
    }
    targets = [
        Target("textbook", "eager", 3.0, floor=PRODUCTS),
        Target("eager", "textbook", 0.2, at_least=False, of="bytes"),
    ]
    notes: dict[str, float | str] = {
        "relative difference from the textbook": relative(loss(z, a), textbook_loss()),
    }
    if installed("lightly"):
        from lightly.loss.lejepa_loss import SIGReg  # noqa: PLC0415

        peer = SIGReg(knots=knots, num_vectors=slices).to(device)
        peer._generate_unit_vectors = lambda *_: a  # it draws internally; here all get the same directions
        variants["lightly"] = gradient_of(lambda: peer(z), z)
        targets += [
            Target("lightly", "eager", 3.0),
            Target("eager", "lightly", 0.2, at_least=False, of="bytes"),
        ]
        notes["relative difference from lightly"] = relative(loss(z, a), peer(z))
    else:
        notes["lightly"] = "not installed"
    name = f"SIGReg, V = {views}, B = {batch}, K = {dim}, M = {slices}, T = {knots}"
    return Work(name, variants, targets, notes, flop=2 * 2.0 * views * batch * dim * slices)


def floors(device: torch.device, *, smoke: bool = False) -> Work:
    """Log-det floor, participation floor and top-eigenvalue ceiling of one projected covariance."""
    batch, dim, k = (32, 16, 8) if smoke else (1024, 1024, 128)
    torch.manual_seed(0)
    bounds = {"log_det": 0.5, "participation": 0.95, "top_share": 0.01}  # every hinge is active
    ours = sj.SpectralFloors(**bounds, proj_dim=k).to(device)
    x = torch.randn(batch, dim, device=device, requires_grad=True)
    r = torch.linalg.qr(torch.randn(dim, k, device=device)).Q.contiguous()

    def loss(x: Tensor, r: Tensor) -> Tensor:
        return ours(x, projection=r)

    def textbook_loss() -> Tensor:
        return textbook.spectral_floors(x, r, **bounds)

    return Work(
        f"spectral floors, N = {batch}, d = {dim}, k = {k}",
        {
            "textbook": gradient_of(textbook_loss, x),
            "eager": gradient_of(lambda: loss(x, r), x),
            "compiled": gradient_of(compiled(loss, x, r), x),
            PRODUCTS: floor_products(x, r),
        },
        [Target("eager", PRODUCTS, 1.4, at_least=False), Target("textbook", "eager", 1.0, floor=PRODUCTS)],
        {
            "relative difference from the textbook": relative(loss(x, r), textbook_loss()),
            "λ_max, relative difference from eigvalsh, gap 1e-6": top_eigenvalue_error(device, k),
        },
        flop=floor_flop(batch, dim, k),
    )


def floor_products(x: Tensor, r: Tensor) -> Function:
    """``X R`` and ``Yᵀ Y``, their backward pass, and the squarings that give λ_max."""
    x, wide = x.detach(), torch.float64

    def run() -> None:
        y = (x @ r).to(wide)
        cov = y.mT @ y
        grad = y @ cov
        grad.to(x.dtype) @ r.T
        power = cov.to(torch.float32)
        for _ in range(SQUARINGS - 1):
            torch.mm(power, power)
        cov @ cov

    return run


def floor_flop(batch: int, dim: int, k: int) -> float:
    """Operations of `floor_products`."""
    return 2 * 2.0 * batch * dim * k + 2 * 2.0 * batch * k * k + SQUARINGS * 2.0 * k**3


def top_eigenvalue_error(device: torch.device, k: int) -> float:
    """Error of λ_max for a covariance whose two largest eigenvalues differ by a millionth."""
    q = torch.linalg.qr(torch.randn(k, k, dtype=torch.float64)).Q
    values = torch.linspace(0.1, 0.9, k, dtype=torch.float64)
    values[-2:] = torch.tensor([1 - 1e-6, 1.0])
    cov = (q * values @ q.T).to(device)
    return relative(sj.regularizers.top_eigenvalue(cov), torch.linalg.eigvalsh(cov)[-1])


def objective(device: torch.device, *, smoke: bool = False) -> Work:
    """The whole CIFAR-100 objective on given states."""
    batch, dim, hidden = (16, 32, 16) if smoke else (512, 1024, 256)
    torch.manual_seed(0)
    ours = sj.hamjepa_cifar100(sj.HamiltonianPredictor(sj.SeparableHamiltonian(dim, hidden_dim=hidden))).to(device)
    theirs = textbook.Hamiltonian(ours.predictor.hamiltonian).to(device)
    z = collapsed_states(batch, dim, device=device).requires_grad_()
    projections = first_projections(ours, z)

    def loss(z: Tensor) -> Tensor:
        return ours(z).loss

    def textbook_loss() -> Tensor:
        return textbook.objective(theirs, z, projections)

    difference = relative(loss(z), textbook_loss())
    parameters = [z, *ours.parameters()]
    matching_products = force_products(device, batch, dim, hidden, forces=6)
    stacked = z.detach().flatten(0, 1)
    halves = [floor_products(x, projections[half]) for half, x in zip("qp", stacked.chunk(2, -1), strict=True)]

    def products() -> None:
        matching_products()
        for half in halves:
            half()

    return Work(
        f"whole HamJEPA objective, B = {batch}, d = {dim}, S = 2",
        {
            "textbook": gradient_of(textbook_loss, z, *list(theirs.parameters())[:-1]),
            "eager": gradient_of(lambda: loss(z), *parameters),
            "compiled": gradient_of(compiled(loss, z), *parameters),
            PRODUCTS: products,
        },
        [Target("textbook", "compiled", 2.5, floor=PRODUCTS)],
        {"relative difference from the textbook": difference},
        module=ours,
        flop=forces_flop(batch, dim, hidden, forces=6) + 2 * floor_flop(2 * batch, dim, len(projections["q"].T)),
    )


def collapsed_states(batch: int, dim: int, *, device: torch.device) -> Tensor:
    """``(2, batch, 2·dim)`` for which every hinge of the recipe is active, so that a wrong projection is noticed."""
    spike = torch.randn(2, batch, 1, device=device) * torch.linspace(-2, 2, 2 * dim, device=device)
    return 0.1 + spike + 0.1 * torch.randn(2, batch, 2 * dim, device=device)


def first_projections(objective: sj.HamJEPAObjective, z: Tensor) -> dict[str, Tensor]:
    """Projections of the first 16 steps; the textbook's are fixed, the objective draws its own."""
    samples, dim = 2 * z.shape[-2], z.shape[-1] // 2
    schedules = {half: copy.deepcopy(objective.penalties[f"spectrum_{half}"].regularizer.schedule) for half in "qp"}
    k = min(128, dim)
    return {
        half: schedule(dim, k, dtype=z.dtype, device=z.device)[:, : samples - 1] for half, schedule in schedules.items()
    }


def relative(a: Tensor, b: Tensor) -> float:
    """``|a − b| / |b|``."""
    return ((a - b).abs() / b.abs()).item()


WORKS: dict[str, Callable[..., Work]] = {
    "matching": matching,
    "sigreg": sigreg,
    "floors": floors,
    "objective": objective,
}

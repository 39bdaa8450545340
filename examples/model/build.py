"""A recipe's model and optimizer."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

import symplectic_jepa as sj
from examples.model.penalties import build_penalties
from examples.model.timm_backbone import TimmBackbone
from examples.recipe.schema import Recipe
from examples.recipe.sections import Encoder, Optim, Predictor


def build_encoder(e: Encoder, size: int) -> nn.Module:
    """The backbone for images of ``size`` pixels, with a token head or, for SIGReg, optionally a global one."""
    head = {"token_channels": e.token_channels, "grid": e.grid}
    if e.backbone == "resnet18":
        tokens = sj.PhaseSpaceTokenEncoder.resnet18(stem=e.stem, token_layer=e.token_layer, **head)
    elif e.backbone.startswith("timm:"):
        backbone = TimmBackbone(e.backbone.removeprefix("timm:"), size)
        tokens = sj.PhaseSpaceTokenEncoder(backbone, in_channels=backbone.channels, **head)
    else:
        tokens = sj.PhaseSpaceTokenEncoder(small_cnn(), in_channels=128, **head)
    if e.mode == "tokens":
        return tokens
    return nn.Sequential(
        tokens.backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(tokens.in_channels, e.global_dim)
    )


def small_cnn() -> nn.Module:
    """Four 3×3 convolutions from 32 px to a 4×4 map of 128 channels."""
    widths = (3, 32, 64, 128, 128)
    layers: list[nn.Module] = []
    for i, (c_in, c_out) in enumerate(itertools.pairwise(widths)):
        stride = 1 if i == 0 else 2
        layers += [nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def build_projector(e: Encoder, dim: int) -> nn.Module:
    if e.projector == "identity":
        return nn.Identity()
    return nn.Sequential(
        nn.Linear(dim, e.projector_hidden), nn.BatchNorm1d(e.projector_hidden), nn.ReLU(inplace=True),
        nn.Linear(e.projector_hidden, e.projector_dim),
    )  # fmt: skip


def build_objective(recipe: Recipe, dim: int) -> sj.objectives.Objective:
    """The objective for states ``(V, B, dim)``."""
    penalties = build_penalties(recipe, dim)
    if recipe.method == "sigreg":
        return sj.LeJEPAObjective(penalties, global_views=recipe.data.global_views, convention=recipe.sigreg.convention)
    h = recipe.hamjepa
    predictor = (build_residual_mlp if recipe.method == "mlp_hjepa" else build_predictor)(recipe.predictor, dim // 2)
    keys = {"match", "p_weight", "bidirectional", "reverse_time", "energy_weight", "detach_target"}
    return sj.HamJEPAObjective(predictor, penalties=penalties, **h.model_dump(include=keys))


def build_residual_mlp(p: Predictor, dim: int) -> sj.ResidualMLPPredictor:
    """The ablation: a residual MLP on states ``(..., 2 · dim)``."""
    return sj.ResidualMLPPredictor(dim, **p.model_dump(include={"hidden_dim", "depth", "dt", "steps"}))


def build_predictor(p: Predictor, dim: int) -> sj.HamiltonianPredictor:
    """The Hamiltonian map on states ``(..., 2 · dim)``."""
    residual = p.model_dump(include={"hidden_dim", "depth", "activation", "residual_scale"})
    hamiltonian: sj.hamiltonians.Hamiltonian
    if p.hamiltonian == "separable":
        hamiltonian = sj.SeparableHamiltonian(dim, base_coeff=p.base_coeff, learn_mass=p.learn_mass, **residual)
    elif p.hamiltonian == "general":
        hamiltonian = sj.GeneralHamiltonian(dim, **residual)
    else:
        hamiltonian = sj.QuadraticHamiltonian(dim)
    others = {"implicit_midpoint": sj.implicit_midpoint, "explicit_euler": explicit_euler}
    integrator = {**sj.integrators.SPLITTINGS, **others}[p.integrator]
    return sj.HamiltonianPredictor(hamiltonian, dt=p.dt, steps=p.steps, integrator=integrator)


def explicit_euler(
    hamiltonian: sj.hamiltonians.AbstractSeparable, q: Tensor, p: Tensor, *, dt: float | Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """``q ← q + h v(p), p ← p + h F(q)``, both from the old state. Not symplectic; for the ablation only."""
    for _ in range(steps):
        q, p = q + dt * hamiltonian.velocity(p), p + dt * hamiltonian.force(q)
    return q, p


class JEPA(nn.Module):
    """All trainable parts: ``encoder`` (evaluated later), ``projector``, ``objective`` (with its predictor)."""

    def __init__(
        self, encoder: nn.Module, projector: nn.Module, objective: sj.objectives.Objective, *, bf16: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder.to(memory_format=torch.channels_last)
        self.projector = projector
        self.objective = objective
        self.bf16 = bf16

    def forward(self, images: Tensor) -> sj.objectives.ObjectiveOutput:
        """Loss and terms of views ``(V, B, 3, H, W)``, encoded in one forward pass over the stacked batch."""
        stacked = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            embeddings = self.projector(self.encoder(stacked))
        return self.objective(embeddings.unflatten(0, images.shape[:2]))


def build_model(recipe: Recipe, image_shape: torch.Size) -> JEPA:
    """The recipe's encoder, projector and objective, for images of this shape."""
    e = recipe.encoder
    encoder = build_encoder(
        e, image_shape[-1]
    ).eval()  # so that finding the dimension does not change BatchNorm statistics
    with torch.no_grad():
        dim = encoder(torch.zeros(1, *image_shape)).shape[-1]
    projector = build_projector(e, dim)
    objective = build_objective(recipe, dim if e.projector == "identity" else e.projector_dim)
    return JEPA(encoder, projector, objective, bf16=recipe.train.precision == "bf16").train()


def build_optimizer(model: JEPA, o: Optim, predictor_lr: float | None = None) -> torch.optim.AdamW:
    """AdamW with two groups: encoder and projector, then the objective's own parameters.

    Learning rates are tensors and the step is one fused kernel, so that a CUDA graph can record it.
    """
    own = list(model.objective.parameters())
    rest = [*model.encoder.parameters(), *model.projector.parameters()]
    rates = [(rest, o.lr)]
    if own:
        rates.append((own, o.lr if predictor_lr is None else predictor_lr))
    device = rest[0].device
    groups = [{"params": params, "lr": torch.tensor(lr, device=device), "base_lr": lr} for params, lr in rates]
    return torch.optim.AdamW(
        groups, weight_decay=o.weight_decay, eps=o.eps, fused=True, capturable=device.type == "cuda"
    )

"""Direct implementations of the paper's formulas, to compare the library's speed and to check its values.

Nested autograd for the force, evaluated twice per leapfrog step; characteristic functions as one (V, N, M, T) tensor;
``slogdet`` and ``eigvalsh``; a whole ResNet-18, of which one feature map is used; augmentation one image at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import resnet18

import symplectic_jepa as sj
from examples.images.augment import AugmentConfig


class Hamiltonian(nn.Module):
    """``½‖p‖² + ½ c ‖q‖² + s f(q)`` with the weights of a `SeparableHamiltonian`."""

    def __init__(self, like: sj.SeparableHamiltonian) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for hidden in like.hidden:
            layers += [nn.Linear(*reversed(hidden.weight.shape)), nn.GELU()]
        self.net = nn.Sequential(*layers, nn.Linear(like.output.in_features, 1))
        mine = [layer for layer in self.net if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for ours, theirs in zip(mine, [*like.hidden, like.output], strict=True):
                ours.weight.copy_(theirs.weight)
                ours.bias.zero_() if theirs.bias is None else ours.bias.copy_(theirs.bias)
        self.base_coeff, self.residual_scale = like.base_coeff, like.residual_scale.item()

    def potential(self, q: Tensor) -> Tensor:
        return 0.5 * self.base_coeff * q.square().sum(-1) + self.residual_scale * self.net(q).squeeze(-1)

    def force(self, q: Tensor) -> Tensor:
        if not q.requires_grad:
            q = q.detach().requires_grad_()
        return -torch.autograd.grad(self.potential(q).sum(), q, create_graph=True)[0]


def leapfrog(hamiltonian: Hamiltonian, z: Tensor, *, dt: float, steps: int) -> Tensor:
    q, p = z.chunk(2, -1)
    for _ in range(steps):
        p = p + 0.5 * dt * hamiltonian.force(q)
        q = q + dt * p
        p = p + 0.5 * dt * hamiltonian.force(q)
    return torch.cat((q, p), -1)


def matching(hamiltonian: Hamiltonian, z: Tensor, *, p_weight: float, dt: float = 0.05, steps: int = 2) -> Tensor:
    """``½ [ℓ(Φ_h(z_a), sg z_b) + ℓ(Φ_{−h}(z_b), sg z_a)]`` of states ``(2, B, 2d)``, p with a small weight."""
    loss = z.new_zeros(())
    for source, target, h in ((z[0], z[1], dt), (z[1], z[0], -dt)):
        q, p = leapfrog(hamiltonian, source, dt=h, steps=steps).chunk(2, -1)
        target_q, target_p = target.detach().chunk(2, -1)
        loss = loss + 0.5 * ((q - target_q).square().mean() + p_weight * (p - target_p).square().mean())
    return loss


def sigreg(z: Tensor, directions: Tensor, *, knots: int = 17, t_max: float = 3.0) -> Tensor:
    """Sliced Epps–Pulley statistic of ``(V, N, D)``, averaged over views and slices."""
    t = torch.linspace(0, t_max, knots, device=z.device, dtype=z.dtype)
    phi = torch.exp(-0.5 * t**2)
    weight = torch.full_like(t, 2 * t_max / (knots - 1))
    weight[0] = weight[-1] = t_max / (knots - 1)
    angle = (z @ directions)[..., None] * t  # (V, N, M, T)
    error = (angle.cos().mean(-3) - phi).square() + angle.sin().mean(-3).square()
    return z.shape[-2] * (error * weight * phi).sum(-1).mean()


def spectral_floors(x: Tensor, projection: Tensor, *, log_det: float, participation: float, top_share: float) -> Tensor:
    """The three hinges on one projected covariance."""
    y = (x - x.mean(0)) @ projection
    k = projection.shape[1]
    cov = y.T @ y / (len(x) - 1) + 1e-4 * torch.eye(k, device=x.device, dtype=x.dtype)
    values = torch.linalg.eigvalsh(cov)
    ratio = cov.trace() ** 2 / (cov @ cov).trace()
    return (
        torch.relu(log_det - torch.linalg.slogdet(cov)[1] / k).square()
        + torch.relu(participation - ratio / k).square()
        + torch.relu(values[-1] / cov.trace() - top_share).square()
    )


def objective(hamiltonian: Hamiltonian, z: Tensor, projections: dict[str, Tensor], *, steps: int = 2) -> Tensor:
    """The whole CIFAR-100 objective of states ``(2, B, 2d)``."""
    loss = matching(hamiltonian, z, p_weight=0.2, steps=steps)
    stacked = z.flatten(0, 1)
    q, p = stacked.chunk(2, -1)
    for name, x, participation, top_share in (("q", q, 0.12, 0.35), ("p", p, 0.16, 0.30)):
        loss = loss + 0.2 * (x.square().mean() - 1).square()
        std = torch.sqrt(x.var(0, correction=0) + 1e-4)
        loss = loss + 0.5 * torch.relu(0.2 - std).square().mean()
        loss = loss + 0.5 * spectral_floors(
            x, projections[name], log_det=-1.5, participation=participation, top_share=top_share
        )
    return loss + 0.05 * stacked.mean(0).square().mean()


class Encoder(nn.Module):
    """ResNet-18 with a CIFAR stem, run to the end, returning the tokens of its third stage."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(weights=None)
        self.net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.net.maxpool = nn.Identity()
        self.net.layer3.register_forward_hook(self._keep)
        self.project = nn.Sequential(nn.Conv2d(256, 32, 1, bias=False), nn.BatchNorm2d(32))

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.features = output

    def forward(self, images: Tensor) -> Tensor:
        self.net(images)
        q, p = self.project(self.features).chunk(2, 1)
        return torch.cat([half.permute(0, 2, 3, 1).flatten(1) for half in (q, p)], 1)


class Augment:
    """torchvision's transforms, one PIL image at a time."""

    def __init__(self, config: AugmentConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(config.size, scale=config.scale),
                transforms.RandomHorizontalFlip(config.flip),
                transforms.RandomApply([transforms.ColorJitter(*config.jitter)], config.jitter_prob),
                transforms.RandomGrayscale(config.grayscale_prob),
                transforms.RandomApply(
                    [transforms.GaussianBlur(config.blur_kernel, config.blur_sigma)], config.blur_prob
                ),
                transforms.RandomSolarize(128, config.solarize_prob),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __call__(self, images: np.ndarray) -> Tensor:
        """uint8 ``(B, H, W, 3)`` to float32 ``(B, 3, size, size)``."""
        return torch.stack([self.transform(Image.fromarray(image)) for image in images])

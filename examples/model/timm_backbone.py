"""A model of timm as a backbone: its patch tokens as a map, or its last feature map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TimmBackbone(nn.Module):
    """A randomly initialised timm model up to its last feature map: ``(B, 3, H, W)`` to ``(B, channels, h, w)``.

    timm itself puts patch tokens into a map, after the final normalisation and without class and register tokens, and
    removes what comes later. ``channels`` and ``grid`` (``h`` and ``w`` at ``size``) come from one forward pass on the
    meta device.

    Args:
        name: the model, such as ``vit_small_patch16_224``.
        size: side of the images. Models with position embeddings of a fixed size are built for it.

    Raises:
        SystemExit: naming ``encoder.backbone``, if timm is missing, lacks the model, or has no map for ``size``.
    """

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        key = f"encoder.backbone=timm:{name}"
        try:
            import timm  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise SystemExit(f'{key} needs timm: pip install "symplectic-jepa[integrations]"') from error
        if not timm.is_model(name):
            near = ", ".join(timm.list_models(f"{name[:6]}*")[:5]) or "timm.list_models()"
            raise SystemExit(f"{key} must be a model of timm {timm.__version__}, see {near}")
        settings = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
        try:
            with torch.device("meta"), torch.no_grad():
                self.model, self.last = _cut(timm.create_model(name, **settings).eval())
                shape = self(torch.empty(1, 3, size, size)).shape
            self.model, self.last = _cut(timm.create_model(name, **settings))
        except Exception as error:  # timm's models raise errors of many types
            raise SystemExit(f"{key} has no feature map for images of {size} pixels: {error}") from error
        self.channels, self.grid = shape[1], tuple(shape[2:])

    def forward(self, images: Tensor) -> Tensor:
        maps = {"norm": True, "output_fmt": "NCHW", "intermediates_only": True}
        [features] = self.model.forward_intermediates(images, indices=self.last, **maps)
        return features


def _cut(model: Any) -> tuple[Any, list[int]]:
    """The model without what follows its last feature map, and the index of that map."""
    return model, model.prune_intermediate_layers(1, prune_norm=False)  # the last

"""A whole training step (forward, backward, optimizer) as one CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

import symplectic_jepa as sj

Output = TypeVar("Output")
WARM_UP = 3  # steps before the capture: cuDNN and cuBLAS choose kernels and allocate memory


class CapturedStep(Generic[Output]):
    """``step(images)``, recorded once and then replayed without Python or separate kernel launches.

    Whatever changes between replays changes in place: images, learning rates, warm-up scales, random matrices. The
    effect of the warm-up steps on weights, BatchNorm statistics and optimizer moments is undone before the capture. The
    next call overwrites the outputs.

    Args:
        step: the training step. It must not read anything back to the host.
        images: an example input.
        model: the model being trained. Its random matrices are held (`symplectic_jepa.hold_draws`).
        optimizer: created with ``capturable=True`` and tensor learning rates.
        record: records a function and returns its replay; default: `record_graph`.
    """

    def __init__(
        self,
        step: Callable[[Tensor], Output],
        images: Tensor,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        record: Callable[[Callable[[], Output]], tuple[Callable[[], object], Output]] | None = None,
    ) -> None:
        self.model, self.images = model, images.clone()
        sj.hold_draws(model)
        before = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict()["state"])
        side = torch.cuda.Stream() if images.is_cuda else None  # PyTorch requires the warm-up on a side stream
        if side is not None:
            side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step(self.images)
        if side is not None:
            torch.cuda.current_stream().wait_stream(side)
        _restore(model, optimizer, *before)
        self.replay, self.output = (record or record_graph)(lambda: step(self.images))

    def __call__(self, images: Tensor) -> Output:
        """Run one step on images of the example's shape."""
        self.images.copy_(images)
        sj.advance_draws(self.model)
        self.replay()
        return self.output


def record_graph(step: Callable[[], Output]) -> tuple[Callable[[], object], Output]:
    """Capture ``step`` without running it; return its replay and the tensors that each replay overwrites."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()
    return graph.replay, output


@torch.no_grad()
def _restore(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: dict[str, Tensor],
    moments: dict[int, dict[str, Tensor]],
) -> None:
    """Undo the warm-up in place: the optimizer's tensors must exist before the capture."""
    model.load_state_dict(weights)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        for key, tensor in optimizer.state[parameter].items():
            if index in moments:
                tensor.copy_(moments[index][key])
            else:
                tensor.zero_()

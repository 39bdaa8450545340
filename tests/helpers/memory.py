"""How large the tensors are that a computation makes."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """Elements of the largest tensor, of one dtype or any, that an operation returns, apart from views."""

    def __init__(self, dtype=None):
        super().__init__()
        self.dtype, self.numel = dtype, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if not any(alias.alias_info is not None for alias in func._schema.returns):
            made = [
                x.numel() for x in tree_leaves(output) if isinstance(x, torch.Tensor) and self.dtype in (None, x.dtype)
            ]
            self.numel = max([self.numel, *made])
        return output

"""Reversible gradients in memory that does not grow with the rollout."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import symplectic_jepa as sj


class Live(TorchDispatchMode):
    """The most bytes of tensors made inside that were alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.storages = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor) and (key := x.untyped_storage()._cdata) not in self.storages:
                size = x.untyped_storage().nbytes()
                self.storages.add(key)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(x.untyped_storage(), self._gone, key, size)
        return out

    def _gone(self, key, size):
        self.storages.discard(key)
        self.now -= size


def peak(steps, gradient):
    hamiltonian = sj.SeparableHamiltonian(64, hidden_dim=32)
    q, p = torch.randn(2, 256, 64).requires_grad_()
    with Live() as live:
        end = torch.stack(sj.leapfrog(hamiltonian, q, p, dt=0.05, steps=steps, gradient=gradient))
        torch.autograd.grad(end.sum(), [q, p, *hamiltonian.parameters()])
    return live.peak


def test_memory_does_not_grow_with_the_rollout():
    assert peak(64, "reversible") <= 1.05 * peak(4, "reversible")
    assert peak(64, "stored") > 8 * peak(4, "stored")


def test_only_the_final_state_is_saved():
    hamiltonian = sj.SeparableHamiltonian(4, hidden_dim=6)
    q, p = torch.randn(2, 3, 4).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        sj.leapfrog(hamiltonian, q, p, dt=0.05, steps=64, gradient="reversible")
    weights = {x.data_ptr() for x in (*hamiltonian.parameters(), *hamiltonian.buffers())}
    assert sum(x.numel() for x in saved if x.data_ptr() not in weights) == 2 * q.numel()

"""A reversible gradient evaluates the Hamiltonian twice: one that would not repeat itself is refused."""

import warnings

import pytest
import torch
from torch import nn

import symplectic_jepa as sj

D = 4


def states(*shape):
    return torch.randn(2, *shape, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def potential(*layers):
    return sj.PotentialHamiltonian(nn.Sequential(nn.Linear(D, 8), *layers, nn.Tanh(), nn.Linear(8, 1), nn.Flatten(-2)))


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Counting(nn.Module):
    """A buffer that is replaced, not changed in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return x * self.calls


class Forces(sj.hamiltonians.AbstractSeparable):
    """A force and a velocity as layers."""

    def __init__(self, force, velocity):
        super().__init__()
        self.layers = nn.ModuleList((force, velocity))

    def potential(self, q):
        raise NotImplementedError

    def force(self, q):
        return self.layers[0](q)

    def velocity(self, p):
        return self.layers[1](p)


def noise(x):
    return x + torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)


def attention(x):
    return nn.functional.scaled_dot_product_attention(x, x, x)


RANDOM, CHANGES = r"draws random numbers \(aten\.", "changes its tensors, such as the running statistics of BatchNorm"
MOVING = {
    "dropout": (lambda: potential(nn.Dropout(0.2)), RANDOM),
    "functional dropout": (lambda: potential(Apply(lambda x: nn.functional.dropout(x, 0.2))), RANDOM),
    "dropout in the velocity": (lambda: Forces(nn.Linear(D, D), nn.Dropout(0.2)), RANDOM),
    "a generator of its own": (lambda: potential(Apply(noise)), RANDOM),
    "batch norm": (lambda: potential(nn.BatchNorm1d(8)), CHANGES),
    "spectral norm": (lambda: potential(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))), CHANGES),
    "a replaced buffer": (lambda: potential(Counting()), CHANGES),
}
STILL = {  # the same, switched off
    "dropout in eval mode": lambda: potential(nn.Dropout(0.2)).eval(),
    "dropout of nothing": lambda: potential(nn.Dropout(0.0)),
    "batch norm in eval mode": lambda: potential(nn.BatchNorm1d(8)).eval(),
    "spectral norm in eval mode": lambda: potential(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))).eval(),
    "attention": lambda: Forces(Apply(attention), nn.Identity()),  # tagged as random even without dropout
    "random rectifier in eval mode": lambda: Forces(nn.RReLU(), nn.Identity()).eval(),
}


@pytest.mark.parametrize("name", MOVING)
def test_a_hamiltonian_that_would_not_repeat_itself_is_refused(name):
    make, what = MOVING[name]
    predictor = sj.HamiltonianPredictor(make().double(), gradient="reversible")
    z = sj.join_state(*states(6))  # needs no gradient, but the weights do
    with pytest.raises(RuntimeError, match=f"^gradient='reversible' evaluates .*{what}.*use gradient='stored'"):
        predictor(z)
    with torch.no_grad():
        assert predictor(z).shape == z.shape  # nothing is evaluated twice


@pytest.mark.parametrize("name", STILL)
def test_what_is_switched_off_is_exact(name):
    torch.manual_seed(0)
    hamiltonian, batch = STILL[name]().double(), () if "batch" in name else (1,)
    q, p = (x.requires_grad_() for x in states(*batch, 6))
    grads = []
    for mode in ("reversible", "stored"):
        end, _ = sj.leapfrog(hamiltonian, q, p, dt=0.1, steps=6, gradient=mode)
        grads.append(torch.autograd.grad(end.square().sum(), [q, p, *hamiltonian.parameters()], allow_unused=True))
    for reversible, stored in zip(*grads, strict=True):
        torch.testing.assert_close(reversible, stored, rtol=1e-9, atol=1e-12)


def test_compiled_code_around_it_is_refused_too():
    """It breaks the graph, so it still runs in eager mode."""
    hamiltonian, (q, p) = potential(nn.Dropout(0.2)).double(), states(6).requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q: sj.leapfrog(hamiltonian, 2 * q, p, dt=0.1, gradient="reversible")[0], backend="aot_eager"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.11 warns that it cannot trace this
        with pytest.raises(RuntimeError, match="draws random numbers"):
            compiled(q)
        hamiltonian.eval()
        (got,) = torch.autograd.grad(compiled(q).square().sum(), q)
    (wanted,) = torch.autograd.grad(sj.leapfrog(hamiltonian, 2 * q, p, dt=0.1)[0].square().sum(), q)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)

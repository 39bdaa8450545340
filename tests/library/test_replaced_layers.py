"""Layers that somebody has wrapped, hooked, parametrized or replaced: exact, or refused by name."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import symplectic_jepa as sj
from symplectic_jepa.hamiltonians import GeneralHamiltonian, Hamiltonian
from tests.helpers.systems import Well

D = 3


class LoRA(nn.Module):
    """``W x + B A x``, as LoRA libraries replace a layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class LoRALinear(nn.Linear):
    """The same as a subclass, whose own weight is the base's alone."""

    def __init__(self, base):
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return super().forward(x) + self.up(self.down(x))


def in_place(change):
    """``change(layer)``, which changes the layer itself."""

    def replace(layer):
        change(layer)
        return layer

    return replace


def patch(layer):
    layer.forward = lambda x: 0 * nn.Linear.forward(layer, x)


def quantized(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(layer.float()), {nn.Linear})[0]


CALLED = {
    "old spectral_norm": torch.nn.utils.spectral_norm,
    "old weight_norm": torch.nn.utils.weight_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    "LoRA": LoRA,
    "LoRA subclass": LoRALinear,
    "forward hook": in_place(lambda layer: layer.register_forward_hook(lambda m, x, y: 2 * y)),
    "forward pre-hook": in_place(lambda layer: layer.register_forward_pre_hook(lambda m, x: (2 * x[0],))),
    "backward hook": in_place(lambda layer: layer.register_full_backward_hook(lambda m, x, y: None)),
    "patched forward": in_place(patch),
}
PARAMETRIZED = {
    "spectral_norm": parametrizations.spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
}


def replace_layer(module, name, change):
    path, _, last = name.rpartition(".")
    parent = module.get_submodule(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old norms are deprecated, and in use
        parent._modules[last] = change(parent._modules[last]).to(torch.float64)
    return module


def separable():
    torch.manual_seed(0)
    return sj.SeparableHamiltonian(D, hidden_dim=4, residual_scale=1.0).double()


def general():
    torch.manual_seed(0)
    return GeneralHamiltonian(D, hidden_dim=4, residual_scale=1.0).double()


def states(*shape):
    return torch.randn(2, *shape, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["hidden.0", "hidden.1", "output"])
@pytest.mark.parametrize("kind", CALLED)
@pytest.mark.parametrize("make", [separable, general])
def test_what_works_through_forward_is_refused_by_name(make, kind, name):
    system, (q, p) = replace_layer(make(), name, CALLED[kind]), states(5)
    for call in (system, system.gradient):
        with pytest.raises(TypeError, match=rf"^{name} must be an nn.Linear without hooks.*got a .*(Lin|LoRA)"):
            call(q, p)


def test_a_quantized_layer_is_refused_by_name():
    system = separable()
    system.hidden[1] = quantized(system.hidden[1])
    with pytest.raises(TypeError, match=r"^hidden.1 must be an nn.Linear without hooks.*PotentialHamiltonian"):
        system.force(states(5)[0])


def test_a_refused_layer_is_refused_in_a_compiled_graph_and_in_an_export_too():
    predictor = sj.HamiltonianPredictor(replace_layer(separable(), "hidden.0", CALLED["forward hook"]))
    z = torch.cat((*states(5),), -1)
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"hidden.0 must be an nn.Linear"):
        torch.compile(predictor, fullgraph=True, backend="aot_eager")(z)
    with pytest.raises(Exception, match=r"hidden.0 must be an nn.Linear"):
        # strict: an error in the other mode leaves a hook behind in torch 2.11, and nothing compiles after it
        torch.export.export(predictor, (z,), strict=True)


@pytest.mark.parametrize("name", ["hidden.0", "hidden.1"])
@pytest.mark.parametrize("kind", PARAMETRIZED)
@pytest.mark.parametrize("make", [separable, general])
def test_a_parametrized_layer_is_the_layer_with_the_weight_it_computes(make, kind, name):
    system, plain, (q, p) = replace_layer(make(), name, PARAMETRIZED[kind]).eval(), make(), states(5)
    with torch.no_grad():  # what the parametrization starts from is not what it computes
        for x in system.get_submodule(name).parametrizations.parameters():
            x.mul_(1.3)
        layer = plain.get_submodule(name)
        layer.weight.copy_(system.get_submodule(name).weight)
        layer.bias.copy_(system.get_submodule(name).bias)
    torch.testing.assert_close(system(q, p), plain(q, p), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(system.gradient(q, p), plain.gradient(q, p), rtol=1e-14, atol=1e-14)
    leaves = [x.clone().requires_grad_() for x in (q, p)]
    expected = torch.autograd.grad(system(*leaves).sum(), leaves)
    torch.testing.assert_close(system.gradient(q, p), expected)
    loss = sum(x.square().sum() for x in system.gradient(q, p))
    loss.backward()
    assert all(x.grad is not None and x.grad.any() for x in system.get_submodule(name).parametrizations.parameters())


@pytest.mark.parametrize("kind", ["weight_norm", "orthogonal"])
def test_a_parametrization_without_moving_state_trains(kind):
    system = replace_layer(separable(), "hidden.0", PARAMETRIZED[kind])
    q, _ = states(5)
    leaf = q.clone().requires_grad_()
    torch.testing.assert_close(-system.force(q), torch.autograd.grad(system.potential(leaf).sum(), leaf)[0])


def test_spectral_norm_that_iterates_at_every_read_is_refused_until_it_is_frozen():
    system, (q, p) = replace_layer(separable(), "hidden.0", parametrizations.spectral_norm), states(5)
    assert system.training
    for call in (system.force, system.potential):
        with pytest.raises(ValueError, match=r"^hidden.0 must have the same weight.*layer.parametrizations.eval\(\)"):
            call(q)
    torch._dynamo.reset()
    compiled = torch.compile(system, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match=r"hidden.0 must have the same weight"):
        compiled(q, p)
    frozen = system.hidden[0].parametrizations
    before = copy.deepcopy(frozen.state_dict())
    frozen.eval()
    z = torch.cat((q, p), -1)
    for gradient in ("stored", "reversible"):
        predictor = sj.HamiltonianPredictor(system, steps=5, gradient=gradient)
        torch.testing.assert_close(predictor(predictor(z), direction=-1), z, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(compiled(q, p), system(q, p))
    assert all(torch.equal(x, before[name]) for name, x in frozen.state_dict().items())


def test_a_parametrized_predictor_compiles_whole_and_can_be_exported():
    system = replace_layer(separable(), "hidden.0", parametrizations.weight_norm)
    predictor, z = sj.HamiltonianPredictor(system), torch.cat((*states(5),), -1)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(predictor, fullgraph=True, backend="aot_eager")(z), predictor(z))
    torch.testing.assert_close(torch.export.export(predictor, (z,)).module()(z), predictor(z))


# Where the layers are called, all of this works


@pytest.mark.parametrize("kind", [*CALLED, *PARAMETRIZED])
def test_the_residual_mlp_calls_its_layers(kind):
    torch.manual_seed(0)
    predictor = sj.ResidualMLPPredictor(D, hidden_dim=4, dt=0.5, steps=1).double()
    replace_layer(predictor, "residual.0", {**CALLED, **PARAMETRIZED}[kind]).eval()
    z = torch.cat((*states(5),), -1)
    expected = z
    residual = predictor.residual
    torch.testing.assert_close(predictor(z), expected + 0.5 * residual(z))
    assert torch.equal(predictor.float()(z.float()), z.float() + 0.5 * residual(z.float()))


def test_the_residual_mlp_calls_its_layers_where_it_casts_the_weights_too():
    predictor = replace_layer(sj.ResidualMLPPredictor(D, hidden_dim=4), "residual.0", CALLED["forward hook"]).float()
    exact = copy.deepcopy(predictor).double()
    z = torch.cat((*states(5),), -1)
    assert torch.equal(predictor(z), exact(z))
    assert (predictor(z) - sj.ResidualMLPPredictor(D, hidden_dim=4)(z)).abs().max() > 1e-3


class Doubled(Hamiltonian):
    """An energy whose hook doubles it."""

    def __init__(self):
        super().__init__()
        self.register_forward_hook(lambda module, states, energy: 2 * energy)

    def forward(self, q, p):
        return 0.5 * (q.square() + p.square()).sum(-1)


def test_hooks_on_a_users_own_energy_and_potential_count_in_the_gradient():
    q, p = states(5)
    torch.testing.assert_close(Doubled().gradient(q, p), (2 * q, 2 * p))
    wells = Well().double()
    wells.register_forward_hook(lambda module, states, energy: 2 * energy)
    torch.testing.assert_close(sj.PotentialHamiltonian(wells).force(q), 2 * wells.depth * q.sin())

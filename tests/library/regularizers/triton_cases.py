"""The Triton kernels without a GPU, in a process of their own: see ``test_kernels`` in test_characteristic.py."""

import os
import warnings

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from symplectic_jepa.regularizers import characteristic, characteristic_triton
from tests.helpers.characteristic import SPACING, agree, compiles_whole, each, value_and_gradient

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreter = pytest.mark.skipif(not INTERPRETED, reason="for Triton's interpreter")
compiler = pytest.mark.skipif(INTERPRETED, reason="for Triton's compiler")


@pytest.fixture
def kernels_everywhere(monkeypatch):
    """The CUDA path, autograd and operators and all, on CPU tensors, which the interpreter takes."""
    monkeypatch.setattr(characteristic, "torch_sums", characteristic.fused_sums)
    monkeypatch.setattr(characteristic, "torch_gradient", characteristic.fused_gradient)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert characteristic._kernels() is characteristic_triton


@interpreter
@each
def test_sums_and_gradient_equal_the_textbook(kernels_everywhere, shape, knots, dtype):
    y = 3 * torch.randn(shape, dtype=torch.float64)
    agree(characteristic.characteristic_sums, y, knots, dtype)


@interpreter
def test_layout_does_not_matter(kernels_everywhere):
    y = torch.randn(2, 9, 50)
    torch.testing.assert_close(
        value_and_gradient(characteristic.characteristic_sums, y.mT.contiguous().mT, SPACING, 5),
        value_and_gradient(characteristic.characteristic_sums, y, SPACING, 5),
    )


@interpreter
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_one_graph_with_the_same_gradient(kernels_everywhere, backend):
    compiles_whole(characteristic.characteristic_sums, torch.randn(2, 70, 6), backend=backend)


def key(kernel, argument):
    """What Triton calls an argument; up to 3.2, which came with torch 2.6, its name."""
    by_name = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3)
    return argument if by_name else (kernel.arg_names.index(argument),)


@compiler
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["sums_kernel", "gradient_kernel"])
def test_it_compiles_for_a_gpu(name, dtype, capability):
    """To machine code, as the launcher would ask for it; in float64 no constant passes through float32."""
    kernel = getattr(characteristic_triton, name)
    *_, options = characteristic_triton.launch(torch.empty(100, 33, dtype=dtype))
    warps = options.pop("num_warps")
    constants = {"SPACING": 0.1, "KNOTS": 17, **options}
    pointer = {torch.float32: "*fp32", torch.float64: "*fp64"}[dtype]
    kinds = {**dict.fromkeys(("n", "m", "blocks"), "i32"), **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(
        kernel,
        {argument: kinds.get(argument, pointer) for argument in kernel.arg_names},
        {key(kernel, argument): value for argument, value in constants.items()},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    assert compiled.asm["cubin"]
    if dtype == torch.float64:
        assert "f32" not in compiled.asm["ttir"]

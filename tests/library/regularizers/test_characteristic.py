"""The characteristic-function sums against every cosine written out, in torch and in the Triton kernels."""

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from symplectic_jepa import SIGReg
from symplectic_jepa.regularizers import characteristic
from symplectic_jepa.regularizers.characteristic import characteristic_sums
from tests.helpers.characteristic import SPACING, agree, compiles_whole, each, textbook, value_and_gradient
from tests.helpers.paths import ROOT

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@each
def test_sums_and_gradient_equal_the_textbook(shape, knots, dtype):
    agree(characteristic_sums, 3 * torch.randn(shape, dtype=torch.float64), knots, dtype)


def test_gradient_equals_finite_differences():
    y = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: characteristic_sums(y, SPACING, 5), (y,))


def test_columns_may_be_taken_in_parts_and_rows_apart(monkeypatch):
    """Cut into parts or laid out otherwise, the columns have the same sums."""
    y = torch.randn(2, 9, 50)
    whole = value_and_gradient(characteristic_sums, y, SPACING, 5)
    transposed = value_and_gradient(characteristic_sums, y.mT.contiguous().mT, SPACING, 5)
    monkeypatch.setattr(characteristic, "CACHED", 1)
    for got in (transposed, value_and_gradient(characteristic_sums, y, SPACING, 5)):
        torch.testing.assert_close(got, whole)


def test_no_tensor_per_knot_is_saved():
    """Only ``y`` itself lives until the backward pass."""
    y, saved = torch.randn(20, 300, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        characteristic_sums(y, SPACING, 17)
    assert {t.untyped_storage().data_ptr() for t in saved} == {y.untyped_storage().data_ptr()}


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_one_graph_with_the_same_gradient(backend):
    compiles_whole(characteristic_sums, torch.randn(2, 40, 6), backend=backend)


def test_shapes_are_known_on_a_device_that_is_not_there():
    """The operators in a graph of fake CUDA tensors: no data, no Triton, no synchronisation with the host."""
    with FakeTensorMode():
        y = torch.empty(2, 40, 6, device="cuda", dtype=torch.float64)
        for part in characteristic_sums(y, SPACING, 5):
            assert (part.shape, part.dtype, part.device.type) == ((2, 5, 6), torch.float64, "cuda")
        assert characteristic.fused_gradient(y, torch.empty(2, 2, 5, 6, device="cuda"), SPACING).shape == y.shape


@pytest.fixture
def without_triton(monkeypatch):
    package, module = "symplectic_jepa.regularizers", "characteristic_triton"
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, f"{package}.{module}", raising=False)
    monkeypatch.delattr(f"{package}.{module}", raising=False)
    characteristic._kernels.cache_clear()
    yield
    characteristic._kernels.cache_clear()


def test_without_triton_the_operators_say_so_once_and_compute_in_torch(without_triton):
    y, grad = torch.randn(2, 9, 4, dtype=torch.float64), torch.randn(2, 2, 5, 4, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"without its fused CUDA kernels, in plain torch: .*triton"):
        sums = characteristic.fused_sums(y, SPACING, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(characteristic.fused_sums(y, SPACING, 5), sums)
        gradient = characteristic.fused_gradient(y, grad, SPACING)
    torch.testing.assert_close(sums, torch.stack(textbook(y, SPACING, 5), -3))
    torch.testing.assert_close(gradient, characteristic.torch_gradient(y, grad, SPACING))


@pytest.mark.filterwarnings("ignore:SIGReg runs without")
def test_operators_keep_torch_library_s_rules(without_triton):
    """Schema, fake shapes and strides, and tracing, as ``torch.library.opcheck`` tests them."""
    y, grad = torch.randn(2, 4, 9).mT, torch.randn(2, 2, 5, 4)
    torch.library.opcheck(characteristic.fused_sums, (y, SPACING, 5))
    torch.library.opcheck(characteristic.fused_gradient, (y, grad, SPACING))


def test_the_cpu_path_is_silent_and_does_without_triton(without_triton):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SIGReg(slices=4)(torch.randn(9, 3, requires_grad=True)).backward()


def test_bad_arguments_are_named():
    y = torch.randn(4, 3)
    for arguments, error, message in (
        ((y.half(), SPACING, 5), TypeError, "y must be float32 or float64, got torch.float16"),
        ((y[0], SPACING, 5), ValueError, r"y must have shape .*, got \(3,\)"),
        ((y, SPACING, 0), ValueError, "knots must be an int >= 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            characteristic_sums(*arguments)


# The kernels. Triton chooses its interpreter when a kernel is defined, so that takes a process of its own.


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("interpreted", [True, False], ids=["interpreter", "compiler"])
def test_kernels(interpreted, tmp_path):
    """Run ``triton_cases.py``: the kernels' arithmetic interpreted, and their compilation for GPUs, none needed."""
    environment = {**os.environ, "TRITON_INTERPRET": str(int(interpreted)), "TRITON_CACHE_DIR": str(tmp_path)}
    cases = Path(__file__).with_name("triton_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 0, run.stdout[-4000:]
    assert "passed" in run.stdout


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnCUDA:
    @each
    def test_sums_and_gradient_equal_the_textbook(self, shape, knots, dtype):
        agree(characteristic_sums, 3 * torch.randn(shape, dtype=torch.float64, device="cuda"), knots, dtype)

    def test_every_run_gives_the_same_bits(self):
        y = torch.randn(2, 512, 1024, device="cuda")
        runs = [value_and_gradient(characteristic_sums, y, SPACING, 17) for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))

    def test_one_graph_with_the_same_gradient(self):
        compiles_whole(characteristic_sums, torch.randn(2, 300, 65, device="cuda"), knots=17)

    def test_a_captured_graph_replays_both_passes(self):
        y = torch.randn(2, 300, 65, device="cuda", requires_grad=True)

        def step():
            cos, sin = characteristic_sums(y, SPACING, 17)
            return torch.autograd.grad(cos.square().sum() + sin.sum(), y)[0]

        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            step()  # compiles
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = step()
        with torch.no_grad():
            y.copy_(torch.randn_like(y))
        graph.replay()
        torch.testing.assert_close(got, step())

    def test_memory_is_a_few_tensors_of_samples(self):
        y = torch.randn(4096, 1024, device="cuda", requires_grad=True)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        cos, sin = characteristic_sums(y, SPACING, 17)
        (cos.sum() + sin.sum()).backward()
        assert torch.cuda.max_memory_allocated() - before < 3 * y.numel() * y.element_size()

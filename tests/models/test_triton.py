"""The backend `triton` without a GPU: its kernels in Triton's interpreter, where it is refused, what it never does."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models.errors import ModelError
from models.layers.sparse import backends, triton_backend
from models.layers.sparse.sparse_map import SparseMap
from models.layers.sparse.submanifold import SubmanifoldConv2d
from models.layers.sparse.triton_backend import check_triton, triton_is_usable
from models.layers.vgg import DenseMap, SparseStage

ROOT = Path(__file__).parents[2]
# torch for Linux brings it; elsewhere the backend cannot be asked for, which test_backends.py checks.
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: torch has none here")
# How Triton writes the types of a kernel's arguments.
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int16: "*i16"}
POINTERS |= {torch.int32: "*i32", torch.int64: "*i64", torch.bool: "*i1", torch.int8: "*i8"}
NUMBERS = {int: "i32", float: "fp32"}


@needs_triton
@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "tests/models/interpreted").glob("test_*.py")))
def test_kernels_in_the_interpreter(file):
    command = [sys.executable, "-m", "pytest", f"tests/models/interpreted/{file}", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_a_cpu_is_refused_with_the_way_out(monkeypatch):
    x = SparseMap.from_dense(torch.ones(1, 2, 3, 3))
    stage = SparseStage(2, 3, 4, 0.5, "none", "triton")
    found = "model is on cpu: its kernels run on CUDA; use backend=auto"
    expected = found if find_spec("triton") else "triton is not installed"
    for attempt in (lambda: SubmanifoldConv2d(2, 2, "triton")(x), lambda: stage(DenseMap(x.dense()), torch.ones(1, 4))):
        with pytest.raises(ModelError, match=expected):
            attempt()
    monkeypatch.setattr(triton_backend, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="triton is not installed; it comes with torch for CUDA on Linux"):
        check_triton(torch.device("cuda"), torch.float32)


@needs_triton
def test_types_that_the_kernels_do_not_know_and_a_lacking_compiler_are_refused(monkeypatch):
    with pytest.raises(ModelError, match="float64: its kernels know float32, bfloat16 and float16"):
        check_triton(torch.device("cuda"), torch.float64)
    monkeypatch.setattr(triton_backend.shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match="needs a C compiler"):
        check_triton(torch.device("cuda"), torch.float32)
    triton_is_usable.cache_clear()
    assert not triton_is_usable()
    triton_is_usable.cache_clear()


def test_auto_goes_on_without_a_triton_that_cannot_be_imported(monkeypatch):
    monkeypatch.setattr(triton_backend, "find_spec", lambda name: True)
    monkeypatch.setattr(triton_backend.shutil, "which", lambda name: "/usr/bin/cc")
    for name in ("triton", "models.triton_kernels.launch"):
        monkeypatch.setitem(sys.modules, name, None)
    triton_is_usable.cache_clear()
    try:
        with pytest.warns(UserWarning, match="triton is not used: .*cannot be imported"):
            assert not triton_is_usable()
    finally:
        triton_is_usable.cache_clear()


@pytest.mark.parametrize("usable", [True, False])
def test_auto_computes_a_stage_as_a_whole_on_cuda_alone(monkeypatch, usable):
    monkeypatch.setattr(backends, "triton_is_usable", lambda: usable)
    assert not backends.computes_masked("auto", torch.ones(1, 2))
    with FakeTensorMode():
        on_gpu = {dtype: torch.ones(1, 2, dtype=dtype, device="cuda") for dtype in (torch.bfloat16, torch.float64)}
    assert backends.computes_masked("auto", on_gpu[torch.bfloat16]) is usable
    assert not backends.computes_masked("auto", on_gpu[torch.float64])
    assert not backends.computes_masked("dense", on_gpu[torch.bfloat16])


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_every_kernel_of_a_stage_compiles_for_a_gpu(monkeypatch, tmp_path, dtype, capability):
    """Triton needs no GPU to compile for one; the types that an interpreter overlooks are checked there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    compiled = {}

    def compile_only(kernel, *given, grid, warmup, **constants):
        options = {name: constants.pop(name) for name in ("num_warps", "num_stages") if name in constants}
        signature = dict.fromkeys(constants, "constexpr")
        for name, value in zip(kernel.arg_names, given, strict=False):
            signature[name] = POINTERS[value.dtype] if isinstance(value, torch.Tensor) else NUMBERS[type(value)]
        source = ASTSource(kernel, {name: signature[name] for name in kernel.arg_names}, constants)
        target = GPUTarget("cuda", capability, 32)
        compiled[kernel.__name__] = triton.compile(source, target=target, options=options)

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.JITFunction, "run", compile_only)
    monkeypatch.setattr(backends, "check_triton", lambda *_: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    stage = SparseStage(16, 32, 7, 0.5, "straight_through", "triton")
    maps = torch.randn(1, 16, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = stage(DenseMap(maps.to(dtype)), torch.randn(1, 7))
    found.map.dense().sum().backward()
    assert len(compiled) == 10
    assert all("cubin" in kernel.asm for kernel in compiled.values())

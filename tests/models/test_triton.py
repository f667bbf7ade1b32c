"""The backend `triton` without a GPU: its kernels in Triton's interpreter, where it is refused, what it never does."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.nn.functional import binary_cross_entropy_with_logits as multi_label_loss

import models
from data_tools.batch import Batch
from models.errors import ModelError
from models.layers.sequence import SequenceEncoder
from models.layers.sparse import backends, triton_backend
from models.layers.sparse.attention import AttentionGradient
from models.layers.sparse.sparse_map import SparseMap
from models.layers.sparse.submanifold import SubmanifoldConv2d
from models.layers.sparse.triton_backend import check_triton, triton_is_usable
from models.layers.text import _WHOLE_MASK
from models.layers.vgg import DenseMap, SparseStage

ROOT = Path(__file__).parents[2]
# torch for Linux brings it; elsewhere the backend cannot be asked for, which test_backends.py checks.
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: torch has none here")
# How Triton writes the types of a kernel's arguments.
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int16: "*i16"}
POINTERS |= {torch.int32: "*i32", torch.int64: "*i64", torch.bool: "*i1", torch.int8: "*i8"}
NUMBERS = {int: "i32", float: "fp32"}


@needs_triton
@pytest.mark.timeout(1200)  # half a minute of one core, and of a shared one ten times that
@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "tests/models/interpreted").glob("test_*.py")))
def test_kernels_in_the_interpreter(file):
    run_interpreted(file, "not slow and not gpu")


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_stage_compiles_in_the_interpreter():
    run_interpreted("test_stage.py", "slow")


def run_interpreted(file, marked):
    command = [
        sys.executable,
        "-m",
        "pytest",
        f"tests/models/interpreted/{file}",
        "-m",
        marked,
        "-p",
        "no:cacheprovider",
    ]
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
@pytest.mark.timeout(1200)
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


def fake_batch(faces, chunks, **others):
    """A batch of tensors without values on a GPU that is not there."""
    counts = {"face_counts": torch.tensor(faces, device="cuda"), "chunk_counts": torch.tensor(chunks, device="cuda")}
    return Batch(
        faces=torch.zeros(sum(faces), 3, 48, 48, dtype=torch.uint8, device="cuda"),
        chunks=torch.zeros(sum(chunks), 1, 128, 32, device="cuda"),
        tokens=torch.zeros(len(faces), 6, dtype=torch.int64, device="cuda"),
        token_mask=torch.ones(len(faces), 6, dtype=torch.bool, device="cuda"),
        labels=torch.zeros(len(faces), 6, device="cuda"),
        sentiment=torch.zeros(len(faces), device="cuda"),
        ids=tuple(map(str, range(len(faces)))),
        **counts,
        **others,
    )


def on_fake_gpu(model):
    """`model` with parameters and buffers without values, on a GPU that is not there."""
    for module in model.modules():
        for values in (module._parameters, module._buffers):
            for name, value in values.items():
                if value is not None:
                    empty = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                    values[name] = torch.nn.Parameter(empty) if values is module._parameters else empty
    return model


@needs_triton
@pytest.mark.parametrize(
    ("name", "settings", "training"),
    [("fe2e", {}, True), ("mesm", {"backend": "triton", "attention_gradient": "soft"}, False)]
    + [("mesm", {"backend": "triton", "attention_gradient": g}, True) for g in get_args(AttentionGradient)],
)
def test_on_a_gpu_nothing_is_waited_for_between_the_batch_and_the_loss(name, settings, training):
    """With tensors that have no values, whatever needs one fails: `.item()`, `nonzero`, a mask as an index."""
    model = models.build(name, text_encoder="tiny", width=4, layers=1, **settings).train(training)
    with FakeTensorMode():
        on_fake_gpu(model)
        batch = fake_batch((2, 0, 3), (1, 4, 0), longest={"faces": 3, "chunks": 4})
        output = model(batch)
        loss = multi_label_loss(output.logits, batch.labels) + sum(output.losses.values())
        assert loss.device.type == "cuda"
        if name == "fe2e":  # where nobody said how many there are, the device is asked
            with pytest.raises(DataDependentOutputException):
                model(fake_batch((2, 0, 3), (1, 4, 0)))


def test_backends_on_compact_rows_do_wait_on_a_gpu():
    stage = SparseStage(3, 4, 5, 0.5, "none", "dense")
    with FakeTensorMode(), pytest.raises(DynamicOutputShapeException):
        on_fake_gpu(stage)(DenseMap(torch.ones(2, 3, 4, 4, device="cuda")), torch.ones(2, 5, device="cuda"))


def test_a_batch_that_goes_to_a_gpu_takes_its_longest_sequences_along(make_batch):
    batch = make_batch(faces=(3, 0, 2), chunks=(2, 4, 0))
    assert batch.to("cpu").longest == {}
    assert batch.to("meta").longest == {"faces": 3, "chunks": 4}


@pytest.mark.parametrize("longest", [4, 7])
def test_padding_to_more_than_the_longest_changes_no_state(longest):
    torch.manual_seed(0)
    encoder = SequenceEncoder(8, 2, 2, 0.0).eval()
    frames, counts = torch.randn(6, 8), torch.tensor([4, 0, 2])
    with torch.no_grad():
        torch.testing.assert_close(encoder(frames, counts, longest)[0], encoder(frames, counts)[0])


@pytest.mark.parametrize("kind", sorted(_WHOLE_MASK))
def test_a_whole_mask_gives_the_states_of_a_mask_of_tokens(kind):
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes |= {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 8, "embedding_size": 8, "vocab_size": 60}
    encoder = AutoModel.from_config(AutoConfig.for_model(kind, **sizes), trust_remote_code=False).eval()
    encoder.set_attn_implementation("sdpa")
    tokens, mask = torch.randint(3, 60, (3, 7)), torch.arange(7) < torch.tensor([[7], [3], [1]])
    with torch.no_grad():
        states = [
            encoder(input_ids=tokens, attention_mask=given).last_hidden_state
            for given in (mask.long(), mask[:, None, None, :].expand(-1, 1, 7, -1))
        ]
    assert torch.equal(*states)

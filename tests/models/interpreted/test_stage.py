"""A sparse stage and MESM by the backend `triton` in the interpreter, beside plain torch on compact rows."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.layers.sparse.attention import CrossModalAttention
from models.layers.sparse.masked import MaskedMap
from models.layers.vgg import DenseMap, SparseStage
from models.triton_kernels.launch import TILES

# Operators whose result is a number of Python's, or whose shape depends on the data: on a GPU each is a wait.
WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "item",
    "equal",
}


class Waits(TorchDispatchMode):
    """Counts operators that would make the program wait for a GPU, indexing by a mask among them."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split("::")[1].split(".")[0]
        masks = name in {"index", "index_put", "index_put_"} and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        counts = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        # What a kernel reads in the interpreter is no operator of torch's.
        if name in WAITS or masks or counts:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def run_stages(backend, gradient, training, precision=None, p=0.6):
    """Two stages, one behind the other: results, gradients and buffers."""
    torch.manual_seed(0)
    stages = [SparseStage(3, 5, 7, p, gradient, backend), SparseStage(5, 6, 7, p, gradient, backend)]
    for stage in stages:
        stage.train(training)
        stage.attention.score.weight.data.mul_(3)
    maps = torch.randn(2, 3, 6, 4, requires_grad=True)
    query = torch.randn(2, 7, requires_grad=True)
    waits = Waits()
    with waits, torch.autocast("cpu", precision) if precision else nullcontext():
        first = stages[0](DenseMap(maps), query)
        second = stages[1](first.map, query)
        loss = second.map.dense().float().square().sum() + sum(
            stage.kept_share.sum() for stage in (first, second) if stage.kept_share is not None
        )
        loss.backward()
    results = [first.kept.float(), second.kept.float(), second.map.dense(), maps.grad]
    results += [torch.tensor([float(first.active), float(second.active), float(second.map.macs)])]
    results += [parameter.grad for stage in stages for parameter in stage.parameters()]
    results += [query.grad] + [buffer for stage in stages for buffer in stage.buffers()]
    return results, waits.found


@pytest.mark.parametrize(
    ("gradient", "training"),
    [
        ("straight_through", True),
        ("budget", True),
        ("soft", False),
        pytest.param("none", True, marks=pytest.mark.slow),
        pytest.param("soft", True, marks=pytest.mark.slow),
    ],
)
def test_stages_give_the_results_and_gradients_of_plain_torch_and_wait_for_nothing(gradient, training):
    expected, waits = run_stages("torch", gradient, training)
    assert waits.count("nonzero") > 4  # they are seen where there are some
    found, waits = run_stages("triton", gradient, training)
    assert waits == []
    for value, reference in zip(found, expected, strict=True):
        assert (value is None) is (reference is None)
        if value is not None:
            assert value.dtype == reference.dtype
            torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_a_stage_is_close_to_float32():
    # p 1: a rounding that tips one site over the edge of top-p would change all that follows.
    expected, _ = run_stages("torch", "straight_through", True, p=1.0)
    found, _ = run_stages("triton", "straight_through", True, torch.bfloat16, p=1.0)
    for value, reference in zip(found, expected, strict=True):
        if value is not None:
            assert (value - reference).abs().max() <= 0.1 * max(reference.abs().max(), 1)


def test_no_images_keep_the_graph():
    stage = SparseStage(3, 5, 7, 0.5, "straight_through", "triton")
    maps, query = torch.zeros(0, 3, 6, 4, requires_grad=True), torch.zeros(0, 7, requires_grad=True)
    found = stage(DenseMap(maps), query)
    assert found.map.dense().shape == (0, 5, 3, 2)
    assert float(found.active) == float(found.map.macs) == 0
    found.map.dense().sum().backward()
    assert maps.grad.shape == maps.shape
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in stage.block.parameters())
    assert not stage.block.norm1.num_batches_tracked


def test_mesm_that_keeps_every_site_is_fe2e(build_small, make_batch, monkeypatch):
    # Fewer programs: the maps are of real size.
    for name, size in {"rows": 256, "outputs": 64, "channels": 64, "cells": 1 << 16}.items():
        monkeypatch.setattr(TILES, name, size)
    batch = make_batch(faces=(1,), chunks=(0,))
    settings = {"width": 4, "layers": 1, "dropout": 0.0, "modalities": "v"}
    dense = build_small("fe2e", **settings)
    sparse = build_small("mesm", **settings, top_p=1.0, backend="triton")
    sparse.load_state_dict(dense.state_dict(), strict=False)
    outputs = [model(batch) for model in (dense, sparse)]
    torch.testing.assert_close(outputs[1].logits, outputs[0].logits, rtol=1e-4, atol=1e-5)
    for output in outputs:
        output.logits.square().sum().backward()
    grads = dict(sparse.named_parameters())
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(grads[name].grad, parameter.grad, rtol=1e-3, atol=1e-4)
    assert outputs[1].computed["face.share.3"] == 1


def test_attention_counts_what_it_multiplies_at_all_sites():
    attention = CrossModalAttention(3, 7, 0.5, "none")
    assert attention.multiply_adds(48, 2) == 48 * (9 + 3) + 2 * 21
    assert MaskedMap.from_dense(torch.ones(2, 3, 6, 4)).active.all()


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["straight_through", "soft", "budget"])
def test_a_stage_is_compiled_as_one_graph_of_any_size(gradient, monkeypatch):
    for name, size in {"rows": 256, "outputs": 64, "channels": 64, "cells": 1 << 16}.items():
        monkeypatch.setattr(TILES, name, size)
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        stage = SparseStage(3, 5, 7, 0.5, gradient, "triton")

        def run(maps, query, stage=stage):
            found = stage(DenseMap(maps), query)
            return found.map.dense(), found.active

        if compiled:
            run = torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=True)
        maps, query = torch.randn(2, 3, 6, 4, requires_grad=True), torch.randn(2, 7, requires_grad=True)
        made, active = run(maps, query)
        made.square().sum().backward()
        parameters = [value.grad for value in stage.parameters() if value.grad is not None]
        results.append([made, active, maps.grad, query.grad, *parameters, *stage.buffers()])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

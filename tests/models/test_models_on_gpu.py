"""Laws that every model holds on a GPU too; `make gpu-test` runs these."""

from typing import get_args

import pytest
import torch
from reference import masked_convolution

import models
from models.layers.sparse.backends import BackendName, convolve
from models.layers.sparse.sparse_map import SparseMap

# Share of the largest value by which results may differ: bfloat16 keeps 8 bits, float16 11, of up to nine sums.
ROUNDING = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
WITHOUT_BFLOAT16 = ("spconv",)
# All but the kernels in C, which refuse a GPU.
BACKENDS = tuple(name for name in get_args(BackendName) if name != "native")
TOWERS = ("fe2e", "mesm")
FUSION = tuple(name for name in models.REGISTRY if name not in TOWERS)

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _exact_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def active_maps(shape, density):
    generator = torch.Generator().manual_seed(7)
    if density == "one":
        active = torch.zeros(shape, dtype=torch.bool)
        active[0, shape[1] // 2, shape[2] - 1] = True
    elif density == "all but one":
        active = torch.ones(shape, dtype=torch.bool)
        active[-1, 0, 0] = False
    else:
        active = torch.rand(shape, generator=generator) < density
    return active


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 7, 5), (33, 24, 24)], ids=str)
@pytest.mark.parametrize("density", [0.1, 0.5, 0.9, "one", "all but one"])
def test_every_backend_agrees_with_the_masked_convolution_forward_and_backward(shape, density, backend, dtype):
    if backend in WITHOUT_BFLOAT16 and dtype == torch.bfloat16:
        dtype = torch.float16
    generator = torch.Generator().manual_seed(1)
    active = active_maps(shape, density).cuda()
    dense = torch.randn(shape[0], 16, *shape[1:], generator=generator).to(dtype).float().cuda().requires_grad_()
    weight = torch.randn(24, 16, 3, 3, generator=generator).to(dtype).float().cuda().requires_grad_()
    cotangent = torch.randn(shape[0], 24, *shape[1:], generator=generator).cuda()
    expected = masked_convolution(dense, weight, active)
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    sparse = SparseMap.from_dense(dense, active)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        rows, _ = convolve(sparse.features, weight, sparse.sites, backend)
    found = SparseMap(rows.float(), sparse.sites).dense()
    grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))
    for value, reference in zip((found, *grads), (expected, *expected_grads), strict=True):
        assert (value - reference).abs().max() <= ROUNDING[dtype] * reference.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", TOWERS)
def test_a_step_of_the_end_to_end_models_in_half_precision(name, dtype, build_small, make_batch):
    _step_moves_all_that_can_learn(build_small(name).cuda(), make_batch(), dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", FUSION)
def test_a_step_of_the_fusion_models_in_half_precision(name, dtype, build_fusion, make_features, build_for):
    model, batch = build_for(name, build_fusion, make_features)
    _step_moves_all_that_can_learn(model.cuda(), batch, dtype)


@pytest.fixture
def build_for(make_batch):
    """A model with the input that it reads: features, or texts as well."""

    def build(name, build_fusion, make_features):
        config, _ = models.REGISTRY[name]
        sizes = {"text_dim": 6, "audio_dim": 4, "vision_dim": 5}
        if set(sizes) <= set(config.model_fields):
            return build_fusion(name), make_features()
        torch.manual_seed(0)
        return models.build(name, text_encoder="tiny"), make_batch()

    return build


def _step_moves_all_that_can_learn(model, batch, dtype):
    batch = batch.to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16, init_scale=128.0)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    with torch.autocast("cuda", dtype):
        output = model(batch)
    loss = output.logits.float().square().mean() + sum(output.losses.values())
    assert torch.isfinite(loss)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert all(torch.isfinite(grad).all() for grad in gradients.values())
    moved = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) > 0.5 * len(gradients)


@pytest.mark.parametrize("name", TOWERS)
def test_a_gpu_gives_the_answer_and_the_gradients_of_a_cpu(name, build_small, make_batch):
    # p 1: a rounding that tips one site over the edge of top-p would change all that follows.
    settings = {"top_p": 1.0} if name == "mesm" else {}
    model, batch = build_small(name, dropout=0.0, **settings).eval(), make_batch()
    model(batch).logits.sum().backward()
    expected = model(batch).logits
    grads = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    model.zero_grad(set_to_none=True)
    model.cuda()
    found = model(batch.to("cuda")).logits
    found.sum().backward()
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
    for key, value in model.named_parameters():
        if value.grad is not None:
            size = grads[key].abs().max()
            assert (value.grad.cpu() - grads[key]).abs().max() <= 1e-3 * size + 1e-6, key


def test_compiled_fe2e_gives_the_same_answer(build_small, make_batch):
    model, batch = build_small("fe2e").eval().cuda(), make_batch().to("cuda")
    with torch.no_grad():
        expected = model(batch).logits
        found = torch.compile(model)(batch).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

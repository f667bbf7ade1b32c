"""Submanifold convolution and sparse pool against the dense masked reference, forward and backward."""

import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import masked_convolution, masked_max_pool
from torch.nn import functional as F

from models.errors import ModelError
from models.layers.sparse import backends, native_convolution, spconv_backend
from models.layers.sparse.backends import convolve
from models.layers.sparse.native_convolution import _neighbours, native_is_supported
from models.layers.sparse.sparse_map import Sites, SparseMap
from models.layers.sparse.spconv_backend import SpconvConvolution
from models.layers.sparse.submanifold import SparseMaxPool2d, SubmanifoldConv2d

ANYWHERE = ["torch", "dense", "auto"]
BACKENDS = [*ANYWHERE, "native"]


def _maps(images, height, width, density, seed):
    generator = torch.Generator().manual_seed(seed)
    if density == "one":
        active = torch.zeros(images, height, width, dtype=torch.bool)
        active[images // 2, height // 2, width - 1] = True
    elif density == "all but one":
        active = torch.ones(images, height, width, dtype=torch.bool)
        active[0, 0, 0] = False
    else:
        active = torch.rand(images, height, width, generator=generator) < density
    return active, generator


def _refused(backend, dtype):
    """Return True if this processor has no kernel for it; then check that this is said."""
    if backend != "native" or native_is_supported(torch.device("cpu"), dtype):
        return False
    with pytest.raises(ModelError, match="use backend=auto or torch"):
        convolve(torch.ones(1, 1, dtype=dtype), torch.ones(1, 1, 3, 3), Sites(torch.ones(1, 1, 1).bool()), backend)
    return True


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("images", "height", "width", "density"),
    [
        (1, 6, 6, 0.4),
        (3, 7, 5, 0.5),
        (17, 4, 9, 0.1),
        (2, 1, 1, 1.0),
        (2, 1, 8, 0.7),
        (4, 6, 6, 1.0),
        (3, 5, 5, "one"),
        (3, 5, 5, "all but one"),
    ],
)
def test_every_backend_is_the_dense_convolution_of_the_zero_filled_map(backend, images, height, width, density):
    if _refused(backend, torch.float32):
        return
    active, generator = _maps(images, height, width, density, seed=images)
    dense = torch.randn(images, 6, height, width, generator=generator, requires_grad=True)
    weight = torch.randn(10, 6, 3, 3, generator=generator).to(memory_format=torch.channels_last).requires_grad_()
    cotangent = torch.randn(images, 10, height, width, generator=generator)

    expected = masked_convolution(dense, weight, active)
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    sparse = SparseMap.from_dense(dense, active)
    rows, macs = convolve(sparse.features, weight, sparse.sites, backend)
    found = SparseMap(rows, sparse.sites).dense()
    grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-4)
    assert 0 < macs <= 9 * 6 * 10 * active.numel()


@pytest.mark.usefixtures("bfloat16_kernels")
@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_is_close_whatever_the_number_of_pairs(backend):
    if _refused(backend, torch.bfloat16):
        return
    # 300 to 3,000 pairs a kernel element: none a round number, so each product has rows added to it.
    active, generator = _maps(25, 12, 14, 0.6, seed=9)
    dense = torch.randn(25, 16, 12, 14, generator=generator).bfloat16().float().requires_grad_()
    weight = torch.randn(24, 16, 3, 3, generator=generator).bfloat16().float()
    weight = weight.to(memory_format=torch.channels_last).requires_grad_()
    cotangent = torch.randn(25, 24, 12, 14, generator=generator)
    expected = masked_convolution(dense, weight, active)
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    sparse = SparseMap.from_dense(dense, active)
    with torch.autocast("cpu", torch.bfloat16):
        rows, _ = convolve(sparse.features, weight, sparse.sites, backend)
    assert rows.dtype == torch.bfloat16
    found = SparseMap(rows.float(), sparse.sites).dense()
    grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))
    # bfloat16 keeps 8 bits; up to nine partial sums are rounded: 2 % of the values' size.
    for value, reference in zip((found, *grads), (expected, *expected_grads), strict=True):
        assert (value - reference).abs().max() < 0.02 * reference.abs().max()


# Share of the largest value by which results may differ: bfloat16 keeps 8 bits, float16 11, of up to nine sums.
ROUNDING = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


@given(
    images=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    density=st.one_of(st.floats(0.0, 1.0), st.sampled_from(["one", "all but one"])),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from(list(ROUNDING)),
    backend=st.sampled_from(BACKENDS),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_every_backend_agrees_on_random_maps(images, height, width, density, channels, dtype, backend, seed):
    if _refused(backend, dtype):
        return
    active, generator = _maps(images, height, width, density, seed)
    inputs, outputs = channels
    dense = torch.randn(images, inputs, height, width, generator=generator).to(dtype).float().requires_grad_()
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator).to(dtype).float().requires_grad_()
    cotangent = torch.randn(images, outputs, height, width, generator=generator).to(dtype).float()
    expected = masked_convolution(dense, weight, active)
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    sparse = SparseMap.from_dense(dense, active)
    rows, macs = convolve(sparse.features.to(dtype), weight.to(dtype), sparse.sites, backend)
    assert rows.dtype == dtype
    found = SparseMap(rows.float(), sparse.sites).dense()
    grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))
    for value, reference in zip((found, *grads), (expected, *expected_grads), strict=True):
        assert (value - reference).abs().max() <= ROUNDING[dtype] * max(reference.abs().max().item(), 1)
    assert (macs > 0) is bool(active.any())


@pytest.fixture(params=["tiles", "no tiles"])
def bfloat16_kernels(request, monkeypatch):
    """The kernels for bfloat16 of this processor, and what takes their place where there are no matrix tiles."""
    if request.param == "no tiles":
        monkeypatch.setattr(native_convolution, "_has_tiles", lambda: False)


@pytest.mark.usefixtures("bfloat16_kernels")
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(16, 16), (64, 128), (48, 32), (32, 48), (20, 80), (160, 208), (512, 64), (1, 1)]
)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_native_kernels_agree_at_any_width_and_with_any_number_of_threads(dtype, inputs, outputs, threads):
    if _refused("native", dtype):
        return
    active, generator = _maps(13, 11, 14, 0.5, seed=inputs)
    dense = torch.randn(13, inputs, 11, 14, generator=generator).to(dtype).float().requires_grad_()
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator).to(dtype).float().requires_grad_()
    cotangent = torch.randn(13, outputs, 11, 14, generator=generator).to(dtype).float()
    expected = masked_convolution(dense, weight, active)
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sparse = SparseMap.from_dense(dense, active)
        rows, macs = convolve(sparse.features.to(dtype), weight.to(dtype), sparse.sites, "native")
        found = SparseMap(rows.float(), sparse.sites).dense()
        grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))
    finally:
        torch.set_num_threads(before)
    for value, reference in zip((found, *grads), (expected, *expected_grads), strict=True):
        assert (value - reference).abs().max() <= ROUNDING[dtype] * reference.abs().max()
    pairs = int(sparse.sites.n_pairs)
    assert pairs * inputs * outputs <= macs <= (16 * 9 + 9 * active.numel()) * inputs * outputs
    assert macs == pairs * inputs * outputs or dtype == torch.bfloat16


def test_native_kernels_find_the_same_neighbours():
    if _refused("native", torch.float32):
        return
    for density in (0.0, 0.4, 1.0, "one", "all but one"):
        active, _ = _maps(5, 7, 4, density, seed=6)
        sites = Sites(active)
        assert torch.equal(_neighbours(sites).long(), sites.neighbours)


@pytest.mark.usefixtures("bfloat16_kernels")
def test_native_kernels_add_up_in_one_order_whatever_the_number_of_threads():
    active, generator = _maps(40, 12, 12, 0.5, seed=2)
    sites = Sites(active)
    rows = torch.randn(len(sites), 64, generator=generator)
    weight = torch.randn(128, 64, 3, 3, generator=generator)
    for dtype in (torch.float32, torch.bfloat16):
        if _refused("native", dtype):
            continue
        found = []
        before = torch.get_num_threads()
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            leaves = [values.to(dtype).requires_grad_() for values in (rows, weight)]
            out, _ = convolve(*leaves, sites, "native")
            found.append((out, *torch.autograd.grad(out.float().square().sum(), leaves)))
        torch.set_num_threads(before)
        for values in zip(*found, strict=True):
            assert all(torch.equal(value, values[0]) for value in values)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("backend", [*ANYWHERE, "triton", "spconv"])
@pytest.mark.parametrize("density", [0.4, 1.0, "one", "all but one", 0.0])
def test_every_backend_agrees_on_a_gpu(monkeypatch, backend, density, dtype):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    active, generator = _maps(9, 12, 12, density, seed=3)
    dense = torch.randn(9, 32, 12, 12, generator=generator).cuda().requires_grad_()
    weight = torch.randn(64, 32, 3, 3, generator=generator).cuda().requires_grad_()
    dense = dense.detach().to(dtype).float().requires_grad_()
    weight = weight.detach().to(dtype).float().requires_grad_()
    cotangent = torch.randn(9, 64, 12, 12, generator=generator).cuda()
    expected = masked_convolution(dense, weight, active.cuda())
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    sparse = SparseMap.from_dense(dense, active.cuda())
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        if backend == "spconv" and dtype == torch.bfloat16:
            with pytest.raises(ModelError, match="bfloat16.*float32 and float16 only"):
                convolve(sparse.features, weight, sparse.sites, backend)
            return
        rows, _ = convolve(sparse.features, weight, sparse.sites, backend)
        # The second layer finds the tables of the first.
        again, _ = convolve(sparse.features, weight, sparse.sites, backend)
    assert rows.dtype == dtype
    torch.testing.assert_close(again, rows, rtol=ROUNDING[dtype], atol=20 * ROUNDING[dtype])
    found = SparseMap(rows.float(), sparse.sites).dense()
    grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))
    for value, reference in zip((found, *grads), (expected, *expected_grads), strict=True):
        assert (value - reference).abs().max() <= ROUNDING[dtype] * reference.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", [*ANYWHERE, "triton", "spconv"])
@pytest.mark.parametrize("images", [0, 3])
def test_nothing_to_compute_keeps_the_graph_on_a_gpu(backend, images):
    dense = torch.randn(images, 4, 6, 6, device="cuda", requires_grad=True)
    weight = torch.randn(8, 4, 3, 3, device="cuda", requires_grad=True)
    sparse = SparseMap.from_dense(dense, torch.zeros(images, 6, 6, dtype=torch.bool, device="cuda"))
    rows, macs = convolve(sparse.features, weight, sparse.sites, backend)
    assert rows.shape == (0, 8)
    assert macs == 0
    rows.sum().backward()
    assert not weight.grad.any()


class _Plain(torch.nn.Module):
    """Stands for spconv.SubMConv2d: a dense convolution at the sites; makes a table unless it is given one."""

    made = 0

    def __init__(self, inputs, outputs, kernel, padding, bias, indice_key):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(outputs, kernel, kernel, inputs))
        self.key, self.padding = indice_key, padding

    def forward(self, x):
        tables = dict(x.indice_dict)  # spconv copies, too
        if self.key not in tables:
            type(self).made += 1
            tables[self.key] = x.indices.long().T
        at = tables[self.key]
        dense = x.features.new_zeros(x.batch_size, *x.spatial_shape, x.features.shape[1])
        dense = dense.index_put(tuple(at), x.features).permute(0, 3, 1, 2)
        out = F.conv2d(dense, self.weight.permute(0, 3, 1, 2), padding=self.padding).permute(0, 2, 3, 1)
        return SimpleNamespace(features=out[tuple(at)], indice_dict=tables)


def _tensor(features, indices, spatial_shape, batch_size, indice_dict):
    assert batch_size > 0  # as spconv does
    return SimpleNamespace(
        features=features,
        indices=indices,
        spatial_shape=spatial_shape,
        batch_size=batch_size,
        indice_dict=indice_dict,
    )


def test_the_spconv_backend_hands_over_rows_kernel_and_sites_and_makes_tables_once():
    backend = SpconvConvolution(SimpleNamespace(SparseConvTensor=_tensor, SubMConv2d=_Plain))
    active, generator = _maps(3, 7, 5, 0.4, seed=4)
    dense = torch.randn(3, 6, 7, 5, generator=generator)
    first, second = (torch.randn(10, n, 3, 3, generator=generator) for n in (6, 10))
    sparse = SparseMap.from_dense(dense, active)
    made = _Plain.made
    rows, macs = backend(sparse.features, first, sparse.sites)
    rows, more = backend(rows, second, sparse.sites)
    assert _Plain.made == made + 1
    expected = masked_convolution(masked_convolution(dense, first, active), second, active)
    torch.testing.assert_close(SparseMap(rows, sparse.sites).dense(), expected, rtol=1e-4, atol=1e-3)
    pairs = int(F.conv2d(active.float().unsqueeze(1), torch.ones(1, 1, 3, 3), padding=1)[:, 0][active].sum())
    assert (macs, more) == (pairs * 60, pairs * 100)
    assert macs.dtype == torch.float64  # float32 could not add up a batch


@pytest.mark.parametrize("backend", [*BACKENDS, "spconv"])
@pytest.mark.parametrize("images", [0, 3])
def test_nothing_to_compute_keeps_the_graph(monkeypatch, backend, images):
    if _refused(backend, torch.float32):
        return
    # spconv refuses a batch without a site: it must not be asked. It runs on a GPU only, so its place is taken.
    if backend == "spconv":
        monkeypatch.setitem(backends._PLAIN, "spconv", SpconvConvolution(SimpleNamespace()))
    rows = torch.ones(0, 4, requires_grad=True)
    weight = torch.randn(8, 4, 3, 3, requires_grad=True)
    out, macs = convolve(rows, weight, Sites(torch.zeros(images, 6, 6, dtype=torch.bool)), backend)
    assert out.shape == (0, 8)
    assert macs == 0
    out.sum().backward()
    assert rows.grad.shape == (0, 4)
    assert not weight.grad.any()


def test_auto_goes_on_without_a_spconv_that_cannot_be_imported(monkeypatch, tmp_path):
    (tmp_path / "spconv").mkdir()
    (tmp_path / "spconv" / "__init__.py").write_text("")
    (tmp_path / "spconv" / "pytorch.py").write_text("raise OSError('libcudart.so.12: cannot open')")
    for name in [name for name in sys.modules if name.split(".")[0] == "spconv"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    spconv_backend.spconv_is_usable.cache_clear()
    try:
        with pytest.warns(UserWarning, match="spconv is not used: .*libcudart"):
            assert not spconv_backend.spconv_is_usable()
    finally:
        spconv_backend.spconv_is_usable.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "spconv"]:
            del sys.modules[name]


@pytest.mark.parametrize("count", [1, 255, 256, 257, 5000])
def test_rows_of_zeros_that_half_precision_adds_are_counted(count):
    sites = Sites(torch.ones(count, 1, 1, dtype=torch.bool))
    rows, weight = torch.ones(count, 2, dtype=torch.bfloat16), torch.ones(3, 2, 3, 3, dtype=torch.bfloat16)
    _, macs = convolve(rows, weight, sites, "torch")
    # Lone sites have their own kernel element only.
    assert macs / 6 == {1: 256, 255: 256, 256: 256, 257: 512, 5000: 5120}[count]


def test_gradients_agree_with_finite_differences():
    active, generator = _maps(2, 4, 3, 0.6, seed=1)
    sites = Sites(active)
    rows = torch.randn(len(sites), 2, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, w: convolve(r, w, sites, "torch")[0], (rows, weight))


def test_multiply_adds_of_pairs_are_hand_counted():
    # Three sites in a row and one far away: 3 + 1 centres, and two neighbourhoods that count in both directions.
    active = torch.zeros(1, 5, 5, dtype=torch.bool)
    active[0, 1, 0:3] = True
    active[0, 4, 4] = True
    sites = Sites(active)
    _, macs = convolve(torch.ones(4, 2), torch.ones(3, 2, 3, 3), sites, "torch")
    assert macs == (4 + 2 * 2) * 2 * 3
    _, macs = convolve(torch.ones(4, 2), torch.ones(3, 2, 3, 3), sites, "dense")
    assert macs == 25 * 9 * 2 * 3


@pytest.mark.parametrize("backend", ["spconv", "spconv_triton"])
def test_spconv_refuses_a_cpu(backend):
    layer = SubmanifoldConv2d(2, 2, backend)
    with pytest.raises(ModelError, match="CUDA only.*use backend=torch"):
        layer(SparseMap.from_dense(torch.ones(1, 2, 3, 3)))


@pytest.mark.parametrize("channels", [4, 16, 80])
@pytest.mark.parametrize(("height", "width", "density"), [(6, 4, 0.4), (7, 5, 0.3), (6, 6, 1.0), (6, 4, "one")])
def test_sparse_pool_is_the_maximum_over_active_sites(height, width, density, channels):
    active, generator = _maps(3, height, width, density, seed=5)
    dense = torch.randn(3, channels, height, width, generator=generator, requires_grad=True)
    expected, expected_mask = masked_max_pool(dense, active)
    pooled = SparseMaxPool2d()(SparseMap.from_dense(dense, active))
    assert torch.equal(pooled.sites.active, expected_mask)
    torch.testing.assert_close(pooled.dense(), expected)
    cotangent = torch.randn(expected.shape, generator=generator)
    (grad,) = torch.autograd.grad((pooled.dense() * cotangent).sum(), dense)
    (expected_grad,) = torch.autograd.grad((expected * cotangent).sum(), dense)
    torch.testing.assert_close(grad, expected_grad)

"""Floors: hand-counted work, and a row that follows from its own figures."""

import pytest
import torch

from benchmarks import floors
from benchmarks.cases import Case, Run
from benchmarks.floors import bandwidth_gb_s, floor_rows, least, peak_gflops
from pipeline.counting.noise import random_batch
from pipeline.progress import Reporter


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setitem(floors._SIDE, "cpu", 128)
    monkeypatch.setattr(floors, "_COPIED_BYTES", 2**20)


@pytest.fixture(scope="module")
def dense():
    return Run(Case("towers only", None, width=4), random_batch(1, 1, 1, 4))


def _macs_of_towers(width):
    """(first convolutions, everything that counts), by hand: one face of 48 x 48 x 3, one chunk of 128 x 32."""
    first = everything = 0
    for height, wide, channels in ((48, 48, 3), (128, 32, 1)):
        first += height * wide * 25 * channels * width
        everything += height // 2 * (wide // 2) * 9 * width * width * 4
        for stage in range(3):
            sites = (height >> (stage + 1)) * (wide >> (stage + 1))
            inputs, outputs = width << stage, width << (stage + 1)
            everything += sites * 9 * outputs * (inputs + outputs)
        everything += 8 * width * (height // 16) * (wide // 16) * 16 * width + 16 * width * width
    return first, first + everything


def test_multiply_adds_of_a_step_are_three_forwards_without_the_gradient_of_the_images(dense):
    first, towers = _macs_of_towers(4)
    forward = least(dense, "forward", torch.float32).macs
    sequence = forward - towers
    assert 0 < sequence < 0.2 * towers
    assert least(dense, "training step", torch.float32).macs == 3 * forward - first


def test_bytes_are_outputs_of_convolutions_and_weights(dense):
    outputs = 0
    for height, wide in ((48, 48), (128, 32)):
        outputs += height * wide * 4 + 4 * (height // 2) * (wide // 2) * 4
        outputs += sum(2 * (height >> (i + 1)) * (wide >> (i + 1)) * (8 << i) for i in range(3))
    weights = 4 * sum(parameter.numel() for parameter in dense.model.parameters())
    assert least(dense, "forward", torch.float32).moved == 2 * 4 * outputs + weights
    assert least(dense, "training step", torch.bfloat16).moved == 5 * 2 * outputs + 9 * weights


def test_a_row_s_floor_follows_from_its_figures_and_sparse_work_is_less():
    rows = floor_rows(
        Reporter(quiet=True), batches=(1,), top_p=(0.3,), scopes=("towers only",), width=4, faces=1, chunks=1
    )
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        by_products = 2 * row["macs"] / (row["peak_gflops"] * 1e9)
        by_bytes = row["bytes"] / (row["bandwidth_gb_s"] * 1e9)
        assert row["floor_s"] == pytest.approx(max(by_products, by_bytes), rel=0.1, abs=1e-6)
    macs = {(row["work"], row["model"]): row["macs"] for row in rows}
    for work in ("forward, towers only", "training step, towers only"):
        assert 0 < macs[work, "mesm"] < macs[work, "fe2e"]


def test_rates_are_of_this_world():
    assert 0.1 < peak_gflops(torch.float32) < 1e6
    assert 0.01 < bandwidth_gb_s() < 1e5

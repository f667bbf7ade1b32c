"""Captured towers and measured memory on a GPU; `make gpu-test` runs these."""

import pytest
import torch

from benchmarks.cases import Case, Run
from benchmarks.models.steps import bench_models
from pipeline.counting.noise import random_batch
from pipeline.progress import Reporter

QUIET = Reporter(quiet=True)

pytestmark = pytest.mark.gpu


def test_captured_towers_learn_as_eager_ones_do():
    inputs = random_batch(2, 2, 2, 4).to("cuda")
    losses = {}
    for mode in ("eager", "cuda graph"):
        run = Run(Case("towers only", None, "32-true", "cuda", 8, mode=mode), inputs)
        torch.manual_seed(1)
        losses[mode] = [float(run.do("training step")) for _ in range(3)]
    assert losses["cuda graph"] == pytest.approx(losses["eager"], rel=0.05)


def test_peak_memory_and_times_of_a_gpu_are_measured():
    sizes = {"batch": 2, "faces": 1, "chunks": 1, "tokens": 4, "width": 8, "scopes": ("towers only",)}
    rows = bench_models(QUIET, **sizes, top_p=(0.5,), repeats=1, device="cuda", precision="bf16-mixed")
    assert all(row["median_s"] > 0 and row["device"] == torch.cuda.get_device_name() for row in rows)
    assert all(row["peak_bytes"] > 0 for row in rows if row["work"].startswith("training"))

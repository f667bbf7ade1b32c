"""The benchmark of the models gives the rows that docs/benchmarks holds."""

import pytest

from pipeline.bench.models import _Case, _Run, bench_models
from pipeline.flops.noise import random_batch
from pipeline.progress import Reporter


def test_rows_of_every_work_and_model_with_their_ratio():
    sizes = {"batch": 2, "faces": 2, "chunks": 4, "tokens": 4, "width": 8}
    rows = bench_models(Reporter(quiet=True), **sizes, top_p=(0.3,), repeats=1, scopes=("towers only",))
    assert [(row["work"], row["model"], row["top_p"]) for row in rows] == [
        (f"{work}, towers only", model, top_p)
        for work in ("forward", "training step")
        for model, top_p in (("fe2e", None), ("mesm", 0.3))
    ]
    assert all(0 < row["min_s"] <= row["median_s"] for row in rows)
    for base, sparse in zip(rows[::2], rows[1::2], strict=True):
        assert base["ratio_to_fe2e"] == 1
        assert sparse["ratio_to_fe2e"] == pytest.approx(sparse["median_s"] / base["median_s"], rel=0.1)
        # A process that has torch loaded holds far more than 50 MB; the forward rows share that process.
        assert (base["peak_bytes"] or 0) > 50e6 or base["work"].startswith("forward")


def test_a_forward_is_in_evaluation_mode_and_a_step_in_training_mode():
    run = _Run(_Case("towers only", 0.5, "32-true", "cpu", 8), random_batch(2, 1, 1, 4))
    before = {name: value.clone() for name, value in run.model.named_buffers()}
    run.do("forward")
    assert all(value.equal(before[name]) for name, value in run.model.named_buffers())
    run.do("training step")
    assert not all(value.equal(before[name]) for name, value in run.model.named_buffers())

"""The benchmark of the models gives the rows that docs/benchmarks holds."""

import pytest

from pipeline.bench_models import bench_models
from pipeline.progress import Reporter


def test_rows_of_every_work_and_model_with_their_ratio():
    sizes = {"batch": 2, "faces": 2, "chunks": 4, "tokens": 4, "width": 8}
    rows = bench_models(Reporter(quiet=True), **sizes, top_p=(0.3,), repeats=1, scopes=("towers only",))
    assert [(row["work"], row["model"], row["top_p"]) for row in rows] == [
        (f"{work}, towers only", model, top_p)
        for work in ("forward", "training step")
        for model, top_p in (("fe2e", None), ("mesm", 0.3))
    ]
    for base, sparse in zip(rows[::2], rows[1::2], strict=True):
        assert base["ratio_to_fe2e"] == 1
        assert sparse["ratio_to_fe2e"] == pytest.approx(sparse["median_s"] / base["median_s"], rel=0.1)
        # A process that has torch loaded holds far more than 50 MB; the forward rows share that process.
        assert (base["peak_bytes"] or 0) > 50e6 or base["work"].startswith("forward")

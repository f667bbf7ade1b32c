"""The benchmark of EMT's fusion with tiny sizes: what is counted is right, and what is written is what was measured."""

import json
import statistics

import pytest

from benchmarks import fusion
from benchmarks.fusion import as_markdown, bench_fusion
from models.emt import EMTConfig
from pipeline.progress import Reporter

TINY = EMTConfig(size=8, heads=2, layers=2)


@pytest.fixture
def measured(tmp_path):
    found = bench_fusion(tmp_path, Reporter(quiet=True), modalities=(2, 4), steps=40, repeats=2, settings=TINY)
    return tmp_path, found["rows"]


def test_each_strategy_has_a_row_for_each_number_of_modalities(measured):
    folder, rows = measured
    found = [(row["fusion"], row["modalities"]) for row in rows]
    assert found == [(name, count) for name in ("oagl", "ooll", "oall") for count in (2, 4)]
    assert json.loads((folder / "fusion.json").read_text()) == rows
    assert (folder / "fusion.md").read_text() == as_markdown(rows)


def test_counts_are_those_of_the_pairs_and_the_ratios_are_to_the_fewest_modalities(measured):
    _, rows = measured
    by_name = {(row["fusion"], row["modalities"]): row for row in rows}
    # Six pairs to one, all of the same length, and twelve pooled sequences to two.
    assert by_name["ooll", 4]["multiply_adds_ratio"] == 6
    assert 2 < by_name["oagl", 4]["multiply_adds_ratio"] < 2.5
    assert by_name["oall", 4]["multiply_adds_ratio"] > 3
    for (name, _), row in by_name.items():
        first = by_name[name, 2]
        assert row["seconds_ratio"] == row["median_s"] / first["median_s"]
        assert row["multiply_adds_ratio"] == row["multiply_adds"] / first["multiply_adds"]


def test_the_time_is_the_median_of_the_rounds_after_the_first(tmp_path, monkeypatch):
    clock = iter([0, 100, 0, 5, 0, 1, 0, 3])  # begin and end of a pass: one to warm up, three that count
    monkeypatch.setattr(fusion, "STRATEGIES", ("oagl",))
    monkeypatch.setattr(fusion.time, "perf_counter", lambda: next(clock))
    found = bench_fusion(tmp_path, Reporter(quiet=True), modalities=(2,), steps=3, repeats=3, settings=TINY)
    assert found["rows"][0]["median_s"] == statistics.median([5, 1, 3])

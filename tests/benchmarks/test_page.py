"""cpu.json and its page: rows that are measured again take the place of the old ones, targets are judged by rows."""

import json

import pytest

from benchmarks.page import bench, merged
from benchmarks.tables import as_markdown
from benchmarks.targets import cpu_verdicts, gpu_verdicts
from data_tools.errors import DataError
from pipeline.progress import Reporter
from pipeline.settings import ConfigError

QUIET = Reporter(quiet=True)


def row(work="training step, towers only", model="mesm", top_p=0.5, batch=8, precision="32-true", **values):
    known = {"work": work, "model": model, "top_p": top_p, "batch": batch, "precision": precision, "asked": "auto"}
    known |= {"mode": "eager", "backend": "torch", "median_s": 1.6, "min_s": 1.5, "repeats": 5, "peak_bytes": 2**30}
    known |= {"ratio_to_fe2e": 0.7, "device": "CPU X, 2 threads", "versions": {"torch": "2"}, "date": "2026-01-02"}
    return known | values


def test_only_the_same_measurement_is_replaced():
    old = [row(), row(batch=32), row(precision="bf16-mixed"), row(device="CPU Y, 2 threads"), row(asked="dense")]
    again, new = row(median_s=1.0, date="2026-02-03"), row(top_p=0.7)
    assert merged(old, [again, new]) == [again, *old[1:], new]


def test_cpu_targets_are_those_of_the_issue():
    rows = [
        row(),
        row(ratio_to_fe2e=0.701, median_s=1.7),
        row(top_p=0.7, ratio_to_fe2e=0.9),
        row(top_p=0.9, ratio_to_fe2e=2.0),
        row(model="fe2e", top_p=None, ratio_to_fe2e=1.0),
        row("attention and top-p, towers only", ratio_to_fe2e=None, share_of_step=0.11),
        row("loss curve, towers only", precision="bf16-mixed", ratio_to_fe2e=None, last_difference=0.01),
    ]
    found = [(verdict.target, verdict.found, verdict.met) for verdict in cpu_verdicts(rows)]
    assert found == [
        (0.7, 0.7, "yes"),
        (0.5, 0.5, "yes"),
        (0.7, 0.701, "**no**"),
        (0.5, pytest.approx(1.7 / 3.2), "**no**"),
        (0.9, 0.9, "yes"),
        (0.1, 0.11, "**no**"),
        (0.02, 0.01, "yes"),
    ]


def test_gpu_targets_take_each_model_at_its_fastest():
    common = {"batch": 32, "precision": "bf16-mixed"}
    rows = [
        row(model="fe2e", top_p=None, median_s=2.0, **common),
        row(model="fe2e", top_p=None, median_s=1.0, mode="compile", **common),
        row(median_s=0.7, **common),
        row(median_s=0.1, top_p=0.7, **common),
        row("epoch in memory", "fe2e", None, median_s=9.0, **common),
        row("epoch from the store, held on the device", "fe2e", None, median_s=None, **common),
    ]
    towers, whole, epoch, stored, waiting = gpu_verdicts(rows)
    assert (towers.found, towers.met) == (0.7, "yes")
    assert (whole.met, stored.met, waiting.met) == ("not measured",) * 3
    assert (epoch.found, epoch.met) == (9.0, "yes")


def test_the_page_has_every_kind_of_row_with_its_date():
    curve = {"losses": [1.0, 0.5], "first_loss": 1.0, "last_loss": 0.5, "largest_difference": 0.3}
    rows = [
        row(),
        row("attention and top-p, towers only", ratio_to_fe2e=None, share_of_step=0.05, step_s=2.0),
        row("loss curve, towers only", ratio_to_fe2e=None, last_difference=0.01, control_difference=0.04, **curve),
        {**row(date="2025-05-05"), "floor_s": 0.4},
    ]
    for measured in ("median_s", "min_s", "ratio_to_fe2e", "asked", "mode", "backend"):
        del rows[-1][measured]
    page = as_markdown(rows)
    for part in (
        "- CPU X, 2 threads, torch 2",
        "| training step, towers only | 8 | 32-true | mesm p 0.5 | torch | 1.600 | 0.70 | 0.50 | 1.00 | 5 | 2026-",
        "| attention and top-p, towers only | 8 | 32-true | 0.5 | 1.600 | 2.000 | 5.0% | 2026-01-02 |",
        "| mesm p 0.5 | 32-true | 2 | 1.0 | 0.5 | 0.3 | 0.01 | 0.04 | 2026-01-02 |",
        "| training step, towers only | 8 | 32-true | mesm p 0.5 | 0.4000 | 1.600 | 4.0 | 2025-05-05 |",
        "3 of 3 are met.",
    ):
        assert part in page


def test_one_part_alone_leaves_the_other_rows(tmp_path):
    other = row(batch=77)
    (tmp_path / "cpu.json").write_text(json.dumps([other]))
    result = bench(tmp_path, QUIET, [1], ["bf16-mixed"], ["attention"], ["towers only"], repeats=1, width=4)
    rows = json.loads((tmp_path / "cpu.json").read_text())
    assert rows == result["rows"]
    assert rows[0] == other
    assert [(found["work"], found["top_p"]) for found in rows[1:]] == [
        ("attention and top-p, towers only", 0.5),
        ("attention and top-p, towers only", 0.7),
    ]
    assert (tmp_path / "cpu.md").read_text() == as_markdown(rows)


def test_what_is_unknown_or_damaged_is_named(tmp_path):
    with pytest.raises(ConfigError, match="part is 'speed'; known: models, attention"):
        bench(tmp_path, QUIET, parts=["speed"])
    (tmp_path / "cpu.json").write_text("[{")
    with pytest.raises(DataError, match=r"cpu.json is damaged"):
        bench(tmp_path, QUIET, parts=["curves"])

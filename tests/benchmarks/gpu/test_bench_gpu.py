"""`make gpu-test` as far as it goes without a GPU: its plan, its processes, what it says where it cannot measure."""

import json
import re
import sys

import pytest

from benchmarks.gpu import bench_gpu
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.bench_gpu import gpu_test, write_not_measured
from benchmarks.gpu.epoch import write_noise
from benchmarks.gpu.machine import describe_machine
from benchmarks.gpu.page import as_markdown
from benchmarks.gpu.plan import ROOT, SIZES, Job, folders_of_tests, grouped, identity, names_of, not_measured, plan
from benchmarks.gpu.worker import model_rows
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError

FACTS = {"gpu": None, "missing": {"spconv-triton": "a backend"}, "packages": {"torch": "2"}, "cuda": None}
FACTS |= {"driver": None, "python": "3.11"}


def test_every_planned_row_is_planned_once():
    rows = [identity(row) for job in plan(SIZES["full"]) for row in job.rows]
    assert len(rows) == len(set(rows))
    assert folders_of_tests(ROOT) == ["tests/benchmarks/models", "tests/models", "tests/pipeline"]


def test_without_a_gpu_every_planned_row_says_so(tmp_path):
    result = write_not_measured(tmp_path)
    rows = result["rows"]
    assert [identity(row) for row in rows] == [identity(row) for job in plan(SIZES["full"]) for row in job.rows]
    assert {row["not_measured"] for row in rows} == {"no CUDA device at hand"}
    assert all(row["median_s"] is row["device"] is None and re.match(r"\d{4}-\d\d-\d\d$", row["date"]) for row in rows)
    (line,) = json.loads((tmp_path / "gpu.json").read_text())
    assert (line["not_measured"], line["date"]) == ("no CUDA device at hand", rows[0]["date"])
    assert [name.partition(" (")[0] for name in line["rows"]] == [job.name for job in plan(SIZES["full"])]
    page = (tmp_path / "gpu.md").read_text()
    assert "nothing is claimed" in page
    assert all(f"  - {name}\n" in page for name in line["rows"] if not name.startswith("tests in"))
    assert "| yes |" not in page


def test_without_a_gpu_the_command_fails_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_gpu, "_ask_machine", lambda root: FACTS)
    assert main(["--out", str(tmp_path)]) == 1
    assert "sees no CUDA device; nothing was measured" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_the_budget_does_not_reach_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_gpu, "_ask_machine", lambda root: FACTS)
    calls = []

    def run(job, device, sizes, most_s, root, facts):
        calls.append(job.name)
        now[0] += 300
        return [row | {"median_s": 1.0, "backend": "dense", "peak_bytes": None} for row in job.rows]

    now = [0.0]
    monkeypatch.setattr(bench_gpu.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(bench_gpu, "_run_job", run)
    said = []
    result = gpu_test(tmp_path, said.append, "cpu", "tiny", budget_s=400, root=tmp_path)
    assert len(calls) == 2
    left = [row for row in result["rows"] if row.get("not_measured")]
    assert {row["not_measured"] for row in left} == {"time: the budget of 400 s was spent"}
    jobs = plan(SIZES["tiny"], tmp_path)
    assert len(left) == sum(len(job.rows) for job in jobs[2:])
    *measured, line = json.loads((tmp_path / "gpu.json").read_text())
    assert measured == [row for row in result["rows"] if not row.get("not_measured")]
    assert line["not_measured"] == "time: the budget of 400 s was spent"
    assert [name.partition(" (")[0] for name in line["rows"]] == [job.name for job in jobs[2:]]
    assert "missing: spconv-triton, needed for a backend" in said


def test_rows_given_before_a_step_is_stopped_or_breaks_are_kept(tmp_path, monkeypatch):
    rows = tuple({"work": f"w{i}"} for i in range(3))
    job = Job("s", "models", rows, 9)
    write = 'import sys, time; open(sys.argv[1], \'w\').write(\'{"work": "w0"}\\n{"wo\'); '
    real = bench_gpu._run_process
    ends = {"time.sleep(60)": "time: stopped after 2 s", "raise ValueError('no luck')": "ValueError: no luck"}
    for end, reason in ends.items():

        def start(command, most_s, root, end=end):
            file = command[command.index("--rows") + 1]
            return real([sys.executable, "-c", write + end, file], most_s, root)

        monkeypatch.setattr(bench_gpu, "_run_process", start)
        found = bench_gpu._run_job(job, "cpu", "tiny", 2, tmp_path, FACTS)
        assert found[0] == {"work": "w0"}
        assert [(row["work"], row["not_measured"]) for row in found[1:]] == [("w1", reason), ("w2", reason)]


def test_tests_marked_gpu_are_run_and_counted(tmp_path):
    (tmp_path / "tests").mkdir()
    lines = ["import pytest", "pytestmark = pytest.mark.gpu", "def test_a(): pass", "def test_b(): assert 0"]
    (tmp_path / "tests" / "test_x.py").write_text("\n".join([*lines, "def test_spconv_triton(): assert 0", ""]))
    (job,) = [job for job in plan(SIZES["tiny"], tmp_path) if job.kind == "tests"]
    (row,) = bench_gpu._run_job(job, "cpu", "tiny", 100, tmp_path, FACTS)
    assert (row["passed"], row["failed"], row["left_out"]) == (1, 1, ["spconv_triton"])
    assert "test_b" in row["output"]
    page = as_markdown([{"work": "environment", "date": "2026-01-02"} | FACTS, row])
    assert "1 passed, 1 failed, 0 skipped" in page
    assert "Missing: spconv-triton (a backend)." in page


def test_a_case_that_cannot_run_says_why_and_leaves_the_others():
    sizes = SIZES["tiny"]
    (job,) = [job for job in plan(sizes, ROOT) if job.name == "backends"]
    some = tuple(row for row in job.rows if row["precision"] == "32-true" and row["asked"] in ("torch", "spconv"))
    rows = {row["asked"]: row for row in model_rows(Job("backends", "models", some, 9), sizes, "cpu")}
    assert rows["torch"]["median_s"] > 0
    assert rows["torch"]["backend"] == "torch"
    assert rows["torch"]["ratio_to_fe2e"] is None  # nothing to compare with in this job
    assert rows["spconv"]["median_s"] is None
    assert "it runs on CUDA only" in rows["spconv"]["not_measured"]


def test_the_data_folder_of_noise_has_the_stated_size(tmp_path):
    sizes = SIZES["tiny"]
    write_noise(tmp_path, sizes)
    train = UtteranceDataset(tmp_path, "train")
    assert len(train) == sizes.utterances
    assert len(UtteranceDataset(tmp_path, "valid")) == sizes.utterances
    sample = train[0]
    assert sample.faces.shape[1:] == (3, 48, 48)
    assert len(sample.faces) >= 1
    assert len(sample.text.split()) == sizes.tokens - 2


def test_the_machine_says_what_it_has_and_lacks():
    found = describe_machine()
    assert found["packages"]["torch"]
    assert found["packages"]["numpy"]
    assert not set(found["packages"]) & set(found["missing"])


@pytest.mark.parametrize("row", [{"work": "x", "model": "fe2e", "batch": 3}])
def test_a_row_that_was_not_measured_keeps_its_identity(row):
    found = not_measured(row, "why", "2026-01-02")
    assert identity(found) == identity(row)
    assert (found["not_measured"], found["date"], found["median_s"]) == ("why", "2026-01-02", None)


def test_rows_that_were_not_measured_are_one_line_a_reason_that_names_every_one_of_them():
    jobs = plan(SIZES["full"])
    first, second = next(job for job in jobs if job.name == "backends"), jobs[-1]
    rows = [row | {"median_s": 1.0} for row in first.rows[:2]]
    rows += [not_measured(row, "no spconv", "2026-01-02") for row in first.rows[2:]]
    rows += [not_measured(row, "time", "2026-01-02") for row in second.rows]
    rows.append(not_measured({"work": "tests"}, "time", "2026-01-02") | {"output": "a trace"})
    kept, text = grouped(rows, jobs), "training step, towers only, batch 32, 32-true, mesm p 0.5, spconv_triton, eager"
    assert kept[:3] == [*rows[:2], rows[-1]]
    assert [(line["not_measured"], len(line["rows"])) for line in kept[3:]] == [
        ("no spconv", len(first.rows) - 2),
        ("time", 1),
    ]
    assert kept[3]["rows"][-1] == text
    assert kept[4]["rows"] == [f"{second.name} ({len(second.rows)} rows)"]
    assert names_of([], jobs) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_not_measured(tmp_path / "file")

"""`make gpu-test` as far as it goes without a GPU: its plan, its processes, what it says where it cannot measure."""

import json
import re
import sys

import pytest

from benchmarks import gpu
from benchmarks.epoch import write_noise
from benchmarks.gpu import gpu_test, main, write_not_measured
from benchmarks.gpu_machine import machine
from benchmarks.gpu_page import as_markdown
from benchmarks.gpu_plan import ROOT, SIZES, Step, folders_of_tests, identity, not_measured, plan
from benchmarks.gpu_steps import model_rows
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError

FACTS = {"gpu": None, "missing": {"spconv-triton": "an engine"}, "packages": {"torch": "2"}, "cuda": None}
FACTS |= {"driver": None, "python": "3.11"}


def test_every_planned_row_is_planned_once():
    rows = [identity(row) for step in plan(SIZES["full"]) for row in step.rows]
    assert len(rows) == len(set(rows))
    assert folders_of_tests(ROOT) == ["tests/models", "tests/pipeline"]


def test_without_a_gpu_every_planned_row_says_so(tmp_path):
    result = write_not_measured(tmp_path)
    rows = json.loads((tmp_path / "gpu.json").read_text())
    assert rows == result["rows"]
    assert [identity(row) for row in rows] == [identity(row) for step in plan(SIZES["full"]) for row in step.rows]
    assert {row["not_measured"] for row in rows} == {"no CUDA device at hand"}
    assert all(row["median_s"] is row["device"] is None and re.match(r"\d{4}-\d\d-\d\d$", row["date"]) for row in rows)
    page = (tmp_path / "gpu.md").read_text()
    assert "nothing is claimed" in page
    assert "| yes |" not in page


def test_without_a_gpu_the_command_fails_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_facts", lambda root: FACTS)
    assert main(["--out", str(tmp_path)]) == 1
    assert "sees no CUDA device; nothing was measured" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_the_budget_does_not_reach_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_facts", lambda root: FACTS)
    calls = []

    def run(step, device, sizes, most_s, root, facts):
        calls.append(step.name)
        now[0] += 300
        return [row | {"median_s": 1.0, "backend": "dense", "peak_bytes": None} for row in step.rows]

    now = [0.0]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(gpu, "_run", run)
    said = []
    result = gpu_test(tmp_path, said.append, "cpu", "tiny", budget_s=400, root=tmp_path)
    assert len(calls) == 2
    left = [row for row in result["rows"] if row.get("not_measured")]
    assert {row["not_measured"] for row in left} == {"time: the budget of 400 s was spent"}
    steps = plan(SIZES["tiny"], tmp_path)
    assert len(left) == sum(len(step.rows) for step in steps[2:])
    assert json.loads((tmp_path / "gpu.json").read_text()) == result["rows"]
    assert "missing: spconv-triton, needed for an engine" in said


def test_rows_given_before_a_step_is_stopped_or_breaks_are_kept(tmp_path, monkeypatch):
    rows = tuple({"work": f"w{i}"} for i in range(3))
    step = Step("s", "models", rows, 9)
    write = 'import sys, time; open(sys.argv[1], \'w\').write(\'{"work": "w0"}\\n{"wo\'); '
    real = gpu._process
    ends = {"time.sleep(60)": "time: stopped after 2 s", "raise ValueError('no luck')": "ValueError: no luck"}
    for end, reason in ends.items():

        def start(command, most_s, root, end=end):
            file = command[command.index("--rows") + 1]
            return real([sys.executable, "-c", write + end, file], most_s, root)

        monkeypatch.setattr(gpu, "_process", start)
        found = gpu._run(step, "cpu", "tiny", 2, tmp_path, FACTS)
        assert found[0] == {"work": "w0"}
        assert [(row["work"], row["not_measured"]) for row in found[1:]] == [("w1", reason), ("w2", reason)]


def test_tests_marked_gpu_are_run_and_counted(tmp_path):
    (tmp_path / "tests").mkdir()
    lines = ["import pytest", "pytestmark = pytest.mark.gpu", "def test_a(): pass", "def test_b(): assert 0"]
    (tmp_path / "tests" / "test_x.py").write_text("\n".join([*lines, "def test_spconv_triton(): assert 0", ""]))
    (step,) = [step for step in plan(SIZES["tiny"], tmp_path) if step.kind == "tests"]
    (row,) = gpu._run(step, "cpu", "tiny", 100, tmp_path, FACTS)
    assert (row["passed"], row["failed"], row["left_out"]) == (1, 1, ["spconv_triton"])
    assert "test_b" in row["output"]
    page = as_markdown([{"work": "environment", "date": "2026-01-02"} | FACTS, row])
    assert "1 passed, 1 failed, 0 skipped" in page
    assert "Missing: spconv-triton (an engine)." in page


def test_a_case_that_cannot_run_says_why_and_leaves_the_others():
    sizes = SIZES["tiny"]
    (step,) = [step for step in plan(sizes, ROOT) if step.name == "engines"]
    some = tuple(row for row in step.rows if row["precision"] == "32-true" and row["asked"] in ("torch", "spconv"))
    rows = {row["asked"]: row for row in model_rows(Step("engines", "models", some, 9), sizes, "cpu")}
    assert rows["torch"]["median_s"] > 0
    assert rows["torch"]["backend"] == "torch"
    assert rows["torch"]["ratio_to_fe2e"] is None  # nothing to compare with in this step
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
    found = machine()
    assert found["packages"]["torch"]
    assert found["packages"]["numpy"]
    assert not set(found["packages"]) & set(found["missing"])


@pytest.mark.parametrize("row", [{"work": "x", "model": "fe2e", "batch": 3}])
def test_a_row_that_was_not_measured_keeps_its_identity(row):
    found = not_measured(row, "why", "2026-01-02")
    assert identity(found) == identity(row)
    assert (found["not_measured"], found["date"], found["median_s"]) == ("why", "2026-01-02", None)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_not_measured(tmp_path / "file")

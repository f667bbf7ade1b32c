"""`make gpu-test`: everything that needs a GPU, checked and timed in one go, into gpu.json and gpu.md.

Each job runs in a process of its own, so that a fault, a missing package or a job that hangs costs that job alone.
"""

import json
import os
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import PACKAGES, missing_packages
from benchmarks.gpu.page import as_markdown
from benchmarks.gpu.plan import ROOT, SIZES, Job, grouped, identity, is_marked, not_measured, plan
from benchmarks.rows import today, write_result
from data_tools.errors import DataError
from data_tools.processes import Ended, run_at_most

BUDGET_S = 480.0
# Less is not worth the start of a process.
_LEAST_S = 15.0
_NOT_AT_HAND = "no CUDA device at hand"
Say = Callable[[str], None]


def gpu_test(
    out: Path, say: Say, device: str = "cuda", sizes: str = "full", budget_s: float = BUDGET_S, root: Path = ROOT
) -> dict[str, Any]:
    """Run every job of the plan in turn; what `budget_s` does not reach, or what fails, becomes a row that says so.

    sizes: a key of `plan.SIZES`. device: cpu walks through it for a test. Rows are written after each job.
    Returns {"rows": [...], "files": [...], "problems": [...]}: problems are failed tests and what could not be asked.

    Raises:
        DataError: no such device, nothing is written then; or `out` cannot be written to.
    """
    started = time.monotonic()
    facts = _ask_machine(root)
    if device == "cuda" and facts.get("gpu") is None:
        raise DataError(
            f"{facts.get('error') or 'torch ' + facts['packages']['torch'] + ' sees no CUDA device'}; nothing was "
            "measured. Run it on a machine with a GPU, or write rows that say `not measured` with "
            "`python -m benchmarks bench-gpu --not-measured`"
        )
    for package, needs in facts["missing"].items():
        say(f"missing: {package}, needed for {needs}")
    rows: list[dict[str, Any]] = [{"work": "environment", "date": today()} | facts]
    jobs = plan(SIZES[sizes], root)
    for number, job in enumerate(jobs):
        left = budget_s - (time.monotonic() - started)
        if left < _LEAST_S:
            rows += [not_measured(row, f"time: the budget of {budget_s:.0f} s was spent", today()) for row in job.rows]
            say(f"{job.name}: not measured (time)")
            continue
        say(f"{job.name}: job {number + 1} of {len(jobs)}, {left:.0f} s left")
        # A larger budget gives each job more time, too.
        most_s = min(job.most_s * max(1.0, budget_s / BUDGET_S), left)
        found = _run_job(job, device, sizes, most_s, root, facts)
        rows += found
        say(f"  {_outcome(found)}")
        _write(out, rows, jobs)
    files = _write(out, rows, jobs)
    failed = [f"{row['work']}: {row['outcome']}" for row in rows if row.get("failed")]
    failed += [f"{row['work']}: {row['not_measured']}" for row in rows if _is_tests(row) and row.get("not_measured")]
    say(f"written: {', '.join(map(str, files))}, {time.monotonic() - started:.0f} s in all")
    return {"rows": rows, "files": [str(path) for path in files], "problems": failed}


def write_not_measured(out: Path, reason: str = _NOT_AT_HAND, root: Path = ROOT) -> dict[str, Any]:
    """Write the files of `gpu_test` where nothing can be measured: every planned row with `reason` and today's date."""
    jobs = plan(SIZES["full"], root)
    rows = [not_measured(row, reason, today()) for job in jobs for row in job.rows]
    return {"rows": rows, "files": [str(path) for path in _write(out, rows, jobs)], "problems": []}


def _write(out: Path, rows: Sequence[dict[str, Any]], jobs: Sequence[Job]) -> list[Path]:
    return write_result(out, "gpu", grouped(rows, jobs), as_markdown(rows, jobs))


def _ask_machine(root: Path) -> dict[str, Any]:
    """Facts about the machine, asked in a process of its own: a torch that fails to load is a fact too."""
    program = "import json; from benchmarks.gpu.machine import describe_machine; print(json.dumps(describe_machine()))"
    done = _run_process([sys.executable, "-c", program], 120, root)
    try:
        facts: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        return facts
    except (ValueError, IndexError):
        return {"gpu": None, "missing": missing_packages(), "error": f"torch cannot be asked ({_last_line(done)})"}


def _run_job(
    job: Job, device: str, sizes: str, most_s: float, root: Path, facts: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of one job: those that it gave, and the planned ones that it did not give with the reason."""
    with tempfile.TemporaryDirectory() as name:
        if job.kind == "tests":
            return [_run_tests(job, most_s, root, Path(name) / "report.xml", facts)]
        file = Path(name) / "rows.jsonl"
        command = [sys.executable, "-m", "benchmarks.gpu.worker", job.name, "--rows", str(file)]
        done = _run_process([*command, "--device", device, "--sizes", sizes], most_s, root)
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = [row for line in lines if (row := _parsed(line)) is not None]
    have = {identity(row) for row in found}
    reason = f"time: stopped after {most_s:.0f} s" if done.code is None else _last_line(done)
    return found + [not_measured(row, reason, today()) for row in job.rows if identity(row) not in have]


def _parsed(line: str) -> dict[str, Any] | None:
    """Row in a line; None for a line that its process was writing when it was stopped."""
    try:
        row: dict[str, Any] = json.loads(line)
        return row
    except ValueError:
        return None


def _run_tests(job: Job, most_s: float, root: Path, report: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Run the tests marked gpu of one folder."""
    (row,) = job.rows
    folder = row["work"].rpartition(" ")[2]
    files = [str(path) for path in sorted((root / folder).glob("test_*.py")) if is_marked(path)]
    # Tests of a backend that is not installed have nothing to test.
    left_out = [backend for backend in ("spconv_triton", "spconv") if PACKAGES[backend][0] in facts["missing"]]
    chosen = ["-k", " and ".join(f"not {name}" for name in left_out)] if left_out else []
    command = [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-q", "--continue-on-collection-errors"]
    done = _run_process([*command, *chosen, f"--junitxml={report}", "-p", "no:cacheprovider"], most_s, root)
    if done.code is None or not report.is_file():
        reason = f"time: stopped after {most_s:.0f} s" if done.code is None else _last_line(done)
        return not_measured(row, reason, today()) | {"output": done.output[-4000:]}
    counts = [
        {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
        for suite in ET.parse(report).iter("testsuite")
    ]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    failed = total["failures"] + total["errors"]
    outcome = f"{total['tests'] - failed - total['skipped']} passed, {failed} failed, {total['skipped']} skipped"
    found: dict[str, Any] = {"passed": total["tests"] - failed - total["skipped"], "failed": failed, "outcome": outcome}
    found |= {"left_out": left_out, "median_s": round(done.seconds, 1), "device": facts["gpu"], "date": today()}
    return row | found | ({"output": done.output[-4000:]} if failed else {})


def _run_process(command: list[str], most_s: float, root: Path) -> Ended:
    """Run `command` in `root`, which it can import from, with all that it starts; ended after `most_s`."""
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    extra = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return run_at_most(command, most_s, root, extra)


def _last_line(done: Ended) -> str:
    lines = [line for line in done.output.splitlines() if line.strip()]
    return (lines[-1] if lines else f"it ended with code {done.code} without a word")[:300]


def _outcome(rows: Sequence[dict[str, Any]]) -> str:
    """Outcome of a job in a line."""
    if _is_tests(rows[0]):
        return str(rows[0].get("outcome") or f"not measured: {rows[0]['not_measured']}")
    reasons = dict.fromkeys(row["not_measured"] for row in rows if row.get("not_measured"))
    measured = sum(not row.get("not_measured") for row in rows)
    return f"{measured} of {len(rows)} rows" + "".join(f"; {reason}" for reason in reasons)


def _is_tests(row: dict[str, Any]) -> bool:
    return str(row["work"]).startswith("tests marked gpu")

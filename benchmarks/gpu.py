"""`make gpu-test`: everything that needs a GPU, checked and timed in one go, into docs/benchmarks/gpu.json and gpu.md.

`python -m benchmarks.gpu` from the root of the repository does the same with any Python, installed project or not.
Each step runs in a process of its own, so that a fault, a missing package or a step that hangs costs that step alone.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu_machine import PACKAGES, missing
from benchmarks.gpu_page import as_markdown
from benchmarks.gpu_plan import ROOT, SIZES, Step, identity, is_marked, not_measured, plan
from data_tools.processes import Ended, run_at_most

BUDGET_S = 480.0
# Less is not worth the start of a process.
_LEAST_S = 15.0
_NOT_AT_HAND = "no CUDA device at hand"
Say = Callable[[str], None]


def gpu_test(
    out: Path, say: Say, device: str = "cuda", sizes: str = "full", budget_s: float = BUDGET_S, root: Path = ROOT
) -> dict[str, Any]:
    """Every step of the plan in turn; what `budget_s` does not reach, or what fails, becomes a row that says so.

    sizes: a key of gpu_plan.SIZES. device: cpu walks through it for a test. Rows are written after each step.
    Returns {"rows": [...], "files": [...], "problems": [...]}: problems are failed tests and what could not be asked.

    Raises:
        DataError: no such device, nothing is written then; or `out` cannot be written to.
    """
    from data_tools.errors import DataError

    started = time.monotonic()
    facts = _facts(root)
    if device == "cuda" and facts.get("gpu") is None:
        raise DataError(
            f"{facts.get('error') or 'torch ' + facts['packages']['torch'] + ' sees no CUDA device'}; nothing was "
            "measured. Run it on a machine with a GPU, or write rows that say `not measured` with "
            "`pipeline bench-gpu --not-measured`"
        )
    for package, needs in facts["missing"].items():
        say(f"missing: {package}, needed for {needs}")
    rows: list[dict[str, Any]] = [{"work": "environment", "date": _today()} | facts]
    steps = plan(SIZES[sizes], root)
    for number, step in enumerate(steps):
        left = budget_s - (time.monotonic() - started)
        if left < _LEAST_S:
            rows += [
                not_measured(row, f"time: the budget of {budget_s:.0f} s was spent", _today()) for row in step.rows
            ]
            say(f"{step.name}: not measured (time)")
            continue
        say(f"{step.name}: step {number + 1} of {len(steps)}, {left:.0f} s left")
        # A larger budget gives each step more time, too.
        most_s = min(step.most_s * max(1.0, budget_s / BUDGET_S), left)
        found = _run(step, device, sizes, most_s, root, facts)
        rows += found
        say(f"  {_told(found)}")
        _write(out, rows)
    files = _write(out, rows)
    failed = [f"{row['work']}: {row['outcome']}" for row in rows if row.get("failed")]
    failed += [f"{row['work']}: {row['not_measured']}" for row in rows if _is_tests(row) and row.get("not_measured")]
    say(f"written: {', '.join(map(str, files))}, {time.monotonic() - started:.0f} s in all")
    return {"rows": rows, "files": [str(path) for path in files], "problems": failed}


def write_not_measured(out: Path, reason: str = _NOT_AT_HAND, root: Path = ROOT) -> dict[str, Any]:
    """The files of `gpu_test` where nothing could be measured: every planned row with `reason` and today's date."""
    rows = [not_measured(row, reason, _today()) for step in plan(SIZES["full"], root) for row in step.rows]
    return {"rows": rows, "files": [str(path) for path in _write(out, rows)], "problems": []}


def _write(out: Path, rows: Sequence[dict[str, Any]]) -> list[Path]:
    from data_tools.files import write_json, write_text

    files = [out / "gpu.json", out / "gpu.md"]
    write_json(files[0], list(rows))
    write_text(files[1], as_markdown(rows))
    return files


def _facts(root: Path) -> dict[str, Any]:
    """What the machine has, asked in a process of its own: a torch that fails to load is a fact too."""
    program = "import json; from benchmarks.gpu_machine import machine; print(json.dumps(machine()))"
    done = _process([sys.executable, "-c", program], 120, root)
    try:
        facts: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        return facts
    except (ValueError, IndexError):
        return {"gpu": None, "missing": missing(), "error": f"torch cannot be asked ({_last_line(done)})"}


def _run(step: Step, device: str, sizes: str, most_s: float, root: Path, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one step: those it gave, and for the planned ones that it did not give, why."""
    with tempfile.TemporaryDirectory() as name:
        if step.kind == "tests":
            return [_tests(step, most_s, root, Path(name) / "report.xml", facts)]
        file = Path(name) / "rows.jsonl"
        command = [sys.executable, "-m", "benchmarks.gpu_steps", step.name, "--rows", str(file)]
        done = _process([*command, "--device", device, "--sizes", sizes], most_s, root)
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = [row for line in lines if (row := _parsed(line)) is not None]
    have = {identity(row) for row in found}
    reason = f"time: stopped after {most_s:.0f} s" if done.code is None else _last_line(done)
    return found + [not_measured(row, reason, _today()) for row in step.rows if identity(row) not in have]


def _parsed(line: str) -> dict[str, Any] | None:
    """A row; None of a line that its process was writing when it was stopped."""
    try:
        row: dict[str, Any] = json.loads(line)
        return row
    except ValueError:
        return None


def _tests(step: Step, most_s: float, root: Path, report: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Run the tests marked gpu of one folder."""
    (row,) = step.rows
    folder = row["work"].rpartition(" ")[2]
    files = [str(path) for path in sorted((root / folder).glob("test_*.py")) if is_marked(path)]
    # Tests of an engine that is not installed have nothing to test.
    left_out = [engine for engine in ("spconv_triton", "spconv") if PACKAGES[engine][0] in facts["missing"]]
    chosen = ["-k", " and ".join(f"not {name}" for name in left_out)] if left_out else []
    command = [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-q", "--continue-on-collection-errors"]
    done = _process([*command, *chosen, f"--junitxml={report}", "-p", "no:cacheprovider"], most_s, root)
    if done.code is None or not report.is_file():
        reason = f"time: stopped after {most_s:.0f} s" if done.code is None else _last_line(done)
        return not_measured(row, reason, _today()) | {"output": done.output[-4000:]}
    counts = [
        {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
        for suite in ET.parse(report).iter("testsuite")
    ]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    failed = total["failures"] + total["errors"]
    outcome = f"{total['tests'] - failed - total['skipped']} passed, {failed} failed, {total['skipped']} skipped"
    found: dict[str, Any] = {"passed": total["tests"] - failed - total["skipped"], "failed": failed, "outcome": outcome}
    found |= {"left_out": left_out, "median_s": round(done.seconds, 1), "device": facts["gpu"], "date": _today()}
    return row | found | ({"output": done.output[-4000:]} if failed else {})


def _process(command: list[str], most_s: float, root: Path) -> Ended:
    """Run `command` in `root`, which it can import from, with all that it starts; ended after `most_s`."""
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    extra = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return run_at_most(command, most_s, root, extra)


def _last_line(done: Ended) -> str:
    lines = [line for line in done.output.splitlines() if line.strip()]
    return (lines[-1] if lines else f"it ended with code {done.code} without a word")[:300]


def _told(rows: Sequence[dict[str, Any]]) -> str:
    """What came of a step, in a line."""
    if _is_tests(rows[0]):
        return str(rows[0].get("outcome") or f"not measured: {rows[0]['not_measured']}")
    reasons = dict.fromkeys(row["not_measured"] for row in rows if row.get("not_measured"))
    measured = sum(not row.get("not_measured") for row in rows)
    return f"{measured} of {len(rows)} rows" + "".join(f"; {reason}" for reason in reasons)


def _is_tests(row: dict[str, Any]) -> bool:
    return str(row["work"]).startswith("tests marked gpu")


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit status 1: no GPU, or a test failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder for gpu.json and gpu.md")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="seconds in all; the rest is not measured")
    parser.add_argument("--not-measured", action="store_true", help="write rows that say so, and measure nothing")
    parser.add_argument("--device", default="cuda", help="cpu walks through it for a test")
    parser.add_argument("--sizes", choices=SIZES, default="full", help="tiny walks through it for a test")
    given = parser.parse_args(arguments)
    needed = [name for name in ("filelock", "safetensors") if _lacks(name)]
    if needed:
        sys.stderr.write(f"error: install {' and '.join(needed)} first: no row can be written without\n")
        return 1
    from data_tools.errors import DataError

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    try:
        if given.not_measured:
            result = write_not_measured(given.out)
        else:
            result = gpu_test(given.out, say, given.device, given.sizes, given.budget_s)
    except DataError as error:
        say(f"error: {error}")
        return 1
    for problem in result["problems"]:
        say(f"error: {problem}")
    return 1 if result["problems"] else 0


def _lacks(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is None


if __name__ == "__main__":
    sys.exit(main())

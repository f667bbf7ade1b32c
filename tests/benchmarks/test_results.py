"""Results in the repository: each once and small, and every file that the overview names is there."""

import json
import re
from pathlib import Path

from benchmarks.rows import LONGEST_LINE

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_each_result_is_small():
    files = [path for path in (BENCHMARKS / "results").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".md"}
    assert sum(path.stat().st_size for path in files) < 300_000
    for path in files:
        if path.suffix == ".json":
            text = path.read_text(encoding="utf-8")
            assert json.loads(text), path
            assert max(map(len, text.splitlines())) < LONGEST_LINE + 100, path
            assert path.with_suffix(".md").is_file(), path


def test_the_overview_names_files_that_are_there():
    links = re.findall(r"\]\(([^)#]+)\)", (BENCHMARKS / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 15
    assert [link for link in links if not (BENCHMARKS / link).exists()] == []

"""docs/corpora names a test for every fact of a release: each of those tests must be there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGES = sorted((TESTS.parent / "docs" / "corpora").glob("*.md"))
# A row of the tables: | fact | what is done | `test_...`, or why there is none |
ROW = re.compile(r"^\|([^|]*)\|([^|]*)\|([^|]*)\|$", re.MULTILINE)
HEADER = ("fact", "what is done", "test")


@pytest.fixture(scope="module")
def defined():
    """The names of all test functions."""
    return {name for path in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_test_that_a_page_names_is_there(page, defined):
    named = re.findall(r"`(?:[\w/]+\.py::)?(test_\w+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if name not in defined] == []


@pytest.mark.parametrize("page", [page for page in PAGES if HEADER[1] in page.read_text(encoding="utf-8")], ids=str)
def test_every_row_of_a_table_of_facts_names_a_test_or_says_why_not(page):
    rows = [tuple(cell.strip() for cell in cells) for cells in ROW.findall(page.read_text(encoding="utf-8"))]
    facts = [row for row in rows if row != HEADER and set(row[0]) != {"-"}]
    assert len(facts) >= 10
    assert [fact for fact, _, shown in facts if "`test_" not in shown and not shown.startswith("none:")] == []

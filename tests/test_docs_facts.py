"""docs/corpora names a test for every fact of a release, docs/ a meaning for every reason: they must be there."""

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


def test_every_reason_for_a_reject_is_explained():
    """Codes as they stand in the source: a word, a colon and a word, or one of the plain ones."""
    root = TESTS.parent
    source = "\n".join(path.read_text(encoding="utf-8") for path in (root / "data_tools").rglob("*.py"))
    kinds = "audio|clip|duplicate|fold|folder|id|interval|known|labels|path|row|split|transcript|video|worker"
    codes = set(re.findall(rf'"((?:{kinds}):[a-z_]+)"', source)) | set(
        re.findall(r'"(no_[a-z]+|unlabelled|duplicate)"', source)
    )
    pages = "\n".join(path.read_text(encoding="utf-8") for path in [root / "docs" / "data.md", *PAGES])
    assert len(codes) > 25
    assert sorted(code for code in codes if f"`{code}`" not in pages) == []

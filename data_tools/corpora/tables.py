"""A table that a person or a stranger made, as text: CSV, TSV, JSON, JSON lines or Parquet.

Every cell stays the text that it was: `007`, `NA`, `1e5`, `True` and `=1+1` are not turned into anything else.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_tools.corpora import parquet_child
from data_tools.encodings import decode
from data_tools.errors import DataError
from data_tools.impostor import check_genuine
from data_tools.processes import read_apart

TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
SPREADSHEET_SUFFIXES = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
# Beyond these a table is refused. They hold for what is on disk and for what a packed table unfolds to.
MAX_BYTES = 128 * 2**20
MAX_ROWS = 1_000_000
MAX_CELLS = 20_000_000
MAX_CELL_CHARACTERS = 131_072
# For a Parquet file, which is read in a process of its own: one flipped byte can make the Arrow library crash.
TIME_LIMIT_S = 120.0

_DELIMITERS = (",", ";", "\t")
# Excel writes such a line above the header, and reads it.
_SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?(?:\r\n?|\n|\Z)', re.IGNORECASE)
# Tables that were glued together repeat it.
HEADER_AGAIN = "it repeats the header"
_PARQUET_MARK = b"PAR1"

# A row as it was found: its number, and its cells by column or, as a text, why it cannot be used.
_Row = tuple[int, dict[str, str] | str]


@dataclass(frozen=True)
class Table:
    """A table and what could not be used of it.

    rows: (R, columns), every cell a str, "" where there is none; the index is the number of the row in the file.
    bad: (number, why) of each row that is not in `rows`.
    unit: what the numbers count: "line" of a text file, from 1 with the header, or "row", from 1.
    """

    rows: pd.DataFrame
    bad: list[tuple[int, str]]
    unit: str


def read_table(path: Path, encoding: str | None = None) -> Table:
    """The table in `path`, whose suffix says what it is: .csv, .tsv, .json, .jsonl, .ndjson or .parquet.

    Text is what its byte order mark says, else in `encoding`, else UTF-8. A CSV may be separated by commas, semicolons
    or tabs, or by what Excel's first line `sep=;` says; quotes and line breaks inside them are as in RFC 4180. JSON is
    a list of flat objects. Rows with too few or too many cells, with a NUL, with lists inside, or that repeat the
    header (HEADER_AGAIN; the rows below may have another order of columns), are in `bad`; empty ones don't count.
    Columns without a name are left out.

    Raises:
        DataError: no such file, another format (a spreadsheet, a nested Parquet column), another encoding, two
            columns of one name, broken quotes, no row that can be used, or beyond a limit (MAX_*).
    """
    unit, read = _format(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise DataError(f"{path} is not a file; expected a table")
        if size > MAX_BYTES:
            raise DataError(f"{path} has {size} bytes; the limit for a table is {MAX_BYTES}: split it")
        check_genuine(path)
        found = list(_limited(path, read(path, encoding)))
    except OSError as error:
        raise DataError(f"the table {path} cannot be read: {error.strerror or error}") from error
    columns: dict[str, None] = {}
    good, bad = {}, []
    for number, row in found:
        if isinstance(row, str):
            bad.append((number, row))
        else:
            good[number] = row
            columns.update(dict.fromkeys(row))
    if not good:
        why = f"; {unit} {bad[0][0]}: {bad[0][1]}" if bad else ""
        raise DataError(f"{path} has no row that can be used{why}")
    if len(good) * len(columns) > MAX_CELLS:
        raise DataError(f"{path} has {len(good)} rows of {len(columns)} columns; the limit is {MAX_CELLS} cells")
    # Objects, not pandas' own strings: a text that a million rows share is kept once.
    cells = {name: [row.get(name, "") for row in good.values()] for name in columns}
    return Table(pd.DataFrame(cells, index=list(good), dtype=object), bad, unit)


def _format(path: Path) -> tuple[str, Callable[[Path, str | None], Iterator[_Row]]]:
    """Unit that rows are counted in, and the function that reads them."""
    suffix = path.suffix.lower()
    if suffix in SPREADSHEET_SUFFIXES:
        raise DataError(f"{path} is a spreadsheet; save it as CSV (UTF-8) and give that")
    formats: dict[str, tuple[str, Callable[[Path, str | None], Iterator[_Row]]]] = {
        ".csv": ("line", _read_csv),
        ".tsv": ("line", _read_csv),
        ".json": ("row", _read_json),
        ".jsonl": ("line", _read_json_lines),
        ".ndjson": ("line", _read_json_lines),
        ".parquet": ("row", _read_parquet),
    }
    if suffix not in formats:
        raise DataError(f"{path} is no table by its name; expected one of {', '.join(formats)}")
    return formats[suffix]


def _limited(path: Path, rows: Iterable[_Row]) -> Iterator[_Row]:
    """`rows` without the empty ones and with the unusable ones marked; raises DataError beyond a limit."""
    count = characters = 0
    for number, row in rows:
        if isinstance(row, dict) and not any(cell.strip() for cell in row.values()):
            continue
        count += 1
        characters += len(row) if isinstance(row, str) else sum(map(len, row.values()))
        if count > MAX_ROWS:
            raise DataError(f"{path} has more than {MAX_ROWS} rows, the limit for a table: split it")
        if characters > MAX_BYTES:
            raise DataError(f"{path} unfolds to more than {MAX_BYTES} characters, the limit for a table: split it")
        yield number, row if isinstance(row, str) else _unusable(row) or row


def _unusable(row: dict[str, str]) -> str:
    """Reason that no file of ours could hold this row; empty where one could."""
    for name, cell in row.items():
        if len(cell) > MAX_CELL_CHARACTERS:
            return f"the cell {name!r} has {len(cell)} characters; the limit is {MAX_CELL_CHARACTERS}"
        if "\0" in cell:
            return f"the cell {name!r} holds a NUL character"
        if not cell.isascii() and cell != cell.encode("utf-8", "replace").decode():
            return f"the cell {name!r} holds half of a surrogate pair, which is no character"
    return HEADER_AGAIN if all(name.lower() == cell.strip().lower() for name, cell in row.items()) else ""


def _read_csv(path: Path, encoding: str | None) -> Iterator[_Row]:
    text = decode(path.read_bytes(), path, encoding)
    lines = io.StringIO(text, newline="")
    separator = _SEPARATOR_LINE.match(text)
    if separator:
        lines.readline()
    # Strict: otherwise a quote that is never closed takes the whole rest of the file into one cell.
    reader = csv.reader(lines, delimiter=separator[1] if separator else _delimiter(text), strict=True)
    names: list[str] = []
    by_name: dict[str, str] = {}
    line = 1
    while True:
        line = reader.line_num + 1 + bool(separator)
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f'{path}, line {line}: {error}; a cell with quotes in it is written "like ""this"""'
            ) from error
        if cells is None:
            break
        if not names and any(cell.strip() for cell in cells):
            names = _columns(path, cells)
            by_name = {name.lower(): name for name in names}
        elif _names_of(cells, by_name) == sorted(names):
            names = [by_name[cell.strip().lower()] for cell in cells]
            yield line, HEADER_AGAIN
        elif names and len(cells) == len(names):
            yield line, {name: cell for name, cell in zip(names, cells, strict=True) if name}
        elif names and any(cell.strip() for cell in cells):
            yield line, f"it has {len(cells)} cells, the header {len(names)}"
    if not names:
        raise DataError(f"{path} is empty; expected a line with the names of the columns, then one line an utterance")


def _names_of(cells: list[str], by_name: Mapping[str, str]) -> list[str] | None:
    """The sorted names of columns that `cells` repeat; None where they are anything else."""
    found = []
    for cell in cells:
        name = by_name.get(cell.strip().lower())
        if name is None:
            return None
        found.append(name)
    return sorted(found)


def _delimiter(text: str) -> str:
    """The one that splits the header most often; a comma where none does."""
    header = next((line for line in io.StringIO(text[:MAX_CELL_CHARACTERS], newline=None) if line.strip()), "")
    return max(_DELIMITERS, key=header.count)


def _columns(path: Path, cells: Iterable[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if any("\0" in name for name in names):
        raise DataError(f"{path} holds NUL bytes: it is UTF-16 without a mark, or no text; save it as UTF-8")
    _check_twice(path, names)
    return names


def _check_twice(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two columns called {', '.join(map(repr, twice))}; rename one")


def _read_json(path: Path, encoding: str | None) -> Iterator[_Row]:
    try:
        values = _parse_json(decode(path.read_bytes(), path, encoding))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, list) or isinstance(values, _Object):
        raise DataError(f'{path} holds no list; expected [{{"video": ...}}, ...], one flat object an utterance')
    for number, value in enumerate(values, start=1):
        yield number, _object(value)


def _read_json_lines(path: Path, encoding: str | None) -> Iterator[_Row]:
    # Not splitlines: that one also breaks at marks which may stand inside a JSON string.
    for number, line in enumerate(decode(path.read_bytes(), path, encoding).split("\n"), start=1):
        if line.strip():
            try:
                row = _object(_parse_json(line))
            except ValueError as error:
                row = f"it is not JSON: {error}"
            yield number, row


class _Object(list[tuple[str, Any]]):
    """A JSON object as pairs, so that a name that occurs twice is seen."""


def _parse_json(text: str) -> Any:
    """The value of a JSON text, with every number as it is written; raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError:
        raise ValueError("it is nested too deeply; expected flat objects") from None


def _object(value: object) -> dict[str, str] | str:
    """A flat JSON object as a row, or why it is none."""
    if not isinstance(value, _Object):
        return "it is not an object {...}"
    row: dict[str, str] = {}
    for raw_name, cell in value:
        name = raw_name.strip()
        if name in row:
            return f"the name {name!r} occurs twice"
        if isinstance(cell, list):
            return f'{name!r} holds a list or an object; expected plain text (several labels: "a; b")'
        if name:
            row[name] = _cell(cell)
    return row


def _cell(value: object) -> str:
    """A plain JSON value as text; its numbers are texts already."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _read_parquet(path: Path, _: str | None) -> Iterator[_Row]:
    problem = f"{path} cannot be used as a Parquet table"
    with path.open("rb") as file:
        if file.read(4) != _PARQUET_MARK:
            raise DataError(f"{problem}: it does not begin with {_PARQUET_MARK.decode()}")
    limits = [str(limit) for limit in (MAX_BYTES, MAX_ROWS, MAX_CELLS)]
    lines = io.BytesIO(read_apart(parquet_child.__file__, [str(path.absolute()), *limits], problem, TIME_LIMIT_S))
    names = _columns(path, json.loads(next(lines)))
    for number, line in enumerate(lines, start=1):
        yield number, {name: cell for name, cell in zip(names, json.loads(line), strict=True) if name}

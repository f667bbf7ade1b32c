"""Measured rows: where and when they were measured, how they are merged, and how they are kept as JSON."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_tools.errors import DataError

RESULTS = Path("benchmarks/results")
# Significant digits of a float in a result: far more than a page shows, so that rounding again changes no cell of it.
DIGITS = 8
# A list or an object is written in one line up to so many characters.
LONGEST_LINE = 2000
# What makes a row the same measurement, made again.
_SAME = ("work", "model", "top_p", "batch", "precision", "asked", "mode", "device", "layout", "utterances", "code")


def measured_on(device: str) -> dict[str, Any]:
    """Fields of a row that say where and when it was measured. device: the machine in words."""
    import torch

    return {
        "device": device,
        "versions": {"torch": torch.__version__, "python": sys.version.split()[0]},
        "date": today(),
    }


def today() -> str:
    """Today's date in UTC, e.g. 2026-01-31."""
    return datetime.now(UTC).date().isoformat()


def model_name(row: dict[str, Any]) -> str:
    """Name of the row's model with its top-p, e.g. `mesm p 0.5`."""
    return str(row["model"]) + ("" if row["top_p"] is None else f" p {row['top_p']}")


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `old`, each replaced in its place where `new` has it again, and behind them the other new rows."""
    again = {_identity(row): row for row in new}
    return [again.pop(_identity(row), row) for row in old] + list(again.values())


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _SAME)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier run; none where there is no file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return rows
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); restore it, or delete it and measure all of it again") from error


def write_result(folder: Path, name: str, result: Any, page: str) -> list[Path]:
    """Write `result` to `name`.json and `page` to `name`.md in `folder`; returns both paths.

    Raises:
        DataError: the folder cannot be written to.
    """
    # Not above: it needs packages that a machine which only looks for its GPU may lack.
    from data_tools.files import write_text

    files = [folder / f"{name}.json", folder / f"{name}.md"]
    write_text(files[0], as_json(result) + "\n")
    write_text(files[1], page)
    return files


def as_json(value: Any, indent: str = "") -> str:
    """JSON with a row a line: whatever is longer than LONGEST_LINE, and the outermost, has a line for each member."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not value or not isinstance(value, dict | list | tuple) or (indent and len(line) <= LONGEST_LINE):
        return line
    deeper = indent + " "
    if isinstance(value, dict):
        members = [f"{json.dumps(str(name))}: {as_json(member, deeper)}" for name, member in value.items()]
    else:
        members = [as_json(member, deeper) for member in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{deeper}" + f",\n{deeper}".join(members) + f"\n{indent}{last}"


def rounded(value: Any) -> Any:
    """Copy of `value` with every float in it rounded to DIGITS significant digits."""
    if isinstance(value, dict):
        return {name: rounded(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(member) for member in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value

"""The models' speed side by side, written into docs/benchmarks by the command that measured it."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.attention import attention_rows
from benchmarks.cases import SCOPES, Precision
from benchmarks.curves import curve_rows
from benchmarks.floors import floor_rows
from benchmarks.models import TOP_P, bench_models
from benchmarks.tables import as_markdown
from data_tools.errors import DataError
from data_tools.files import write_json, write_text
from pipeline.progress import Reporter
from pipeline.settings import ConfigError

BATCHES = (8, 32)
PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")
PARTS = ("models", "attention", "curves", "floors")
# A step of batch 32 takes many seconds: fewer of them, none to warm up (the median of three passes over one that is
# slow), the two shares of the targets, and the memory of the whole model alone.
LARGE_BATCH = 16
_REPEATS, _REPEATS_OF_LARGE = 5, 3
# What makes a row the same measurement, made again.
_SAME = ("work", "model", "top_p", "batch", "precision", "asked", "mode", "device")


def bench(
    out: Path,
    reporter: Reporter,
    batches: Sequence[int] = BATCHES,
    precisions: Sequence[Precision] = PRECISIONS,
    parts: Sequence[str] = PARTS,
    scopes: Sequence[str] = tuple(SCOPES),
    repeats: int | None = None,
    width: int = 64,
) -> dict[str, Any]:
    """Measure on the CPU and write `out`/cpu.json, one object a row, and a page of it beside.

    Wants the machine for itself; all of it takes under 20 minutes on two cores. parts: models (FE2E and MESM timed),
    attention (its share of a step), curves (losses in both precisions),
    floors (the least time there could be).
    repeats: None for five at small batches and three at large ones.
    A row that is measured again takes the place of the old one; all others stay with their own date, so that one part
    can be run alone. Each finished part is written at once. Returns {"rows": [...], "files": [...]}.

    Raises:
        ConfigError: an unknown part, scope or precision.
        DataError: `out` cannot be written to, or holds a damaged cpu.json.
    """
    for name, given, known in (
        ("part", parts, PARTS),
        ("scope", scopes, SCOPES),
        ("precision", precisions, PRECISIONS),
    ):
        if unknown := [value for value in given if value not in known]:
            raise ConfigError(f"{name} is {unknown[0]!r}; known: {', '.join(known)}")
    files = [out / "cpu.json", out / "cpu.md"]
    rows = read_rows(files[0])
    for measure in _measurements(reporter, batches, precisions, parts, tuple(scopes), repeats, width):
        rows = merged(rows, measure())
        write_json(files[0], rows)
        write_text(files[1], as_markdown(rows))
    reporter.say(f"written: {', '.join(map(str, files))}")
    return {"rows": rows, "files": [str(path) for path in files]}


def _measurements(
    reporter: Reporter,
    batches: Sequence[int],
    precisions: Sequence[Precision],
    parts: Sequence[str],
    scopes: tuple[str, ...],
    repeats: int | None,
    width: int,
) -> list[Callable[[], list[dict[str, Any]]]]:
    todo: list[Callable[[], list[dict[str, Any]]]] = []
    for batch in batches:
        large = batch >= LARGE_BATCH
        times = repeats or (_REPEATS_OF_LARGE if large else _REPEATS)
        for precision in precisions:
            common: dict[str, Any] = {"batch": batch, "repeats": times, "precision": precision, "width": width}
            if "models" in parts:
                how: dict[str, Any] = {"top_p": TOP_P[:2] if large else TOP_P, "warm_up": not large, "scopes": scopes}
                how["peak_scopes"] = ("whole model",) if large else tuple(SCOPES)
                todo.append(partial(bench_models, reporter, **common, **how))
            if "attention" in parts and not large:
                todo.append(partial(attention_rows, reporter, **common, scopes=scopes))
    if "curves" in parts:
        todo.append(partial(curve_rows, reporter, precisions, width=width))
    if "floors" in parts:
        shape: dict[str, Any] = {"batches": tuple(batches), "scopes": scopes, "width": width}
        todo.append(partial(floor_rows, reporter, precisions=tuple(precisions), **shape))
    return todo


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`old` with every row that `new` has again replaced in its place, and the other new rows behind."""
    again = {_identity(row): row for row in new}
    return [again.pop(_identity(row), row) for row in old] + list(again.values())


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _SAME)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of an earlier run; none where there is no file.

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

"""A table that belongs to a release: the columns that are needed, and a reject for each row that is damaged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_tools.corpora.release import Release
from data_tools.corpora.tables import Table, read_table
from data_tools.errors import DataError


def read_release_table(release: Release, path: Path, needed: Sequence[str], fallback_encoding: str) -> Table:
    """The table in `path`; its damaged rows become rejects `labels:unreadable` without an id.

    fallback_encoding: what it is read in, with a note, where it is not UTF-8.

    Raises:
        DataError: as `read_table`, or a column of `needed` is missing.
    """
    try:
        table = read_table(path)
    except DataError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        table = read_table(path, encoding=fallback_encoding)
        release.notes.append(f"{path.name} is not UTF-8; it is read as {fallback_encoding}: look at a few texts")
    missing = [name for name in needed if name not in table.rows.columns]
    if missing:
        columns = ", ".join(table.rows.columns)[:200]
        raise DataError(f"{path} has no column {', '.join(missing)}; its columns are {columns or 'none'}")
    for number, why in table.bad:
        release.reject(None, path, "labels:unreadable", f"line {number}: {why}")
    return table


def numbered_rows(table: Table) -> Iterator[tuple[int, dict[str, str]]]:
    """(line in the file, cells by column) of each good row."""
    return zip(table.rows.index, table.rows.to_dict("records"), strict=True)

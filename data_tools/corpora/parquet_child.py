"""Child program of `tables.read_table`: a Parquet file -> its rows as lines of JSON.

One flipped byte can make the Arrow library abort the process that reads it. Here that costs this process only. It is
started by its path and imports nothing of the project. Exit status 3: the file cannot be used; the reason is on stderr.
"""

import json
import resource
import sys
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

REFUSED = 3
MAX_MEMORY_BYTES = 8 * 2**30
_BATCH_ROWS = 4096


class _RefusedError(Exception):
    """A file that is not used; the argument says why."""


def read(path: str, max_bytes: int, max_rows: int, max_cells: int) -> Iterator[list[str]]:
    """The names of the columns, then the cells of each row, as text; "" for none.

    max_bytes: also of the characters of all cells. What the file says of itself is checked before anything is unpacked.
    """
    with pq.ParquetFile(path, thrift_string_size_limit=max_bytes, thrift_container_size_limit=max_rows) as file:
        _check_plain(file.schema_arrow)
        _check_size(file, max_bytes, max_rows, max_cells)
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
    # Texts stay folded into a list of the different ones: unfolded, a file of kilobytes can fill the memory.
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        yield file.schema_arrow.names
        characters = 0
        for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
            batch.validate(full=True)  # indices of a damaged file may lead out of the memory
            for row in zip(*map(_unfold, batch.columns), strict=True):
                characters += sum(map(len, row))
                if characters > max_bytes:
                    raise _RefusedError(f"it unfolds to more than {max_bytes} characters, the limit for a table")
                yield list(row)


def _check_plain(schema: pa.Schema) -> None:
    odd = [f"{field.name!r} ({field.type})" for field in schema if not _is_plain(field.type)]
    if odd:
        raise _RefusedError(f"the columns {', '.join(odd[:5])} hold no plain values; leave out such columns")


def _check_size(file: pq.ParquetFile, max_bytes: int, max_rows: int, max_cells: int) -> None:
    about = file.metadata
    groups = range(about.num_row_groups)
    size = sum(about.row_group(i).column(j).total_uncompressed_size for i in groups for j in range(about.num_columns))
    cells = about.num_rows * about.num_columns
    if about.num_rows > max_rows or size > max_bytes or cells > max_cells:
        raise _RefusedError(
            f"it holds {about.num_rows} rows, {cells} cells and {size} bytes unpacked; the limits for a table are "
            f"{max_rows}, {max_cells} and {max_bytes}: split it"
        )


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_plain(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null, pa.types.is_decimal)
    return _is_text(inner) or pa.types.is_time(inner) or any(test(inner) for test in tests)


def _unfold(column: pa.Array) -> list[str]:
    if not pa.types.is_dictionary(column.type):
        return [_cell(value) for value in column.to_pylist()]
    different = [_cell(value) for value in column.dictionary.to_pylist()]
    return ["" if index is None else different[index] for index in column.indices.to_pylist()]


def _cell(value: object) -> str:
    """A plain value as text. Numbers as Python writes them, which is exact for float64."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def main(path: str, *limits: str) -> int:
    """Write the lists of `read` to standard output, one a line."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        for row in read(path, *map(int, limits)):
            sys.stdout.write(json.dumps(row) + "\n")
    except Exception as error:  # whatever the library says of a file that is none
        reason = str(error) if isinstance(error, _RefusedError) else f"{type(error).__name__}: {error}"
        sys.stderr.buffer.write(reason.encode(errors="replace"))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

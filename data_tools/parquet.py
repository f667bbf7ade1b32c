"""Parquet files of ours, read within limits: what a file says of itself is checked before anything is unpacked."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.files import atomic_path

# CMU-MOSEI, the largest corpus here, has 23,500 rows of 30 columns and 4 million characters.
MAX_BYTES = 512 * 2**20
MAX_ROWS = 5_000_000
MAX_COLUMNS = 10_000
MAX_CELLS = 100_000_000
# The rows that pandas puts into a group: of smaller batches each would get all texts of the group so far.
_BATCH_ROWS = 1 << 20


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index, whole or not at all. Raises DataError where it cannot be written."""
    # A file and not its name, which pyarrow would have to be UTF-8.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        table.to_parquet(file, index=False)


def read_parquet(path: Path) -> pd.DataFrame:
    """The table in a Parquet file of texts and numbers.

    Raises:
        ValueError: it is none, is damaged, has columns of another kind or is beyond a limit (MAX_*); says what.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes, more than {MAX_BYTES}")
    try:
        with (
            path.open("rb") as content,
            pq.ParquetFile(content, thrift_string_size_limit=MAX_BYTES, thrift_container_size_limit=MAX_ROWS) as file,
        ):
            schema = file.schema_arrow
            texts = [field.name for field in schema if _is_text(field.type)]
            _check(file)
        # Texts stay folded into a list of the different ones: unfolded, a file of kilobytes can fill the memory.
        with path.open("rb") as content, pq.ParquetFile(content, read_dictionary=texts) as file:
            characters, batches = 0, []
            for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                batch.validate(full=True)  # indices of a damaged file may lead out of the memory
                characters += sum(_characters(column) for column in batch.columns)
                if characters > MAX_BYTES:
                    raise ValueError(f"it unfolds to more than {MAX_BYTES} characters")
                batches.append(batch)
            folded = pa.Table.from_batches(batches, file.schema_arrow)
        table = folded.cast(schema.remove_metadata()).replace_schema_metadata(schema.metadata)
        return table.to_pandas(use_threads=False)
    except (pa.ArrowException, KeyError, TypeError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split()):.200}") from error


def _check(file: pq.ParquetFile) -> None:
    odd = [f"{f.name!r} ({f.type})" for f in file.schema_arrow if not (_is_text(f.type) or _is_number(f.type))]
    if odd:
        raise ValueError(f"the columns {', '.join(odd[:5])} are neither texts nor numbers")
    if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
        raise ValueError("two columns have one name")
    about = file.metadata
    rows, columns = about.num_rows, about.num_columns
    if columns > MAX_COLUMNS or rows > MAX_ROWS or rows * columns > MAX_CELLS:
        raise ValueError(
            f"it says that it has {rows} rows of {columns} columns; the limits are {MAX_ROWS} and {MAX_COLUMNS}, and "
            f"{MAX_CELLS} cells"
        )
    # Not the sizes of its columns: pyarrow ends the process where those of a damaged file contradict each other.
    size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if not 0 <= size <= MAX_BYTES:
        raise ValueError(f"it says that it unpacks to {size} bytes, and the limit is {MAX_BYTES}")


def _characters(column: pa.Array) -> int:
    """Bytes of the texts in a column, each as often as it occurs."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary)
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)

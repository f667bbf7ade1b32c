"""Bytes of a text file to text: in the encoding of its byte order mark, else in the one that is named, else UTF-8."""

import codecs
from pathlib import Path

from data_tools.errors import DataError

# The longer mark first: UTF-32's begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
NAME_IT = "save it as UTF-8, or name its encoding, e.g. --set 'reader={encoding: cp1252}'"


def decode(content: bytes, path: Path, encoding: str | None = None, remedy: str = NAME_IT) -> str:
    """The text of `content`, without its mark. Nothing is guessed.

    path, remedy: for the error. encoding: of a file without a mark; None for UTF-8.

    Raises:
        DataError: it is text in another encoding (the cause is a UnicodeDecodeError), or there is no such encoding.
    """
    marks = (name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark))
    name = next(marks, encoding or "utf-8")
    try:
        return content.decode(name)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start : error.start + 1]
        raise DataError(f"{path} is not {name} text (line {line}, byte {byte!r}); {remedy}") from error
    except (LookupError, ValueError) as error:
        raise DataError(f"{path} cannot be read as {name!r}: {error}; known are e.g. utf-8, cp1252, gb18030") from error

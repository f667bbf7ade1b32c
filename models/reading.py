"""Files of a saved model, read within limits. A model may come from a stranger."""

import json
from pathlib import Path
from typing import Any

# model.json has a few kilobytes.
_MAX_BYTES = 2**22
_MAX_DEPTH = 64


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: it cannot be read. ValueError: it is none, too large, too deep, or holds no plain text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or no file")
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{path} has more than {_MAX_BYTES} bytes")
    try:
        value = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    left = [(value, 0)]
    while left:
        part, depth = left.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"{path} is nested too deeply")
        if isinstance(part, str):
            part.encode()  # half of a surrogate pair is no text
        elif isinstance(part, dict):
            left += [(inner, depth + 1) for pair in part.items() for inner in pair]
        elif isinstance(part, list):
            left += [(inner, depth + 1) for inner in part]
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__} in place of an object")
    return value

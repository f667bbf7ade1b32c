"""Checks of a safetensors file of ours: its header and its offsets, before anything is cut out of it."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from data_tools.checksums import checksum_path, has_checksum
from data_tools.files import parse_json

T = TypeVar("T")


def read_header(file: Any, name: str) -> dict[str, Any]:
    """Our own header in an open safetensors file; empty where it has none. Raises ValueError where it is damaged."""
    text = (file.metadata() or {}).get(name)
    return {} if text is None else checked(parse_json(text.encode()), dict)


def checked(value: Any, kind: type[T]) -> T:
    """`value`, which must be of this type. Raises ValueError."""
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} in place of a {kind.__name__}")
    return value


def checked_ids(value: Any) -> list[str]:
    """`value`, which must be a list of different texts. Raises ValueError."""
    ids = [checked(name, str) for name in checked(value, list)]
    if len(set(ids)) < len(ids):
        raise ValueError("one id occurs twice")
    return ids


def read_offsets(file: Any, name: str, count: int, of: Sequence[str]) -> list[int]:
    """The (count + 1,) offsets called `name` of an open safetensors file, at which the rows of tensors are cut.

    of: the tensors that they cut; the last offset is the number of rows of each.

    Raises:
        ValueError: they fall, or reach beyond the rows. SafetensorError: the file has no such tensor.
    """
    check_tensor(file, name, "I64", (), rows=count + 1)
    offsets: list[int] = file.get_tensor(name).tolist()
    if offsets[0] != 0 or any(after < before for before, after in itertools.pairwise(offsets)):
        raise ValueError(f"{name} do not rise from 0")
    for tensor in of:
        if (rows := file.get_slice(tensor).get_shape()[0]) != offsets[-1]:
            raise ValueError(f"{tensor} has {rows} rows, its offsets end at {offsets[-1]}")
    return offsets


def check_tensor(
    file: Any, name: str, dtype: str, shape: tuple[int | None, ...], rows: int | None = None
) -> tuple[int, ...]:
    """The shape of a tensor; dtype, shape: what it must have, the first axis apart. None: any size.

    Raises:
        ValueError: it has another. SafetensorError: the file has no such tensor.
    """
    found = file.get_slice(name)
    own = tuple(found.get_shape())
    wanted = (rows, *shape)
    fits = len(own) == len(wanted) and all(size in (None, has) for size, has in zip(wanted, own, strict=True))
    if found.get_dtype() != dtype or not fits:
        raise ValueError(f"{name} is {found.get_dtype()} {list(own)}")
    return own


def delete_ours(folder: Path, spared: Collection[str] = ()) -> None:
    """Delete the stores or features of dialogues in `folder` that are not `spared`, and nothing that we did not write.

    What has no checksum and no header of ours stays: it is of someone else, or too damaged to tell.
    """
    for path in folder.glob("*.safetensors"):
        if path.stem not in spared and (has_checksum(path) or _has_our_header(path)):
            path.unlink(missing_ok=True)
            checksum_path(path).unlink(missing_ok=True)


def _has_our_header(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return bool({"store", "features"} & (file.metadata() or {}).keys())
    except (OSError, SafetensorError):
        return False

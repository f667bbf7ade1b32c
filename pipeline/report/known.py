"""Ids that a person typed, held against those that there are."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from data_tools.errors import DataError


def check_known(ids: Sequence[str], known: Sequence[str], data: Path, which: str) -> None:
    """Refuse an id that is not in `known`; near ones are named.

    which: what `known` has, in words that end the sentence "no utterance X in the folder".

    Raises:
        DataError: the first such id.
    """
    for name in ids:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "none is like it"
            raise DataError(f"no utterance {name!r} in {data}{which}; {hint}")

"""A model that was shared: the files of its folder, and what is checked before any of them is read.

Such a folder comes from somebody else. Nothing in it is run, nothing outside of it is read because it says so, and what
it may name beside itself is an encoder that is packaged or was fetched before.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from data_tools.files import MAX_BYTES, read_json

# Written last: a folder with it was made by `pipeline share`.
MARK = "shared.json"
FORMAT = 1
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer"
# The files of a shared model beside those of its tokenizer. Others in the folder are neither read nor fetched.
NEEDED = (MARK, "settings.yaml", "data.json", "splits.json", "thresholds.json", "model.json", WEIGHTS)
FILES = (*NEEDED, "metrics.json", "README.md")
# Forty times the largest model of the papers, in float32.
MAX_WEIGHT_BYTES = 8 * 2**30
MAX_TOKENIZER_FILES = 32
# A name on the hub; a text encoder of these names comes with the program.
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
PACKAGED_ENCODERS = ("minilm", "tiny")


class KnownIds(AbstractSet[str]):
    """Ids of utterances that can be asked for; of a shared run their digests are known and not the ids themselves."""

    def __init__(self, ids: Iterable[str], hashed: bool) -> None:
        self._ids = frozenset(ids)
        self._hashed = hashed

    def __contains__(self, name: object) -> bool:
        return (id_digest(name) if self._hashed and isinstance(name, str) else name) in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def digests(self) -> list[str]:
        """The digests of the ids, sorted."""
        return sorted(self._ids if self._hashed else map(id_digest, self._ids))


def id_digest(name: str) -> str:
    """16 hexadecimal digits of an id's SHA-256: enough to see again an utterance that one has oneself."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_shared(folder: Path) -> bool:
    """Return True if `pipeline share` made the folder, as far as it says."""
    return os.path.lexists(folder / MARK)


def size_limit(name: str) -> int:
    """Bytes that a file of a shared folder can have; name: relative to it."""
    return MAX_WEIGHT_BYTES if name == WEIGHTS else MAX_BYTES


def check_shared(folder: Path) -> None:
    """Refuse a shared folder whose files are incomplete, too large, links, or name a place outside.

    Raises:
        DataError: says which file, and why.
    """
    for name in NEEDED:
        if not os.path.lexists(folder / name):
            raise DataError(f"{folder} is no whole model of `pipeline share`: {name} is not there; get it again")
    for path in _files_of(folder):
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode):
            raise DataError(f"{path} is a link or no file; in a shared model nothing leads out of it: get it again")
        if about.st_size > (limit := size_limit(path.relative_to(folder).as_posix())):
            raise DataError(f"{path} has {about.st_size} bytes, the limit for such a file is {limit}")
    found = read_json(folder / MARK).get("format")
    if found != FORMAT:
        raise DataError(f"{folder / MARK} has format {found!r:.60}, this program reads {FORMAT}; update the program")
    _check_encoder(folder, read_json(folder / "data.json").get("features"))


def _files_of(folder: Path) -> list[Path]:
    tokenizer = folder / TOKENIZER
    if tokenizer.is_symlink() or (tokenizer.exists() and not tokenizer.is_dir()):
        raise DataError(f"{tokenizer} is a link or no folder; in a shared model nothing leads out of it")
    inside = sorted(tokenizer.iterdir()) if tokenizer.is_dir() else []
    if len(inside) > MAX_TOKENIZER_FILES:
        raise DataError(f"{tokenizer} has {len(inside)} files; no tokenizer has more than {MAX_TOKENIZER_FILES}")
    return [path for path in (*(folder / name for name in FILES), *inside) if os.path.lexists(path)]


def _check_encoder(folder: Path, features: Any) -> None:
    """Refuse features of an encoder that is a place on this machine. One of the hub is never fetched, only found."""
    settings = features.get("settings") if isinstance(features, dict) else None
    name = settings.get("text_encoder", "minilm") if isinstance(settings, dict) else "minilm"
    if name not in PACKAGED_ENCODERS and (
        not isinstance(name, str) or not HUB_NAME.fullmatch(name) or os.path.lexists(name)
    ):
        raise DataError(
            f"{folder / 'data.json'} names the text encoder {name!r:.100}, a place on this machine; expected "
            f"{' or '.join(PACKAGED_ENCODERS)}, or a name on the hub of one that you have fetched"
        )

"""Files that the cells of a table name, and their ids in the data set."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from data_tools.corpora.release import is_file

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv",
)  # fmt: skip
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma", ".aif", ".aiff")

# http://..., file:..., concat:...: two letters at least, for a single one is a drive of Windows.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:")
_DRIVE = re.compile(r"[A-Za-z]:")


_Names = dict[str, list[str]]


class NoFileError(Exception):
    """A cell that names no file of the folder: `reason`, a short code, and `detail`, a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Files:
    """The files below `root`, by what a table calls them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.find = cache(self._find)
        self._index = cache(self._list)

    def inside(self, cell: str) -> str:
        """The path that `cell` names, relative to the root, with forward slashes; nothing is looked up on disk.

        Raises:
            NoFileError: `path:outside`, for an absolute path or one with `..`.
        """
        path = PurePosixPath(cell.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or _DRIVE.match(cell):
            raise NoFileError(
                "path:outside", f"{cell[:200]!r} is not a path below the folder; copy or link the file into it"
            )
        return path.as_posix()

    def _find(self, cell: str, suffixes: tuple[str, ...]) -> str:
        """The file that `cell` names: as it stands, else without its suffix, which must be one of `suffixes`.

        Names of another Unicode form (macOS writes é as two characters) are the same names.

        Raises:
            NoFileError: `path:outside` also for an address, `video:ambiguous`, or `no_video`; for sounds
                `audio:ambiguous` and `no_audio`.
        """
        path = self.inside(cell)
        if is_file(self.root / path):
            return path
        if _ADDRESS.match(cell):
            raise NoFileError("path:outside", f"{cell[:200]!r} is an address; only files below the folder are read")
        folder, name = PurePosixPath(path).parent, _same(PurePosixPath(path).name)
        whole, stems = self._index(folder, suffixes)
        fitting = whole.get(name) or stems.get(name) or []
        kind = "video" if suffixes is VIDEO_SUFFIXES else "audio"
        if len(fitting) > 1:
            listed = ", ".join(fitting[:5])
            raise NoFileError(f"{kind}:ambiguous", f"{cell[:200]!r} may be any of {listed}: write the whole name")
        if not fitting:
            raise NoFileError(f"no_{kind}", f"there is no file {cell[:200]!r} below the folder")
        return (folder / fitting[0]).as_posix()

    def _list(self, folder: PurePosixPath, suffixes: tuple[str, ...]) -> tuple[_Names, _Names]:
        """The files of a folder by their names, and those with one of `suffixes` by their names without it."""
        whole, stems = defaultdict(list), defaultdict(list)
        try:
            paths = sorted(path for path in (self.root / folder).iterdir() if is_file(path))
        except OSError:
            paths = []
        for path in paths:
            whole[_same(path.name)].append(path.name)
            if path.suffix.lower() in suffixes:
                stems[_same(path.stem)].append(path.name)
        return whole, stems


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def unique_ids(paths: Iterable[str]) -> dict[str, str]:
    """An id for each path of a video: `a/b.mp4` is `a__b`.

    Those that would be called alike (`b.mp4` and `b.mov`) get a few letters made from the whole path behind it, so that
    the id depends on no order.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        plain = PurePosixPath(path)
        plain = plain.with_suffix("") if plain.suffix.lower() in VIDEO_SUFFIXES else plain
        alike["__".join(plain.parts)].append(path)
    return {
        path: name
        if len(members) == 1
        else f"{name}_{blake2b(path.encode(errors='replace'), digest_size=4).hexdigest()}"
        for name, members in alike.items()
        for path in members
    }

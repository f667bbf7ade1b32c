"""Files that the cells of a table name or that lie beside a video, and their ids in the data set."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from data_tools.corpora.release import is_file, is_folder

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv",
)  # fmt: skip
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma", ".aif", ".aiff")

# x.en.srt, x.pt-BR.vtt: the language of the words, in small letters.
_LANGUAGE = re.compile(r"\.([a-z]{2,3}(?:[-_][a-z0-9]{2,8})?)\Z")

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
        self._folders = cache(self._list_folders)

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

        Names of another Unicode form (macOS writes é as two characters) are the same names, and a suffix in capitals
        is the same suffix.

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
        whole, stems, _ = self._index(folder, suffixes)
        fitting = whole.get(_plain_suffix(name)) or stems.get(name) or []
        kind = "video" if suffixes is VIDEO_SUFFIXES else "audio"
        if len(fitting) > 1:
            listed = ", ".join(fitting[:5])
            raise NoFileError(f"{kind}:ambiguous", f"{cell[:200]!r} may be any of {listed}: write the whole name")
        if not fitting:
            near = self._other_case(PurePosixPath(path), suffixes)
            hint = f"; only the case of letters differs from {near!r}: write it so" if near else ""
            raise NoFileError(f"no_{kind}", f"there is no file {cell[:200]!r} below the folder{hint}")
        return (folder / fitting[0]).as_posix()

    def _other_case(self, path: PurePosixPath, suffixes: tuple[str, ...]) -> str:
        """The path of a file that differs from `path` in the case of letters alone; empty for none."""
        folder = PurePosixPath()
        for part in path.parent.parts:
            folder /= next(iter(self._folders(folder).get(_same(part).lower(), ())), part)
        near = self._index(folder, suffixes)[2].get(_same(path.name).lower())
        return (folder / near[0]).as_posix() if near else ""

    def _list_folders(self, folder: PurePosixPath) -> _Names:
        """The folders in a folder by their names in small letters."""
        by_name = defaultdict(list)
        for path in _sorted_content(self.root / folder):
            if is_folder(path):
                by_name[_same(path.name).lower()].append(path.name)
        return by_name

    def _list(self, folder: PurePosixPath, suffixes: tuple[str, ...]) -> tuple[_Names, _Names, _Names]:
        """The files of a folder by their names, those with one of `suffixes` by their names without it, and both in
        small letters.
        """
        whole, stems, lower = defaultdict(list), defaultdict(list), defaultdict(list)
        for path in filter(is_file, _sorted_content(self.root / folder)):
            whole[_plain_suffix(_same(path.name))].append(path.name)
            lower[_same(path.name).lower()].append(path.name)
            if path.suffix.lower() in suffixes:
                stems[_same(path.stem)].append(path.name)
                lower[_same(path.stem).lower()].append(path.name)
        return whole, stems, lower


def _sorted_content(folder: Path) -> list[Path]:
    """Content of a folder; nothing where it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _plain_suffix(name: str) -> str:
    """A name with its suffix in small letters."""
    path = PurePosixPath(name)
    return path.stem + path.suffix.lower()


class Beside:
    """The files that lie beside videos and have their names, in any case of letters."""

    def __init__(self) -> None:
        self._listed = cache(self._list)

    def find(self, video: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
        """Files called like `video`, with one of `suffixes`, by language: "" for x.srt beside x.mp4, "en" for x.en.srt.

        In the order of `suffixes`, and those first whose letters have the same case. A file that has exactly the name
        of another video belongs to that one alone.
        """
        files, videos = self._listed(video.parent)
        found: dict[str, list[Path]] = defaultdict(list)
        for language, path in files.get(_same(video.stem).lower(), ()):
            if path.suffix.lower() in suffixes and (path.stem == video.stem or path.stem not in videos):
                found[language].append(path)
        for paths in found.values():
            paths.sort(key=lambda path: (not path.stem.startswith(video.stem), suffixes.index(path.suffix.lower())))
        return dict(sorted(found.items()))

    @staticmethod
    def _list(folder: Path) -> tuple[dict[str, list[tuple[str, Path]]], set[str]]:
        """(language, file) of a folder by stem in small letters, with and without a language; the stems of videos."""
        files: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        videos = set()
        for path in _sorted_content(folder):
            if path.name.startswith(".") or not is_file(path):
                continue
            if path.suffix.lower() in VIDEO_SUFFIXES:
                videos.add(path.stem)
                continue
            stem = _same(path.stem).lower()
            files[stem].append(("", path))
            if tagged := _LANGUAGE.search(stem):
                files[stem[: tagged.start()]].append((tagged[1], path))
        return files, videos


def unique_ids(paths: Iterable[str]) -> dict[str, str]:
    """An id for each path of a video or sound: `a/b.mp4` is `a__b`.

    Those that would be called alike (`b.mp4` and `b.mov`) get a few letters made from the whole path behind it, so that
    the id depends on no order.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        plain = PurePosixPath(path)
        plain = plain.with_suffix("") if plain.suffix.lower() in (*VIDEO_SUFFIXES, *SOUND_SUFFIXES) else plain
        alike["__".join(plain.parts)].append(path)
    return {
        path: name
        if len(members) == 1
        else f"{name}_{blake2b(path.encode(errors='replace'), digest_size=4).hexdigest()}"
        for name, members in alike.items()
        for path in members
    }

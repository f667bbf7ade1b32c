"""Media files that say in their names what they are, wherever below the root of a release they lie."""

import re
from collections.abc import Sequence
from pathlib import Path

from data_tools.corpora.release import Release, is_file, is_folder

# root / folder of a data site / folder of a zip / folder of an actor
_LEVELS = 3


def list_files(root: Path, levels: int = _LEVELS) -> list[Path]:
    """Files in `root` and up to `levels` folders below it, the nearest first, then by name; no hidden ones."""
    files: list[Path] = []
    folders = [root]
    for _ in range(levels + 1):
        inside = [path for folder in folders for path in _visible(folder)]
        # macOS' archiver adds a second tree with the same names and nothing in it.
        folders = [path for path in inside if is_folder(path) and path.name != "__MACOSX"]
        files += [path for path in inside if is_file(path)]
    return files


def pick_named(
    release: Release, files: Sequence[Path], names: re.Pattern[str], suffixes: Sequence[str], form: str
) -> dict[tuple[str, str], Path]:
    """Return the file of each (name in capital letters, ending in small ones) that fits `names` and `suffixes`.

    Of files with the same name and ending in several folders the largest is taken, as broken downloads and pointers
    are smaller, then the nearest; a note counts the others. Media whose name is not of this `form` are rejects
    `id:unknown` without an id.
    """
    copies: dict[tuple[str, str], list[Path]] = {}
    for path in files:
        suffix = path.suffix.lower()
        if suffix not in suffixes:
            continue
        if names.fullmatch(path.stem.upper()):
            copies.setdefault((path.stem.upper(), suffix), []).append(path)
        else:
            release.reject(None, path, "id:unknown", f"{path.name!r} is not called {form}")
    several = [sorted(paths, key=lambda path: -_size(path)) for paths in copies.values() if len(paths) > 1]
    if several:
        unequal = sum(_size(paths[0]) != _size(paths[-1]) for paths in several)
        note = f"{sum(map(len, several)) - len(several)} files are further copies of others and are not used"
        note += f", e.g. {release.relative(several[0][1])} of {release.relative(several[0][0])}"
        release.notes.append(note + (f"; {unequal} differ in size: the largest is taken" if unequal else ""))
    return {key: max(copies[key], key=_size) for key in sorted(copies)}


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1

"""Result of every reader, and helpers that readers share: finding the root, reading lines, rejecting."""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.errors import DataError
from data_tools.files import read_limited
from data_tools.impostor import impostor_in
from data_tools.names import is_inside, printable, unsafe_id
from data_tools.records import Reject, Utterance

STAGE = "reorganize"
# `pipeline standin` leaves this file in what it writes: in the root, or beside CMU-MOSEI's folder Raw.
STANDIN_FILE = "STANDIN.json"
# The corpora that it can make: the keys of standin/release.py.
STANDINS = ("iemocap", "mosei")

_LEVELS = 2
# Not str.splitlines: that one also breaks at U+2028 and other marks which occur inside transcripts.
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass
class Release:
    """A release as its reader found it.

    rejects with an utterance id are utterances; those without one are files or lines that could not be used.
    notes: what a person should know about this copy, one sentence each.
    emotions: the label order, where the settings name no emotions and the release itself says which there are.
    facts: kind -> value -> count of labelled utterances, used or not, or of persons: what a copy can be checked by.
    """

    root: Path
    utterances: list[Utterance] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    emotions: tuple[str, ...] = ()
    facts: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def is_standin(self) -> bool:
        """True if a program made this release: no score on it means anything about people."""
        return any(is_file(folder / STANDIN_FILE) for folder in (self.root, self.root.parent))

    def add(self, utterance: Utterance, source: Path | None = None, where: str = "") -> None:
        """Take `utterance` in, or reject it where its ids cannot be file names or its sources lie elsewhere.

        source, where: the file that names it, and the place in it ("line 12"), for the reject.
        """
        place = f"{where}: " if where else ""
        problem = unsafe_id(utterance.utterance_id) or unsafe_id(utterance.dialogue_id)
        sources = (utterance.source_video, utterance.source_audio)
        outside = next((name for name in sources if name and not is_inside(name)), None)
        if problem:
            self.reject(utterance.utterance_id, source or self.root, "id:unsafe", place + problem)
        elif outside is not None:
            detail = f"{place}{outside!r} is not a path below the release; copy or link the file into it"
            self.reject(utterance.utterance_id, source or self.root, "path:outside", detail)
        else:
            self.utterances.append(utterance)

    def reject(self, utterance_id: str | None, source: Path, reason: str, detail: str) -> None:
        """Record that an utterance, or with None a file or line of `source`, is not used, and why."""
        named = None if utterance_id is None else printable(utterance_id)
        self.rejects.append(Reject(named, printable(self.relative(source)), STAGE, reason, printable(detail)))

    def relative(self, path: Path) -> str:
        """`path` as the manifest names it: relative to the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def find_root(start: Path, is_root: Callable[[Path], bool], looked_for: str, dataset: str) -> Path:
    """The folder that holds the release: `start`, or up to two levels below or above it, as people unpack too deep.

    A `start` that does not exist is never replaced by another folder: that could be another release.

    Raises:
        DataError: nothing found, or two candidates on the same level; says what was looked for and where.
    """
    start = Path(start).absolute()
    if start.is_file():
        raise DataError(f"{start} is a file; give the folder that holds {looked_for} (unpack archives first)")
    if not start.exists():
        beside = [str(folder) for folder in _folders(start.parent) if is_root(folder)]
        hint = f" ({', '.join(beside)} beside it would do)" if beside else ""
        raise DataError(
            f"no {dataset} release: {start} does not exist{hint}; it should hold {looked_for}; {_ways_out(dataset)}"
        )
    for level in _candidates(start):
        found = [folder for folder in level if is_root(folder)]
        if len(found) > 1:
            names = ", ".join(str(folder) for folder in found)
            raise DataError(f"several {dataset} releases lie at {start}: {names}; name one of them with --root")
        if found:
            return found[0]
    raise DataError(
        f"no {dataset} release: looked for {looked_for} in {start}, and {_LEVELS} levels below and above it; "
        f"{_ways_out(dataset)}"
    )


def _ways_out(dataset: str) -> str:
    standin = f", or make a stand-in with `pipeline standin --dataset {dataset} --out raw`"
    return "give its place with --root" + (standin if dataset in STANDINS else "")


def is_folder(path: Path) -> bool:
    """Return True if `path` is a folder; one that may not be looked at (lost+found) counts as not there."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Return True if `path` is a file; one that may not be looked at counts as not there."""
    try:
        return path.is_file()
    except OSError:
        return False


def visible(folder: Path, suffix: str) -> dict[str, Path]:
    """Files of `folder` by stem, sorted, without macOS's `._*` and other hidden files.

    Empty where the folder is missing or may not be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return {}
    found = (path for path in paths if path.suffix.lower() == suffix and not path.name.startswith("."))
    return {path.stem: path for path in found if not is_folder(path)}


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without their ends; bytes that are not UTF-8 become U+FFFD, a byte order mark goes.

    Raises:
        OSError: the file cannot be read, is larger than `data_tools.files.MAX_BYTES`, or something else stands in its
            place (`data_tools.impostor`).
    """
    content = read_limited(path)
    if impostor := impostor_in(content):
        raise OSError(errno.EINVAL, f"it is {impostor.one}; {impostor.remedy}", str(path))
    return _LINE_END.split(content.decode("utf-8-sig", errors="replace"))


def check_emotions(emotions: Sequence[str], known: Sequence[str], dataset: str) -> None:
    """Raise DataError where the settings ask for an emotion that the corpus does not label, or for one twice."""
    unknown = [emotion for emotion in emotions if emotion not in known]
    if unknown or len(set(emotions)) < len(emotions):
        what = f"unknown: {', '.join(unknown)}" if unknown else "one is given twice"
        has = ", ".join(known) or "none, only sentiment: set emotions to []"
        raise DataError(f"emotions {list(emotions)} for {dataset}: {what}; it has {has}")


def _candidates(start: Path) -> Iterator[list[Path]]:
    below = [start]
    for _ in range(_LEVELS + 1):
        yield below
        below = [child for folder in below for child in _folders(folder)]
    for parent in start.parents[:_LEVELS]:
        yield [parent]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if is_folder(child) and not child.name.startswith("."))
    except OSError:
        return []

"""Receipts of dialogues: the files made for each, with a fingerprint of all that they were made from.

While a dialogue is at work its receipt lies beside its clips, where the process that cuts it writes it; then it becomes
a line of clips/receipts.jsonl. Folders of earlier versions have all of them beside the clips: `Receipts` reads both.
"""

import json
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from data_tools.errors import DataError
from data_tools.files import parse_json, read_limited, refuse_links, write_json
from data_tools.keyed_lines import KeyedLines
from data_tools.records import Reject, Utterance

CLIPS_FOLDER = "clips"

RECEIPTS_FILE = "receipts.jsonl"
_RECEIPT = "receipt.json"
_OURS = {".mp4", ".wav"}
# Raise it when the same settings begin to give other clips: all of them are then made again.
_VERSION = 4


@dataclass(frozen=True)
class ClipSettings:
    """crf: x264 quality. Utterances shorter or longer than the two limits are rejected.

    needed: letters of picture (v) and sound (a); an utterance without the other one is kept.
    """

    crf: int
    min_duration_s: float
    max_duration_s: float
    needed: str = "av"


@dataclass(frozen=True)
class Dialogue:
    """A dialogue of the release at `root`, and the utterances to cut out of its videos into `data_dir`."""

    root: Path
    data_dir: Path
    utterances: tuple[Utterance, ...]
    settings: ClipSettings

    @property
    def folder(self) -> Path:
        """Folder of the clips: clips/<dialogue>."""
        return self.data_dir / CLIPS_FOLDER / self.utterances[0].dialogue_id

    @property
    def sources(self) -> list[Path]:
        """Every file that the clips are made from."""
        names = {u.source_video for u in self.utterances} | {u.source_audio for u in self.utterances}
        return [self.root / name for name in sorted(names) if name]

    def clip(self, utterance: Utterance) -> Path:
        """The mp4 of an utterance."""
        return self.folder / f"{utterance.utterance_id}.mp4"

    def wav(self, utterance: Utterance) -> Path:
        """The wav of an utterance."""
        return self.folder / f"{utterance.utterance_id}.wav"


@dataclass(frozen=True)
class Made:
    """A finished clip. end_s: where the video ends a little before the label, its end; fps: of the source.

    absent: `v` without a picture and so without an mp4, `a` without a sound and so without a wav; else empty.
    """

    utterance_id: str
    end_s: float
    fps: float
    absent: str = ""


@dataclass
class DialogueResult:
    """Outcome of a dialogue: every utterance is in `made` or in `rejects`. notes: about its video."""

    made: list[Made] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


_RESULT = TypeAdapter(DialogueResult)


def begin(dialogue: Dialogue) -> None:
    """Delete what earlier runs made of `dialogue`, and say with an unfinished receipt what this one is about to make.

    So a folder in which a run was killed is known as ours, down to the name of every file.

    Raises:
        DataError: the folder cannot be written to, or lies behind a link.
    """
    refuse_links(dialogue.data_dir, dialogue.folder)
    names = {path.name for u in dialogue.utterances for path in (dialogue.clip(u), dialogue.wav(u))}
    names |= _recorded(_parsed(dialogue.folder / _RECEIPT))
    # First the receipt: from here on it holds for nothing, whenever this run ends.
    write_json(dialogue.folder / _RECEIPT, {"files": dict.fromkeys(sorted(names))})
    _delete_recorded(dialogue.folder, names)


def write_receipt(dialogue: Dialogue, result: DialogueResult) -> None:
    """Say that `dialogue` is done; its clips must be in their places by now.

    Raises:
        DataError: the folder cannot be written to.
    """
    absent = {clip.utterance_id: clip.absent for clip in result.made}
    files = [
        path
        for u in dialogue.utterances
        if u.utterance_id in absent
        for letter, path in (("v", dialogue.clip(u)), ("a", dialogue.wav(u)))
        if letter not in absent[u.utterance_id]
    ]
    sizes = {path.name: path.stat().st_size for path in sorted(files)}
    receipt = {"fingerprint": _fingerprint(dialogue), "files": sizes, **asdict(result)}
    write_json(dialogue.folder / _RECEIPT, receipt)


class Receipts:
    """Receipts of all dialogues of a data folder; hold the folder's lock.

    What lies behind a link is not ours: it has no receipts, and none is written or deleted there.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._clips = data_dir / CLIPS_FOLDER
        self._lines = KeyedLines(self._clips / RECEIPTS_FILE)

    def result(self, dialogue: Dialogue) -> DialogueResult | None:
        """Result of an earlier run where it still holds: same settings, same sources, every clip there; else None.

        As with make, a source that was touched after what was made of it counts as changed; a receipt holds no times,
        so that the same input gives the same bytes.
        """
        folder = dialogue.folder
        try:
            beside = _stat_of(folder / _RECEIPT)
            receipt = self._read(folder)
            if receipt["fingerprint"] != _fingerprint(dialogue):
                return None
            made = {name: (folder / name).stat() for name in receipt["files"]}
            if any(found.st_size != receipt["files"][name] for name, found in made.items()):
                return None
            finished = [beside] if beside else [*made.values()] or [self._lines.path.stat()]
            newest_ns = max(max(s.st_mtime_ns, s.st_ctime_ns) for s in map(Path.stat, dialogue.sources))
            if newest_ns >= min(found.st_mtime_ns for found in finished):
                return None
            return _RESULT.validate_python({name: receipt[name] for name in ("made", "rejects", "notes")})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # no receipt, a broken one, or one from another version: the work is done again

    def put_beside(self, dialogue: Dialogue) -> None:
        """Lay the receipt of a dialogue that is about to be redone beside its clips, where `begin` looks for it.

        Raises:
            DataError: the folder cannot be written to, or lies behind a link.
        """
        folder = dialogue.folder
        if folder.name in self._lines and not (folder / _RECEIPT).is_file():
            refuse_links(self._data_dir, folder)
            write_json(folder / _RECEIPT, self._read(folder))
            self._lines.drop(folder.name)

    def take_in(self, folder: Path) -> None:
        """Make a line of the receipt that lies in the folder of a finished dialogue, if there is one.

        Raises:
            DataError: the file cannot be written, or lies behind a link.
        """
        path = folder / _RECEIPT
        if any(place.is_symlink() for place in (self._clips, folder, path)) or not path.is_file():
            return
        receipt = _parsed(path)
        if not isinstance(receipt, dict) or "fingerprint" not in receipt:
            return  # unfinished, or somebody else's
        refuse_links(self._data_dir, self._lines.path)
        self._lines.append(folder.name, receipt)
        _delete(path)
        with suppress(OSError):  # of a dialogue without clips nothing is left
            folder.rmdir()

    def clear_others(self, dialogue_ids: Collection[str], spared: Collection[str]) -> None:
        """Delete the clips of dialogues that are not in the data set any more (other emotions, another release).

        spared: utterances whose clips stay, with their whole dialogue: their sources are broken, maybe for a moment
        only. Only files that a receipt names, and what killed runs left half-written beside them: all else is someone
        else's.

        Raises:
            DataError: the folder cannot be written to.
        """
        if self._clips.is_symlink():
            return
        wanted = set(dialogue_ids)
        for folder in sorted(self._clips / name for name in _names(self._clips) if name not in wanted):
            has_receipt = folder.name in self._lines or (folder / _RECEIPT).is_file()
            if folder.is_symlink() or not folder.is_dir() or not has_receipt:
                continue
            recorded = _recorded(self._read(folder))
            if not any(Path(name).stem in spared for name in recorded):
                _delete_recorded(folder, recorded)
                _delete(folder / _RECEIPT)
                with suppress(OSError):  # somebody else's files stay, in their folder
                    folder.rmdir()
                self._lines.drop(folder.name)
        for name in [name for name in self._lines if name not in wanted and not (self._clips / name).exists()]:
            self._lines.drop(name)

    def tidy(self) -> None:
        """Bring the lines into order, so that the same clips have the same receipts in any order of work.

        Raises:
            DataError: the file cannot be written.
        """
        if not self._clips.is_symlink():
            self._lines.tidy()

    def _read(self, folder: Path) -> Any:
        """Receipt of a dialogue, the one beside its clips first; None for none, or a broken one."""
        path = folder / _RECEIPT
        return _parsed(path) if _stat_of(path) else self._lines.read(folder.name)


def _delete_recorded(folder: Path, recorded: Collection[str]) -> None:
    for path in [folder / name for name in sorted(recorded)] + sorted(folder.glob(".*.tmp.*")):
        if path.suffix in _OURS or path.name.startswith(f".{Path(_RECEIPT).stem}."):
            _delete(path)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot delete {path}: {error.strerror or error}; check permissions, and what stands there"
        ) from error


def _recorded(receipt: Any) -> set[str]:
    """Names of files that a receipt says are ours; none where it is no receipt of ours."""
    try:
        return {name for name in receipt["files"] if Path(name).name == name and Path(name).suffix in _OURS}
    except (KeyError, TypeError):
        return set()


def _parsed(path: Path) -> Any:
    """Content of a receipt beside clips; None where there is none, or a broken one."""
    try:
        return parse_json(read_limited(path))
    except (OSError, ValueError):
        return None


def _stat_of(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []


def _fingerprint(dialogue: Dialogue) -> str:
    wanted = (
        "utterance_id", "start_s", "end_s", "source_video", "source_audio", "audio_is_cut", "half", "stated_s",
        "audio_stream",
    )  # fmt: skip
    cuts = [[getattr(utterance, name) for name in wanted] for utterance in dialogue.utterances]
    sizes = [path.stat().st_size if path.is_file() else None for path in dialogue.sources]
    settings = asdict(dialogue.settings)
    if settings["needed"] == "av":
        del settings["needed"]  # as before there was a choice
    everything = [_VERSION, settings, cuts, sizes]
    return blake2b(json.dumps(everything).encode(), digest_size=16).hexdigest()

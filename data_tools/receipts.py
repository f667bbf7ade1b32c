"""Receipts of finished dialogues: a file beside the clips, with a fingerprint of all that they were made from."""

import json
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

from pydantic import TypeAdapter

from data_tools.errors import DataError
from data_tools.files import parse_json, read_limited, refuse_links, write_json
from data_tools.records import Reject, Utterance

CLIPS_FOLDER = "clips"

_RECEIPT = "receipt.json"
_OURS = {".mp4", ".wav"}
# Raise it when the same settings begin to give other clips: all of them are then made again.
_VERSION = 4


@dataclass(frozen=True)
class ClipSettings:
    """crf: x264 quality. Utterances shorter or longer than the two limits are rejected."""

    crf: int
    min_duration_s: float
    max_duration_s: float


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
        return [self.root / name for name in sorted(names)]

    def clip(self, utterance: Utterance) -> Path:
        """The mp4 of an utterance."""
        return self.folder / f"{utterance.utterance_id}.mp4"

    def wav(self, utterance: Utterance) -> Path:
        """The wav of an utterance."""
        return self.folder / f"{utterance.utterance_id}.wav"


@dataclass(frozen=True)
class Made:
    """A finished clip. end_s: where the video ends a little before the label, its end; fps: of the source."""

    utterance_id: str
    end_s: float
    fps: float


@dataclass
class DialogueResult:
    """Outcome of a dialogue: every utterance is in `made` or in `rejects`. notes: about its video."""

    made: list[Made] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def begin(dialogue: Dialogue) -> None:
    """Delete what earlier runs made of `dialogue`, and say with an unfinished receipt what this one is about to make.

    So a folder in which a run was killed is known as ours, down to the name of every file.

    Raises:
        DataError: the folder cannot be written to, or lies behind a link.
    """
    refuse_links(dialogue.data_dir, dialogue.folder)
    names = {path.name for u in dialogue.utterances for path in (dialogue.clip(u), dialogue.wav(u))}
    # First the receipt: from here on it holds for nothing, whenever this run ends.
    write_json(dialogue.folder / _RECEIPT, {"files": dict.fromkeys(sorted(names | _recorded(dialogue.folder)))})
    _delete_recorded(dialogue.folder)


def write_receipt(dialogue: Dialogue, result: DialogueResult) -> None:
    """Say that `dialogue` is done; its clips must be in their places by now.

    Raises:
        DataError: the folder cannot be written to.
    """
    made = {clip.utterance_id for clip in result.made}
    files = [
        path for u in dialogue.utterances if u.utterance_id in made for path in (dialogue.clip(u), dialogue.wav(u))
    ]
    sizes = {path.name: path.stat().st_size for path in sorted(files)}
    receipt = {"fingerprint": _fingerprint(dialogue), "files": sizes, **asdict(result)}
    write_json(dialogue.folder / _RECEIPT, receipt)


def read_receipt(dialogue: Dialogue) -> DialogueResult | None:
    """The result of an earlier run where it still holds: same settings, same sources, every clip there; else None.

    As with make, a source that was touched after the receipt counts as changed; the receipt itself holds no times, so
    that the same input gives the same bytes.
    """
    path = dialogue.folder / _RECEIPT
    try:
        receipt = parse_json(read_limited(path))
        newest_ns = max(max(s.st_mtime_ns, s.st_ctime_ns) for s in map(Path.stat, dialogue.sources))
        unchanged = newest_ns < path.stat().st_mtime_ns and receipt["fingerprint"] == _fingerprint(dialogue)
        if not unchanged or any((dialogue.folder / n).stat().st_size != size for n, size in receipt["files"].items()):
            return None
        result = {name: receipt[name] for name in ("made", "rejects", "notes")}
        return TypeAdapter(DialogueResult).validate_python(result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no receipt, a broken one, or one from another version: the work is done again


def clear_others(data_dir: Path, dialogue_ids: set[str], spared: set[str]) -> None:
    """Delete the clips of dialogues that are not in the data set any more (other emotions, another release).

    spared: utterances whose clips stay, with their whole dialogue: their sources are broken, maybe for a moment only.
    Only files that a receipt names, and what killed runs left half-written beside them: all else is someone else's.

    Raises:
        DataError: the folder cannot be written to.
    """
    if (data_dir / CLIPS_FOLDER).is_symlink():
        return  # what lies behind a link is not ours to delete
    for folder in sorted((data_dir / CLIPS_FOLDER).glob("*")):
        if folder.name in dialogue_ids or not (folder / _RECEIPT).is_file() or folder.is_symlink():
            continue
        if not any(Path(name).stem in spared for name in _recorded(folder)):
            _delete_recorded(folder)
            try:
                (folder / _RECEIPT).unlink()
                if not any(folder.iterdir()):
                    folder.rmdir()
            except OSError as error:
                raise _cannot_clear(folder, error) from error


def _delete_recorded(folder: Path) -> None:
    for path in [folder / name for name in sorted(_recorded(folder))] + sorted(folder.glob(".*.tmp.*")):
        if path.suffix in _OURS or path.name.startswith(f".{Path(_RECEIPT).stem}."):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _cannot_clear(path, error) from error


def _recorded(folder: Path) -> set[str]:
    """The names of files that the receipt in `folder` says are ours; none where there is no receipt of ours."""
    try:
        files = parse_json(read_limited(folder / _RECEIPT))["files"]
        return {name for name in files if Path(name).name == name and Path(name).suffix in _OURS}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _cannot_clear(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot delete {path}: {error.strerror or error}; check permissions, and what stands there")


def _fingerprint(dialogue: Dialogue) -> str:
    wanted = (
        "utterance_id", "start_s", "end_s", "source_video", "source_audio", "audio_is_cut", "half", "stated_s",
        "audio_stream",
    )  # fmt: skip
    cuts = [[getattr(utterance, name) for name in wanted] for utterance in dialogue.utterances]
    sizes = [path.stat().st_size if path.is_file() else None for path in dialogue.sources]
    everything = [_VERSION, asdict(dialogue.settings), cuts, sizes]
    return blake2b(json.dumps(everything).encode(), digest_size=16).hexdigest()

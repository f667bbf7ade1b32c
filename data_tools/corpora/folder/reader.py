"""One's own videos: a folder with a table of utterances, or with one file a clip, sorted into folders by emotion."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.corpora.folder.files import SOUND_SUFFIXES, VIDEO_SUFFIXES, Beside, unique_ids
from data_tools.corpora.folder.table import check_name, choose_emotions, read_rows
from data_tools.corpora.release import Release, is_file, is_folder, visible
from data_tools.corpora.tables import SPREADSHEET_SUFFIXES, TABLE_SUFFIXES
from data_tools.errors import DataError
from data_tools.records import Utterance
from data_tools.speech.transcript import BESIDE_SUFFIXES, OtherFormError, read_transcript, words_of
from data_tools.splits import SPLIT_WORDS

# A transcript of one clip: more than that is another file.
_MAX_TRANSCRIPT_BYTES = 131_072


def read_folder(
    root: Path,
    emotions: Sequence[str],
    table: str | None = None,
    encoding: str | None = None,
    modalities: str = "av",
) -> Release:
    """Utterances of the videos below `root`: those of its table, or every clip where there is none.

    root: the folder, or the table in it. It is read as it is: nothing is looked for above it.
    emotions: label order; empty for all that the table or the folders name, in the table's order or sorted.
    table: which file is the table, relative to `root`; needed where several lie there.
    encoding: of the table, or of the texts beside the clips, where they are not UTF-8 and have no mark.
    modalities: those that each utterance must have; without v a file of sound alone is a clip too.

    Raises:
        DataError: no such folder, several tables, a table that cannot be used, neither table nor clips, or an
            emotion that nothing is labelled with.
    """
    start = Path(root).absolute()
    for name, value in (("table", table), ("encoding", encoding)):
        if value is not None and not isinstance(value, str):
            raise DataError(f"reader.{name} is {value!r}; expected a text")
    if is_file(start):
        start, table = start.parent, table or start.name
    if not is_folder(start):
        raise DataError(f"no folder {start}; give the one that holds your videos and their table with --root")
    release = Release(start)
    path = start / table if table else _find_table(start)
    if path is not None:
        read_rows(release, path, emotions, encoding)
    else:
        _read_clips(release, emotions, encoding, with_sounds="v" not in modalities)
    return release


def _find_table(folder: Path) -> Path | None:
    """The one table that lies in `folder`; None without any."""
    tables = [path for suffix in TABLE_SUFFIXES for path in visible(folder, suffix).values()]
    if len(tables) > 1:
        names = ", ".join(sorted(path.name for path in tables))
        raise DataError(f"several tables lie in {folder}: {names}; name one, e.g. --root {tables[0]}")
    sheets = [path for suffix in SPREADSHEET_SUFFIXES for path in visible(folder, suffix).values()]
    if sheets and not tables:
        raise DataError(f"{sheets[0]} is a spreadsheet; save it as CSV (UTF-8) beside it")
    return tables[0] if tables else None


def _read_clips(release: Release, emotions: Sequence[str], encoding: str | None, with_sounds: bool) -> None:
    """Every video is one utterance: its folder's name is the label, a transcript beside it the text."""
    clips = list(_walk(release, release.root, with_sounds))
    if not clips:
        raise DataError(
            f"{release.root} holds neither a table ({', '.join(TABLE_SUFFIXES)}) nor videos "
            f"({', '.join(VIDEO_SUFFIXES)}); see docs/corpora/folder.md for both forms"
        )
    ids = unique_ids(release.relative(clip) for clip in clips)
    named = {clip: _label(release, clip) for clip in clips}
    chosen = choose_emotions(emotions, sorted({name for name in named.values() if not check_name(name)}), "folders")
    release.emotions = tuple(chosen.values())
    beside = Beside()
    others = 0
    for clip, label in named.items():
        utterance_id = ids[release.relative(clip)]
        problem = check_name(label) if label else ""
        words = _words(clip, beside, encoding)
        others += words.others
        if not label:
            release.reject(utterance_id, clip, "unlabelled", "it lies in no folder that names an emotion")
        elif problem:
            release.reject(utterance_id, clip, "labels:unreadable", f"the name of its folder is no label: {problem}")
        elif label not in chosen:
            release.reject(utterance_id, clip, f"label:{label}", f"the label {label!r} is not in the task's emotions")
        elif words.reason:
            release.reject(utterance_id, clip, words.reason, words.detail)
        else:
            labels = {emotion: float(name == label) for name, emotion in chosen.items()}
            sound = next(iter(beside.find(clip, SOUND_SUFFIXES).get("", ())), clip)
            release.add(_utterance(release, clip, sound, utterance_id, words.text, labels))
    if others:
        release.notes.append(
            f"{others} .json, .TextGrid or .eaf files beside clips hold no words that are understood: not used"
        )
    if any(utterance.fold for utterance in release.utterances):
        release.notes.append("the folders state a split: --split release keeps it")
    release.notes.append("no speakers are named: each clip counts as a speaker of its own")


def _utterance(
    release: Release, clip: Path, sound: Path, utterance_id: str, text: str, labels: dict[str, float]
) -> Utterance:
    return Utterance(
        utterance_id=utterance_id,
        dialogue_id=utterance_id,
        speaker=utterance_id,
        session="",
        start_s=0.0,
        end_s=float("inf"),
        text=text,
        labels=labels,
        sentiment=None,
        source_video=release.relative(clip),
        source_audio=release.relative(sound),
        fold=SPLIT_WORDS.get(clip.relative_to(release.root).parts[0].lower(), ""),
    )


def _label(release: Release, clip: Path) -> str:
    """The name of the clip's folder in small letters; empty where it lies in the root, or right in that of a split."""
    folders = clip.relative_to(release.root).parts[:-1]
    return "" if not folders or (len(folders) == 1 and folders[0].lower() in SPLIT_WORDS) else folders[-1].lower()


def _walk(release: Release, start: Path, with_sounds: bool) -> Iterator[Path]:
    """Every video below `start`, sorted, without hidden files; folders that are links are not entered.

    with_sounds: sounds too, unless there is a video of the same name beside them.
    """

    def unreadable(error: OSError) -> None:
        path = Path(error.filename)
        release.reject(None, path, "folder:unreadable", f"{path.name} cannot be read: {error.strerror}")

    for folder, below, files in os.walk(start, onerror=unreadable):
        below[:] = sorted(name for name in below if not name.startswith("."))
        paths = [Path(folder, name) for name in sorted(files) if not name.startswith(".")]
        seen = {path.stem.lower() for path in paths if path.suffix.lower() in VIDEO_SUFFIXES}
        for path in paths:
            suffix = path.suffix.lower()
            is_sound = with_sounds and suffix in SOUND_SUFFIXES and path.stem.lower() not in seen
            if (suffix in VIDEO_SUFFIXES or is_sound) and is_file(path):
                yield path


class _Words(NamedTuple):
    """The words of a clip, or `reason`, a short code, and `detail`, a sentence. others: files that hold none."""

    text: str = ""
    reason: str = ""
    detail: str = ""
    others: int = 0


def _words(clip: Path, beside: Beside, encoding: str | None) -> _Words:
    """The words in the transcript of the same name, else in that of the one language there is."""
    by_language = beside.find(clip, BESIDE_SUFFIXES)
    paths = by_language.pop("", [])
    if len(by_language) > 1 and not paths:
        named = ", ".join(paths[0].name for paths in by_language.values())
        return _Words(reason="transcript:ambiguous", detail=f"the words may be those of {named}: keep one of them")
    others = 0
    for path in [*paths, *(path for paths in by_language.values() for path in paths)]:
        try:
            if (size := path.stat().st_size) > _MAX_TRANSCRIPT_BYTES:
                raise DataError(f"{path} has {size} bytes; the limit is {_MAX_TRANSCRIPT_BYTES}")
            return _Words(words_of(read_transcript(path, encoding, by_name=True)), others=others)
        except OtherFormError:
            others += 1
        except (DataError, OSError) as error:
            # Paths of this machine have no place in the data folder.
            return _Words(reason="transcript:unreadable", detail=str(error).replace(f"{path.parent}/", ""))
    return _Words(others=others)

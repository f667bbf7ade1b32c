"""`pipeline transcribe`: words of the clips whose utterances have none, into the manifest and beside the clips."""

import multiprocessing
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import torch

from data_tools.about import DATASET_FILE, read_dataset_facts
from data_tools.errors import DataError
from data_tools.files import folder_lock, refuse_links, sweep, write_json
from data_tools.manifest import has_media, read_manifest, rows_by_dialogue, write_texts
from data_tools.media.audio import read_audio, read_intervals
from data_tools.sequences.align import WORDS_SUFFIX, read_words_csv, recognised_from, write_words_csv
from data_tools.sequences.store import FEATURES_FILE, FEATURES_FOLDER, IMPORTED
from data_tools.speech.activity import voice_activity
from data_tools.speech.recognition import Recogniser
from data_tools.speech.segments import joined
from pipeline.asr import ASR_HELP, HOW_TO_GET_WORDS, LANGUAGE_HELP, open_recogniser
from pipeline.command import Command
from pipeline.jobs.local import Lost
from pipeline.jobs.run import check_lost, dialogue_seconds, run_jobs, shown, time_limit
from pipeline.progress import Reporter
from pipeline.settings import (
    DATA_HELP,
    DEFAULT_DATA,
    EXECUTOR_HELP,
    LOCAL,
    TIME_LIMIT_HELP,
    TIME_LIMIT_S,
    WORKERS_HELP,
    ConfigError,
    Executor,
    LocalPath,
    Settings,
    TimeLimit,
    Workers,
    flag,
)

# given: somebody else's transcript stays. file: words that somebody has put beside the clip. kept: of an earlier run.
Kind = Literal["recognised", "kept", "file", "given", "unreadable"]


class TranscribeSettings(Settings):
    """Settings of `pipeline transcribe`."""

    data: LocalPath = flag(DEFAULT_DATA, help=DATA_HELP)
    asr: str | None = flag(None, help=ASR_HELP)
    language: str | None = flag(None, help=LANGUAGE_HELP)
    overwrite: bool = flag(False, help="Recognise all utterances, also those that have words of somebody else.")
    workers: Workers = flag(None, help=WORKERS_HELP)
    executor: Executor = flag(LOCAL, help=EXECUTOR_HELP)
    time_limit_s: TimeLimit = flag(TIME_LIMIT_S, help=TIME_LIMIT_HELP)


@dataclass(frozen=True)
class _Job:
    """One dialogue; `clips` holds (utterance id, wav relative to the data folder, text). model: digest of `asr`."""

    dialogue_id: str
    clips: tuple[tuple[str, str, str], ...]
    settings: TranscribeSettings
    model: str


@dataclass(frozen=True)
class _Found:
    """Words of one utterance. detail: why it is unreadable."""

    kind: Kind
    text: str
    detail: str = ""


@dataclass(frozen=True)
class _Done:
    found: dict[str, _Found]

    @property
    def reused(self) -> bool:
        return all(one.kind != "recognised" for one in self.found.values())


def transcribe(settings: TranscribeSettings, reporter: Reporter) -> dict[str, Any]:
    """Fill `text` of the utterances without words, and write `<clip>.words.csv` beside the clip of each.

    Clips that have such a file already are not recognised: one of an earlier run with the same sound, model and
    language is kept, and somebody else's gives the words. Transcripts of somebody else stay; `overwrite` replaces both.
    Extracted features of these data count as unfinished afterwards. Returns the counts that the command prints.

    Raises:
        ConfigError: no recogniser, or as `open_recogniser`.
        DataError: no manifest, no clips, another run at work in the folder, nothing can be written, no sound can be
            read, or a dialogue was given up.
    """
    table = read_manifest(settings.data)
    if not has_media(table):
        raise DataError(f"{settings.data} has no clips, only imported features: there is nothing to transcribe")
    # The workers of another machine start in another folder.
    absolute: dict[str, Any] = {"data": settings.data.absolute()}
    if settings.asr and Path(settings.asr).is_dir():
        absolute["asr"] = str(Path(settings.asr).absolute())
    settings = settings.model_copy(update=absolute)
    recogniser = _recogniser(settings.asr, settings.language)
    table["wav"] = table["wav"].fillna("")
    jobs = [
        _Job(dialogue_id, tuple(clips), settings, recogniser.digest)
        for dialogue_id, clips in rows_by_dialogue(table, ("utterance_id", "wav", "text")).items()
    ]
    seconds = dialogue_seconds(table)
    with folder_lock(settings.data):
        results = run_jobs(
            _transcribe_dialogue,
            jobs,
            settings.workers,
            preload=__name__,
            executor=settings.executor,
            writes=settings.data,
            limit_s=lambda job: time_limit(settings.time_limit_s, seconds[job.dialogue_id]),
        )
        for folder in sorted({(settings.data / wav).parent for job in jobs for _, wav, _ in job.clips if wav}):
            refuse_links(settings.data, folder)
            sweep(folder)
        sweep(settings.data)
        _begin(settings, recogniser)
        found: dict[str, _Found] = {}
        lost: dict[str, Lost[_Job]] = {}
        for job, result in shown(results, jobs, table, "transcribe", reporter):
            if isinstance(result, Lost):
                lost[job.dialogue_id] = result
            else:
                found |= result.found
        check_lost(lost)
        _finish(settings.data, recogniser, found)
    summary = _summary(recogniser, found)
    _say(summary, reporter)
    return summary


def _about(recogniser: Recogniser) -> dict[str, Any]:
    return {"model": recogniser.name, "language": recogniser.language, "digest": recogniser.digest}


def _begin(settings: TranscribeSettings, recogniser: Recogniser) -> None:
    """From here on words may change: features are unfinished, unless a run with this recogniser has finished before."""
    data_dir, about = settings.data, read_dataset_facts(settings.data)
    if about.get("words") == _about(recogniser) and not settings.overwrite:
        return
    for path in sorted((data_dir / FEATURES_FOLDER).glob(f"*/{FEATURES_FILE}")):
        if path.parent.name != IMPORTED:
            refuse_links(data_dir, path.parent)
            path.unlink()
    if "words" in about:
        write_json(data_dir / DATASET_FILE, {name: value for name, value in about.items() if name != "words"})


def _finish(data_dir: Path, recogniser: Recogniser, found: dict[str, _Found]) -> None:
    """Texts into the manifest, then the recogniser and the count of utterances without words into dataset.json."""
    unreadable = [(name, one.detail) for name, one in found.items() if one.kind == "unreadable"]
    if found and len(unreadable) == len(found):
        name, detail = unreadable[0]
        raise DataError(f"no sound of {data_dir} can be read, e.g. {name}: {detail}")
    texts = {name: one.text for name, one in found.items() if one.kind not in ("given", "unreadable")}
    before = read_manifest(data_dir).set_index("utterance_id")["text"].to_dict()
    if any(before[name] != text for name, text in texts.items()):
        write_texts(data_dir, texts)
    about = read_dataset_facts(data_dir)
    without = sum(not text.strip() for text in (before | texts).values())
    if about and (about | {"without_words": without, "words": _about(recogniser)}) != about:
        write_json(data_dir / DATASET_FILE, about | {"without_words": without, "words": _about(recogniser)})


def _summary(recogniser: Recogniser, found: dict[str, _Found]) -> dict[str, Any]:
    ours = [one for one in found.values() if one.kind in ("recognised", "kept")]
    kinds = Counter(one.kind for one in found.values())
    return {
        "model": recogniser.name,
        "language": recogniser.language,
        "utterances": len(found),
        "filled": sum(bool(one.text) for one in ours),
        "no_words_heard": sum(not one.text for one in ours),
        "from_files": kinds["file"],
        "given": kinds["given"],
        "unreadable": {name: one.detail for name, one in sorted(found.items()) if one.kind == "unreadable"},
        "kept": kinds["kept"],
    }


def _say(summary: dict[str, Any], reporter: Reporter) -> None:
    language = f" ({summary['language']})" if summary["language"] else ""
    reporter.say(
        f"{summary['filled']} of {summary['utterances']} utterances have words of {summary['model']}{language}"
    )
    for name, text in {
        "no_words_heard": "in which no words were heard",
        "from_files": f"with the words of a <clip>{WORDS_SUFFIX} of somebody else",
        "given": "with a transcript that was there before, left as it is (--overwrite replaces it)",
    }.items():
        if summary[name]:
            reporter.say(f"  {summary[name]} {text}")
    if unreadable := summary["unreadable"]:
        name, detail = next(iter(unreadable.items()))
        reporter.say(f"  {len(unreadable)} whose sound cannot be read, e.g. {name}: {detail}")
    if summary["kept"]:
        reporter.say(f"  {summary['kept']} were recognised by an earlier run")


def _transcribe_dialogue(job: _Job) -> _Done:
    recogniser = _recogniser(job.settings.asr, job.settings.language)
    if recogniser.digest != job.model:
        raise DataError(f"the model {recogniser.name} is another one here than where the command was started")
    return _Done({name: _transcribe(job.settings, recogniser, wav, text) for name, wav, text in job.clips})


def _transcribe(settings: TranscribeSettings, recogniser: Recogniser, wav: str, text: str) -> _Found:
    if not wav:
        return _Found("given" if text.strip() else "unreadable", text, "it has no sound")
    path = settings.data / wav
    words_file = path.with_suffix(WORDS_SUFFIX)
    has_file = words_file.is_file()
    ours = recognised_from(words_file) if has_file else None
    if text.strip() and not settings.overwrite and (ours is None or text != joined(read_words_csv(words_file))):
        return _Found("given", text)
    if has_file and ours is None and not settings.overwrite:
        return _Found("file", joined(read_words_csv(words_file)))
    try:
        made_from = blake2b(path.read_bytes() + recogniser.digest.encode(), digest_size=16).hexdigest()
        if made_from != ours:
            activity = voice_activity([read_audio(path)])
            parts = recogniser.words(activity, partial(read_intervals, path))
            write_words_csv(words_file, [word for _, words in parts for word in words], made_from)
    except (OSError, DataError) as error:
        return _Found("unreadable", text, str(error).replace(f"{settings.data}/", ""))
    return _Found("kept" if made_from == ours else "recognised", joined(read_words_csv(words_file)))


@lru_cache(maxsize=1)
def _recogniser(asr: str | None, language: str | None) -> Recogniser:
    if multiprocessing.parent_process() is not None:
        # Workers share the cores already: more threads in each would fight over them.
        torch.set_num_threads(1)
    recogniser = open_recogniser(asr, language)
    if recogniser is None:
        raise ConfigError(HOW_TO_GET_WORDS if asr is None else "--asr none recognises nothing: leave it out")
    return recogniser


COMMAND = Command(
    transcribe,
    (TranscribeSettings,),
    example="pipeline transcribe --data data/videos",
)

"""`pipeline extract`: clips, store and texts -> feature sequences in data/<name>/features/<features>."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from data_tools.about import read_store_facts
from data_tools.errors import DataError
from data_tools.files import folder_lock
from data_tools.manifest import STORE_FILE, STORE_FOLDER, has_media, read_manifest, rows_by_dialogue
from data_tools.sequences.align import Word, find_words
from data_tools.sequences.steps import Floats, Steps
from data_tools.sequences.store import (
    FEATURES_FILE,
    DialogueFeatures,
    FeatureFacts,
    features_folder,
    features_path,
    store_digest,
    write_facts,
)
from data_tools.sequences.store import write_dialogue as write_features
from data_tools.sequences.words import read_vectors, split_words
from data_tools.store import DialogueStore, store_path
from pipeline.clip_tensors import FaceSettings
from pipeline.command import Command
from pipeline.extract_sequences import Recipe, Source, TextSteps, WordVectors, sizes_of, steps_of, token_states
from pipeline.jobs.local import Lost
from pipeline.jobs.run import begin_folder, check_lost, dialogue_seconds, run_jobs, shown, time_limit
from pipeline.progress import Reporter
from pipeline.published import language_warning
from pipeline.run_data import dataset_name
from pipeline.settings import (
    DATA_HELP,
    DEFAULT_DATA,
    EXECUTOR_HELP,
    LOCAL,
    TIME_LIMIT_HELP,
    TIME_LIMIT_S,
    WORKERS_HELP,
    Executor,
    LocalPath,
    Settings,
    TimeLimit,
    Workers,
    flag,
    load_config,
)


class ExtractSettings(Recipe):
    """Settings of `pipeline extract`. A file in configs/features has those of `Recipe`."""

    data: LocalPath = flag(DEFAULT_DATA, help=DATA_HELP)
    features: str = flag("default", help="The name that the features get: data/<name>/features/<features>.")
    workers: Workers = flag(None, help=WORKERS_HELP)
    executor: Executor = flag(LOCAL, help=EXECUTOR_HELP)
    time_limit_s: TimeLimit = flag(TIME_LIMIT_S, help=TIME_LIMIT_HELP)

    def recipe(self) -> Recipe:
        """The part that decides what comes out."""
        return Recipe(**{name: getattr(self, name) for name in Recipe.model_fields})


class RecipeFlag(Settings):
    """The flag `--recipe`."""

    recipe: str | None = flag(
        None, help="A file in configs/features, or a path to a YAML file; by default the one of the features' name."
    )


_PACKAGES = ("emotion-pipeline", "librosa", "numpy", "scikit-image", "torch", "transformers")


@dataclass(frozen=True)
class _Utterance:
    """wav: relative to the data folder; source_audio: to the release."""

    utterance_id: str
    wav: str
    text: str
    source_audio: str


@dataclass(frozen=True)
class _Job:
    """One dialogue. store: the fingerprint of its store. vectors: of its words, where word vectors are asked for."""

    dialogue_id: str
    utterances: tuple[_Utterance, ...]
    settings: ExtractSettings
    sample_every_ms: int
    store: str
    vectors: dict[str, Floats] | None
    vector_size: int


@dataclass(frozen=True)
class _Done:
    """steps: by letter. without_word_times: utterances that are one step as a whole, though words were asked for."""

    fingerprint: str
    reused: bool
    sizes: dict[str, int]
    utterances: int
    rejected: int
    steps: Counter[str]
    without_word_times: int


def extract(settings: ExtractSettings, reporter: Reporter) -> dict[str, Any]:
    """Fill data/<name>/features/<features>; dialogues whose media, texts and settings are unchanged are kept.

    Where only a part has changed, say the text encoder, the other modalities are kept too. features.json is written
    last. Returns the counts that the command prints.

    Raises:
        DataError: no manifest, no finished store, a clip that is gone, no word times anywhere, another run at work in
            the folder, nothing can be written, or a dialogue was given up.
        ModelError: no such text encoder.
    """
    table = read_manifest(settings.data)
    if not has_media(table):
        raise DataError(f"{settings.data} has no clips, only imported features: there is nothing to extract from")
    # The workers of another machine start in another folder.
    settings = settings.model_copy(update={"data": settings.data.absolute(), **_absolute(settings)})
    folder = features_folder(settings.data, settings.features)
    seconds = dialogue_seconds(table)
    encoder = settings.text_encoder if "t" in settings.modalities and settings.glove is None else ""
    if warning := language_warning(dataset_name(settings.data), encoder):
        reporter.say(warning)
    with folder_lock(settings.data):
        jobs, digest = _tasks(settings, table)
        results = run_jobs(
            _extract_dialogue,
            jobs,
            settings.workers,
            preload=__name__,
            executor=settings.executor,
            reads=settings.root,
            writes=settings.data,
            limit_s=lambda job: time_limit(settings.time_limit_s, seconds[job.dialogue_id]),
        )
        done: dict[str, _Done] = {}
        lost: dict[str, Lost[_Job]] = {}
        begin_folder(settings.data, folder / FEATURES_FILE, {job.dialogue_id for job in jobs})
        for job, result in shown(results, jobs, table, "extract", reporter):
            if isinstance(result, Lost):
                lost[job.dialogue_id] = result
            else:
                done[job.dialogue_id] = result
        check_lost(lost)
        summary = _summary(settings, done)
        write_facts(
            settings.data,
            FeatureFacts(
                settings.features,
                next(iter(done.values())).sizes,
                settings.recipe().what_matters(),
                {dialogue_id: result.fingerprint for dialogue_id, result in sorted(done.items())},
                digest,
                {name: version(name) for name in _PACKAGES},
            ),
        )
    _say(summary, reporter)
    return summary


def _absolute(settings: ExtractSettings) -> dict[str, Path]:
    return {name: path.absolute() for name in ("root", "glove") if (path := getattr(settings, name)) is not None}


def _tasks(settings: ExtractSettings, table: pd.DataFrame) -> tuple[list[_Job], str]:
    """A job for each dialogue, and the digest of the store that all of them are read from."""
    digest = store_digest(settings.data)
    if digest is None:
        raise DataError(
            f"{settings.data / STORE_FOLDER / STORE_FILE} is not there, or damaged: preprocessing has not finished; "
            f"run `pipeline preprocess --data {settings.data}`"
        )
    store = read_store_facts(settings.data)
    faces = FaceSettings.checked(store.get("settings", {}).get("faces", {}), f"the store of {settings.data}")
    every_ms = faces.sample_every_ms
    columns = ("utterance_id", "wav", "text", "source_audio")
    rows = {
        dialogue_id: tuple(_Utterance(*row) for row in found)
        for dialogue_id, found in rows_by_dialogue(table, columns).items()
    }
    if settings.align == "words" and not any(_words(one, settings) for part in rows.values() for one in part):
        raise DataError(
            f"no utterance of {settings.data} has word times: put <clip>.words.csv files (word, start_s, end_s) beside "
            "the clips, or for IEMOCAP give its release with --set root=FOLDER (sentences/ForcedAlignment is read)"
        )
    words = {name: _vocabulary(utterances, settings) for name, utterances in rows.items()}
    vectors: dict[str, Floats] = {}
    if settings.glove is not None and "t" in settings.modalities:
        vectors = read_vectors(settings.glove, set().union(*words.values()))
        if not vectors:
            raise DataError(f"{settings.glove} has a vector for none of the words in {settings.data}")
    size = len(next(iter(vectors.values()))) if vectors else 0
    jobs = [
        _Job(
            dialogue_id,
            utterances,
            settings,
            every_ms,
            str(store["fingerprints"].get(dialogue_id)),
            {word: vectors[word] for word in sorted(words[dialogue_id]) if word in vectors} if size else None,
            size,
        )
        for dialogue_id, utterances in rows.items()
    ]
    return jobs, digest


def _vocabulary(utterances: tuple[_Utterance, ...], settings: ExtractSettings) -> set[str]:
    """The words whose vectors are wanted: those of the texts, and of the word times."""
    if settings.glove is None:
        return set()
    words = {word for utterance in utterances for word in split_words(utterance.text)}
    for utterance in utterances:
        words |= {word.text.lower() for word in _words(utterance, settings) or ()}
    return words


def _words(utterance: _Utterance, settings: ExtractSettings) -> list[Word] | None:
    if settings.align == "none":
        return None
    return find_words(settings.data, utterance.wav, settings.root, utterance.source_audio) if utterance.wav else None


def _summary(settings: ExtractSettings, done: Mapping[str, _Done]) -> dict[str, Any]:
    utterances = sum(result.utterances for result in done.values())
    without = sum(result.without_word_times for result in done.values())
    totals: Counter[str] = sum((result.steps for result in done.values()), Counter())
    return {
        "features": settings.features,
        "utterances": utterances,
        "rejected": sum(result.rejected for result in done.values()),
        "dialogues": len(done),
        "dialogues_kept": sum(result.reused for result in done.values()),
        "sizes": next(iter(done.values())).sizes,
        "steps": {letter: totals[letter] for letter in "tav" if letter in settings.modalities},
        "without_word_times": without,
    }


def _say(summary: Mapping[str, Any], reporter: Reporter) -> None:
    kept, rejected = summary["utterances"], summary["rejected"]
    reporter.say(f"{kept} utterances have features + {rejected} that preprocessing rejected = {kept + rejected}")
    for letter, steps in summary["steps"].items():
        mean = steps / kept if kept else 0.0
        reporter.say(f"  {letter}: {summary['sizes'][letter]} values a step, {mean:.1f} steps an utterance")
    if summary["without_word_times"]:
        reporter.say(f"  {summary['without_word_times']} utterances have no word times: each of them is one step")


def _extract_dialogue(job: _Job) -> _Done:
    settings = job.settings
    path = features_path(settings.data, settings.features, job.dialogue_id)
    store = DialogueStore(store_path(settings.data, job.dialogue_id))
    kept = [utterance for utterance in job.utterances if utterance.utterance_id in store]
    rejected = tuple(u.utterance_id for u in job.utterances if u.utterance_id in store.rejected)
    if store.fingerprint != job.store or len(kept) + len(rejected) < len(job.utterances):
        raise DataError(
            f"the store of {job.dialogue_id} is not of these clips; run `pipeline preprocess --data {settings.data}`"
        )
    text = _text_steps(job)
    sizes = sizes_of(settings, text)
    words = {utterance.utterance_id: _words(utterance, settings) for utterance in kept}
    parts = {letter: _fingerprint(job, letter, kept, rejected, words, text) for letter in sizes}
    fingerprint = blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
    before = _before(path)
    reused = before is not None and before.fingerprint == fingerprint
    if before is None or not reused:
        same = "".join(letter for letter in sizes if before is not None and before.parts.get(letter) == parts[letter])
        features: dict[str, dict[str, Steps]] = {}
        for utterance in kept:
            name = utterance.utterance_id
            sound = settings.data / utterance.wav if utterance.wav else None
            source = Source(sound, utterance.text, store[name], job.sample_every_ms, words[name])
            fresh = steps_of(source, settings, text, [letter for letter in sizes if letter not in same])
            features[name] = {
                letter: before.steps(name, letter) if before is not None and letter in same else fresh[letter]
                for letter in sizes
            }
        write_features(path, features, sizes, fingerprint, parts, rejected)
        before = DialogueFeatures(path)
    steps = Counter({letter: sum(before.count(u.utterance_id, letter) for u in kept) for letter in sizes})
    without = sum(not found for found in words.values()) if settings.align == "words" else 0
    return _Done(fingerprint, reused, sizes, len(kept), len(rejected), steps, without)


def _before(path: Path) -> DialogueFeatures | None:
    """Features that an earlier run left there; None where nothing can be read."""
    try:
        return DialogueFeatures(path)
    except DataError:
        return None


def _text_steps(job: _Job) -> TextSteps | None:
    settings = job.settings
    if "t" not in settings.modalities:
        return None
    if job.vectors is not None:
        return WordVectors(job.vectors, job.vector_size)
    return token_states(settings.text_encoder, settings.max_tokens)


def _fingerprint(
    job: _Job,
    letter: str,
    kept: list[_Utterance],
    rejected: tuple[str, ...],
    words: Mapping[str, list[Word] | None],
    text: TextSteps | None,
) -> str:
    """Of all that one modality of a dialogue depends on: the bytes that are read, not times on disk."""
    settings = job.settings
    about: list[Any] = [letter, settings.align, list(rejected)]
    about.append([(u.utterance_id, [vars(word) for word in words[u.utterance_id] or ()]) for u in kept])
    if letter == "t":
        assert text is not None
        about += [text.digest, settings.max_tokens, [u.text for u in kept]]
    elif letter == "v" or settings.audio == "mel":
        about += [job.store, job.sample_every_ms]
    if letter == "v":
        about.append("no step without a face")
    if letter == "a":
        about += [settings.audio, settings.audio_step_ms]
    digest = blake2b(json.dumps(about).encode(), digest_size=16)
    if letter == "a" and settings.audio == "acoustic":
        for utterance in kept:
            path = settings.data / utterance.wav
            digest.update(path.read_bytes() if path.is_file() else b"missing")
    return digest.hexdigest()


def read_recipe(flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `extract`: a recipe's file, over it `--set`, over both the flags."""
    flags = dict(flags)
    features = flags.get("features", ExtractSettings.model_fields["features"].default)
    values = load_config("features", flags.pop("recipe", features)) | dict(assignments) | flags
    return {"settings": ExtractSettings.checked(values, f"--features {features} and flags")}


COMMAND = Command(
    extract,
    (ExtractSettings, RecipeFlag),
    example="pipeline extract --data data/iemocap",
    read=read_recipe,
    takes_set=True,
)

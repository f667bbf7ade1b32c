"""Stage 2: clips -> face crops and log-mel, one store file a dialogue."""

import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from pydantic import Field, TypeAdapter, ValidationError

from data_tools.about import read_dataset_facts
from data_tools.blank import blank, without
from data_tools.checksums import checksum_path
from data_tools.errors import DataError
from data_tools.faces.crop import LARGEST, SPEAKING
from data_tools.faces.detector import FaceDetector
from data_tools.files import folder_lock, sweep, write_json
from data_tools.manifest import (
    STORE_FILE,
    STORE_FOLDER,
    has_media,
    read_manifest,
    read_rejects,
    rows_by_dialogue,
    write_no_face_shares,
    write_rejects,
)
from data_tools.records import Reject
from data_tools.seen import Seen, state_of
from data_tools.store import DialogueStore, SampleTensors, dialogue_writer, read_fingerprint, store_path, write_dialogue
from data_tools.store_index import write_index
from pipeline.clip_tensors import ClipFiles, FaceChoice, FaceSettings, MelSettings, extract_each
from pipeline.command import Command
from pipeline.jobs.local import Lost, available_cores
from pipeline.jobs.run import begin_folder, dialogue_seconds, run_jobs, shown, time_limit
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

STAGE = "preprocess"
# In the data folder: results of dialogues whose clips and store have not changed since.
SEEN_FILE = ".preprocessed.jsonl"


class PreprocessSettings(Settings):
    """Settings of stage 2."""

    data: LocalPath = flag(DEFAULT_DATA, help=DATA_HELP)
    workers: Workers = flag(None, help=WORKERS_HELP)
    executor: Executor = flag(LOCAL, help=EXECUTOR_HELP)
    time_limit_s: TimeLimit = flag(TIME_LIMIT_S, help=TIME_LIMIT_HELP)
    device: Literal["cpu", "cuda"] = flag("cpu", help="cpu or cuda.")
    face_choice: FaceChoice | None = flag(
        None,
        help="Of several faces: largest, the large and steady one; speaking, the one whose mouth moves with the voice. "
        "By default as the data set's file says, else speaking.",
    )
    faces: FaceSettings = FaceSettings()
    mel: MelSettings = MelSettings()
    keep_blank: bool = Field(False, description="keep clips of one flat colour, and clips without any sound")


@dataclass(frozen=True)
class _Job:
    """One dialogue; `clips` holds (utterance id, clip, wav) with paths relative to the data folder, empty for none.

    needed: letters of the modalities that each utterance must have, as stage 1 was asked.
    """

    dialogue_id: str
    clips: tuple[tuple[str, str, str], ...]
    settings: PreprocessSettings
    needed: str = "av"

    def files(self, clip: str, wav: str) -> ClipFiles:
        """Paths of a clip and its wav; None for one that is absent."""
        data = self.settings.data
        return data / clip if clip else None, data / wav if wav else None


@dataclass(frozen=True)
class _Done:
    """Result of one dialogue. counts: (faces, rows of the mel) by utterance id."""

    fingerprint: str
    reused: bool
    utterances: int
    faces: int
    faces_found: int
    counts: dict[str, tuple[int, int]]
    several_faces: dict[str, int]
    no_face_shares: dict[str, float]
    rejects: list[Reject]


def preprocess(settings: PreprocessSettings, reporter: Reporter) -> dict[str, Any]:
    """Fill data/<name>/store; dialogues whose clips and settings are unchanged are kept as they are.

    Returns the counts that the command prints. The summary file store/store.json is written last.

    Raises:
        DataError: no manifest, another run at work in the folder, nothing can be written, or every clip is broken.
    """
    if settings.device == "cuda" and settings.executor == LOCAL and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but torch sees no CUDA device; use --device cpu")
    table = read_manifest(settings.data)
    if not has_media(table):
        raise DataError(f"{settings.data} has no clips, only imported features: there is nothing to preprocess")
    # The workers of another machine start in another folder.
    settings = settings.model_copy(update={"data": settings.data.absolute(), "faces": _face_settings(settings)})
    needed = read_dataset_facts(settings.data).get("modalities", "av")
    jobs = [
        _Job(dialogue_id, tuple(clips), settings, needed)
        for dialogue_id, clips in rows_by_dialogue(table, ("utterance_id", "clip", "wav")).items()
    ]
    totals: Counter[str] = Counter()
    several_faces: Counter[str] = Counter()
    rejects: list[Reject] = []
    fingerprints: dict[str, str] = {}
    no_face_shares: dict[str, float] = {}
    with folder_lock(settings.data):
        done, lost = _process_all(settings, table, jobs, reporter)
        for why in lost:
            rejects += [Reject(clip[0], clip[1], STAGE, why.reason, why.detail) for clip in why.job.clips]
            fingerprints[why.job.dialogue_id] = _write_lost(why)
        for dialogue_id, result in done.items():
            rejects += result.rejects
            fingerprints[dialogue_id] = result.fingerprint
            totals["dialogues_kept"] += result.reused
            totals["dialogues_done"] += not result.reused
            no_face_shares |= result.no_face_shares
            several_faces.update(result.several_faces)
            for name in ("utterances", "faces", "faces_found"):
                totals[name] += getattr(result, name)
        write_rejects(settings.data, [r for r in read_rejects(settings.data) if r.stage != STAGE] + rejects)
        if len(table) and len(rejects) == len(table):
            raise DataError(f"all {len(table)} clips in {settings.data} are broken, e.g. {rejects[0].detail}")
        summary = _summary(totals, rejects)
        if settings.faces.choice == SPEAKING:
            summary["several_faces"] = {rule: several_faces[rule] for rule in (SPEAKING, LARGEST)}
        counts = {name: found for result in done.values() for name, found in result.counts.items()}
        index = write_index(settings.data, counts, [str(reject.utterance_id) for reject in rejects])
        about = {"settings": _what_matters(settings), "index": index}
        about["fingerprints"] = dict(sorted(fingerprints.items()))
        write_no_face_shares(settings.data, no_face_shares)
        write_json(settings.data / STORE_FOLDER / STORE_FILE, summary | about)
    _say(summary, len(table), reporter)
    return summary


def _process_all(
    settings: PreprocessSettings, table: pd.DataFrame, jobs: Sequence[_Job], reporter: Reporter
) -> tuple[dict[str, _Done], list[Lost[_Job]]]:
    """Results by dialogue id, those of an earlier run too, and the dialogues that were given up."""
    seen = Seen(settings.data / SEEN_FILE)
    made_with = blake2b(_settings_text(settings, jobs[0].needed).encode(), digest_size=16).hexdigest()
    states = {job.dialogue_id: f"{made_with} {_clips_state(job)}" for job in jobs}
    done = dict(_remembered(jobs, seen, states))
    todo = [job for job in jobs if job.dialogue_id not in done]
    if done:
        reporter.say(f"{len(done)} of {len(jobs)} dialogues are done already and are kept")
    seconds = dialogue_seconds(table)
    on_gpu = settings.device == "cuda"
    # Starts nothing yet: a cluster that does not answer leaves the store as it was.
    results = run_jobs(
        _preprocess_dialogue,
        todo,
        # One CUDA context: the detector's batches fill the device, more processes would only share it out.
        1 if on_gpu and settings.executor == LOCAL else settings.workers,
        preload=__name__,
        executor=settings.executor,
        writes=settings.data,
        on_gpu=on_gpu,
        limit_s=lambda job: time_limit(settings.time_limit_s, seconds[job.dialogue_id]),
    )
    sweep(settings.data)
    begin_folder(settings.data, settings.data / STORE_FOLDER / STORE_FILE, set(states))
    lost: list[Lost[_Job]] = []
    for job, result in shown(results, todo, table, "preprocess", reporter):
        if isinstance(result, Lost):
            lost.append(result)
        else:
            done[job.dialogue_id] = result
            seen.remember(job.dialogue_id, states[job.dialogue_id], _store_state(job), asdict(result))
    seen.finish(set(states))
    return done, lost


def _summary(totals: Counter[str], rejects: list[Reject]) -> dict[str, Any]:
    return {
        "utterances": totals["utterances"],
        "rejected": len(rejects),
        "reasons": dict(sorted(Counter(r.reason for r in rejects).items())),
        "dialogues": totals["dialogues_kept"] + totals["dialogues_done"],
        "faces": totals["faces"],
        "faces_found": totals["faces_found"],
    }


def _say(summary: dict[str, Any], rows: int, reporter: Reporter) -> None:
    kept, rejected, faces = summary["utterances"], summary["rejected"], summary["faces"]
    reporter.say(f"{kept} utterances kept + {rejected} rejected = {rows} in the manifest")
    for reason, count in summary["reasons"].items():
        reporter.say(f"  {reason}: {count}")
    share = summary["faces_found"] / faces if faces else 0.0
    reporter.say(
        f"faces found in {summary['faces_found']} of {faces} sampled frames ({share:.1%}); the rest are centre crops"
    )
    if any(summary.get("several_faces", {}).values()):
        speaking, largest = (summary["several_faces"][rule] for rule in (SPEAKING, LARGEST))
        reporter.say(
            f"{speaking + largest} utterances show several faces: in {speaking} the one whose mouth moves with the "
            f"voice was taken, in {largest} the largest, because none stood out"
        )


def _face_settings(settings: PreprocessSettings) -> FaceSettings:
    """`faces` with the choice that the flag states, else the setting, else the data set's file.

    Raises:
        ConfigError: the data set's file states what is no choice.
    """
    choice = settings.face_choice
    if choice is None and "choice" not in settings.faces.model_fields_set:
        stated = read_dataset_facts(settings.data).get("faces", {})
        choice = FaceSettings.checked(stated, f"faces in the dataset.json of {settings.data}").choice
    return settings.faces if choice is None else settings.faces.model_copy(update={"choice": choice})


def _what_matters(settings: PreprocessSettings) -> dict[str, Any]:
    """The settings that change the tensors: with these and the clips, the store comes out the same."""
    # Before there was a choice it was the largest, unsaid: such stores stay as they are where that is asked for.
    unsaid = {"choice"} if settings.faces.choice == LARGEST else set()
    return {"faces": settings.faces.model_dump(exclude={"batch_frames"} | unsaid), "mel": settings.mel.model_dump()}


_DONE = TypeAdapter(_Done)


def _remembered(jobs: Sequence[_Job], seen: Seen, states: dict[str, str]) -> Iterator[tuple[str, _Done]]:
    """(dialogue id, result) of the dialogues that an earlier run on this disk has finished."""
    for job in jobs:
        found = seen.result(job.dialogue_id, states[job.dialogue_id], _store_state(job))
        if found is not None:
            try:
                yield job.dialogue_id, _DONE.validate_python(found | {"reused": True})
            except (ValidationError, TypeError):
                continue  # of another version


def _clips_state(job: _Job) -> str:
    """Of the utterances of a dialogue: their ids, and the files of their clips."""
    ids = blake2b(json.dumps([name for name, *_ in job.clips]).encode(), digest_size=16).hexdigest()
    return f"{ids} {state_of(f'{job.settings.data}/{name}' for _, *files in job.clips for name in files if name)}"


def _store_state(job: _Job) -> str:
    path = store_path(job.settings.data, job.dialogue_id)
    return state_of((path, checksum_path(path)))


def _preprocess_dialogue(job: _Job) -> _Done:
    path = store_path(job.settings.data, job.dialogue_id)
    fingerprint = _fingerprint(job)
    reused = read_fingerprint(path) == fingerprint
    if not reused:
        _write_dialogue(job, path, fingerprint)
    store = DialogueStore(path)
    clips = {utterance_id: clip or wav for utterance_id, clip, wav in job.clips}
    rejects = [Reject(name, clips[name], STAGE, reason, detail) for name, (reason, detail) in store.rejected.items()]
    found = {name: store.face_scores(name) > 0 for name in store.utterance_ids}
    faces, faces_found = sum(map(len, found.values())), sum(int(flags.sum()) for flags in found.values())
    shares = {name: 1 - float(flags.float().mean()) for name, flags in found.items() if len(flags)}
    several = dict(sorted(Counter(store.chosen_by.values()).items()))
    counts = {name: store.counts(name) for name in store.utterance_ids}
    return _Done(fingerprint, reused, len(found), faces, faces_found, counts, several, shares, rejects)


def _write_dialogue(job: _Job, path: Path, fingerprint: str) -> None:
    settings = job.settings
    detector = _detector(settings.device, settings.faces.min_face_px)
    files = [job.files(clip, wav) for _, clip, wav in job.clips]
    # Beside a GPU all cores decode; on a CPU every process decodes for itself.
    decoders = settings.workers or available_cores() if settings.device == "cuda" else 1
    results = extract_each(files, detector, settings.faces, settings.mel, decoders)
    with dialogue_writer(path, fingerprint) as writer:
        for (utterance_id, *_), clip_files, result in zip(job.clips, files, results, strict=True):
            judged = _judged(result, clip_files, job)
            if isinstance(judged, SampleTensors):
                writer.add(utterance_id, judged)
            else:
                writer.reject(utterance_id, judged)


def _write_lost(lost: Lost[_Job]) -> str:
    """Write a store without samples, so that the data can be read; returns its fingerprint, which no clips have."""
    path = store_path(lost.job.settings.data, lost.job.dialogue_id)
    why = lost.reason, lost.detail
    write_dialogue(path, {}, lost.reason, {utterance_id: why for utterance_id, *_ in lost.job.clips})
    return lost.reason


def _judged(result: SampleTensors | DataError, files: ClipFiles, job: _Job) -> SampleTensors | tuple[str, str]:
    """The features as they are, or (reason, detail) where the clip cannot be read or holds nothing.

    A blank modality that is not needed is absent, as long as the other one is there.
    """
    clip, wav = files
    settings = job.settings
    try:
        if isinstance(result, DataError):
            raise result
        found = {} if settings.keep_blank else blank(clip, wav, result, settings.faces.sample_every_ms)
    except DataError as error:
        # Not the path of this machine: the same clips give the same store anywhere.
        return "clip:unreadable", str(error).replace(f"{settings.data}/", "")
    lost = [why for letter, why in found.items() if letter in job.needed]
    if lost or len(found) == sum(path is not None for path in files):
        return next(iter(lost or found.values()))
    return without(result, found)


@lru_cache(maxsize=1)
def _detector(device: str, min_face_px: int) -> FaceDetector:
    if multiprocessing.parent_process() is not None:
        # Workers share the cores already: more threads in each would fight over them.
        torch.set_num_threads(1)
    return FaceDetector(device, min_face_px)


def _settings_text(settings: PreprocessSettings, needed: str) -> str:
    values = _what_matters(settings) | {"keep_blank": settings.keep_blank, "detector": FaceDetector.VERSION}
    if needed != "av":
        values["needed"] = needed
    return json.dumps(values, sort_keys=True)


def _fingerprint(job: _Job) -> str:
    """Of the clips' bytes and the settings, not of times on disk: copied data is not done again."""
    digest = blake2b(_settings_text(job.settings, job.needed).encode(), digest_size=16)
    for utterance_id, clip, wav in job.clips:
        digest.update(f"\0{utterance_id}\0".encode())
        for path in job.files(clip, wav):
            digest.update(path.read_bytes() if path and path.is_file() else b"missing")
    return digest.hexdigest()


COMMAND = Command(
    preprocess,
    (PreprocessSettings,),
    example="pipeline preprocess --data data/iemocap --workers 2",
    takes_set=True,
)

"""Stage 1: a raw release -> one clip per utterance, a manifest, and a reason for everything that was left out."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from data_tools.about import DATASET_FILE
from data_tools.clips import make_clips
from data_tools.corpora.readers import read_release
from data_tools.corpora.release import STAGE, Release
from data_tools.errors import DataError
from data_tools.files import folder_lock, read_json, sweep, write_json
from data_tools.manifest import (
    STORE_FILE,
    STORE_FOLDER,
    UTTERANCES_FILE,
    read_manifest,
    read_rejects,
    write_manifest,
    write_rejects,
)
from data_tools.names import printable
from data_tools.receipts import ClipSettings, Dialogue, DialogueResult, Receipts
from data_tools.records import Clip, Reject, Utterance
from data_tools.splits import SPECS, SPLITS, Split, SplitResult, SplitSpec, assign_splits, shared_between
from pipeline.command import Command
from pipeline.jobs.account import check_share, is_broken, label_counts, lines_of, video_notes
from pipeline.jobs.local import Lost
from pipeline.jobs.run import run_jobs, time_limit
from pipeline.progress import Reporter, Work
from pipeline.published import Published, published_facts, total
from pipeline.settings import (
    EXECUTOR_HELP,
    LOCAL,
    TIME_LIMIT_HELP,
    TIME_LIMIT_S,
    WORKERS_HELP,
    Executor,
    LocalPath,
    Settings,
    SplitProtocol,
    TimeLimit,
    Workers,
    config_names,
    flag,
    load_config,
)


class ReorganizeSettings(Settings):
    """Settings of stage 1. One file in configs/datasets/ holds these for one corpus."""

    dataset: str = flag(help=f"A file in configs/datasets ({', '.join(config_names('datasets'))}), or a path to one.")
    root: LocalPath = flag(
        in_file=True, help="The raw release, by default raw/...; found a few levels up or down from here."
    )
    out: LocalPath = flag(in_file=True, help="The data folder to write, by default data/<dataset>.")
    emotions: tuple[str, ...] = Field(description="label order; none where only sentiment is wanted")
    modalities: str = Field(
        "av",
        description="letters of text, audio and vision that each utterance must have; one without another is kept",
    )
    task: Literal["multi-label", "single-label", "sentiment"] | None = Field(
        None, description="what training takes for task `auto`; None: multi-label where there are emotions"
    )
    reader: dict[str, Any] = Field({}, description="options of this corpus' reader alone")
    split: SplitProtocol = flag(SplitSpec(), help=f"{SPECS}.")
    faces: dict[Literal["choice"], Literal["largest", "speaking"]] = Field(
        {}, description="the choice among several faces that `preprocess` makes in these data unless told otherwise"
    )
    seed: int = flag(0, ge=0, help="Of a split that is drawn.")
    workers: Workers = flag(None, help=WORKERS_HELP)
    executor: Executor = flag(LOCAL, help=EXECUTOR_HELP)
    time_limit_s: TimeLimit = flag(TIME_LIMIT_S, help=TIME_LIMIT_HELP)
    max_reject_share: float = Field(0.2, ge=0, le=1, description="a larger share of broken utterances is a failure")
    min_duration_s: float = Field(0.1, gt=0)
    max_duration_s: float = Field(600.0, gt=0)
    crf: int = Field(18, ge=0, le=51, description="x264 quality of the clips; 0 is lossless")
    published: Published | None = Field(None, description="facts of the corpus; None: those of its own config file")

    @field_validator("modalities")
    @classmethod
    def _known_letters(cls, value: str) -> str:
        if not set(value) <= set("tav") or len(set(value)) < len(value) or not set(value) & set("av"):
            raise ValueError("give letters of tav, each once, a or v among them; av is the default")
        return "".join(letter for letter in "tav" if letter in value)

    @classmethod
    def read(cls, flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> "ReorganizeSettings":
        """Settings of the data set that `flags` name, with `--set` and the flags laid over its file.

        Raises:
            ConfigError: no such file, or as `checked`.
        """
        dataset = flags["dataset"]
        values = load_config("datasets", dataset) | dict(assignments)
        values |= {name: value for name, value in flags.items() if name != "dataset"}
        return cls.checked(values, f"--dataset {dataset} and flags")


def reorganize(settings: ReorganizeSettings, reporter: Reporter) -> dict[str, Any]:
    """Fill `settings.out` with clips, utterances.parquet (last), rejects.parquet and dataset.json.

    Dialogues that an earlier run has finished with the same settings and sources are kept as they are, so a run that
    was killed and started again ends with the same bytes as one that was not.

    Returns the counts that dataset.json holds too. A line for a person about each goes to the reporter.

    Raises:
        DataError: no release, an impossible split, another run at work in the folder, another data set in it, nothing
            can be written, nothing is left, or more than `max_reject_share` of the utterances are broken. Where the
            release's names and texts show that already, nothing is touched: the sources may be gone for a moment
            only. Where it shows while cutting, everything that could be made is written before that.
    """
    release = read_release(settings.dataset, settings.root, settings.emotions, settings.reader, settings.modalities)
    settings = settings.model_copy(update={"emotions": settings.emotions or release.emotions})
    out = settings.out.absolute()
    if out == release.root or release.root in out.parents:
        raise DataError(f"--out {settings.out} lies inside the release {release.root}; nothing is written there")
    reporter.say(f"reading {release.root}")
    split = split_of(release, settings)
    wanted = [utterance for utterance in release.utterances if utterance.utterance_id in split.by_id]
    untouched = f"nothing in {settings.out} was touched"
    check_share(len(wanted), release.rejects + split.rejects, settings.root, settings.max_reject_share, untouched)
    with folder_lock(out):
        check_owner(out, settings.dataset, release.root)
        sweep(out)
        receipts = Receipts(out)
        results = _cut_all(_dialogues(release.root, out, wanted, settings), receipts, settings, reporter)
        clips = _rows(wanted, results, split, _no_face_shares(out))
        rejects = release.rejects + split.rejects + [reject for result in results.values() for reject in result.rejects]
        summary = _summary(settings, release, split, results, clips, rejects)
        kept = {clip.utterance_id for clip in clips}
        later = [r for r in read_rejects(out) if r.stage != STAGE and r.utterance_id in kept]
        write_rejects(out, rejects + later)
        if clips:
            write_json(out / DATASET_FILE, summary)
            write_manifest(out, clips, settings.emotions)
            # Last, when no manifest names them any more. Those whose sources are broken may be wanted again soon.
            broken = {reject.utterance_id for reject in rejects if reject.utterance_id and is_broken(reject)}
            receipts.clear_others({utterance.dialogue_id for utterance in wanted}, spared=broken)
        else:
            (out / UTTERANCES_FILE).unlink(missing_ok=True)
        receipts.tidy()
    published = total(published_facts(settings.dataset, settings.published).utterances or 0)
    for line in lines_of(summary, published):
        reporter.say(line)
    written = "what could be made is written, and rejects.parquet there names each file and cause"
    check_share(len(clips), rejects, settings.root, settings.max_reject_share, f"{settings.out}: {written}")
    return summary


def _summary(
    settings: ReorganizeSettings,
    release: Release,
    split: SplitResult,
    results: Mapping[str, DialogueResult],
    clips: Sequence[Clip],
    rejects: Sequence[Reject],
) -> dict[str, Any]:
    """Contents of dataset.json. No time and no path of this machine: the same release gives the same bytes anywhere."""
    reasons = Counter(reject.reason for reject in rejects if reject.utterance_id is not None)
    files = Counter(reject.reason for reject in rejects if reject.utterance_id is None)
    kept, rejected = len(clips), sum(reasons.values())
    by_id: dict[str, Split] = {clip.utterance_id: split.by_id[clip.utterance_id] for clip in clips}
    return {
        "dataset": settings.dataset,
        "source": printable(release.root.name),
        "standin": release.is_standin,
        "emotions": list(settings.emotions),
        **({"task": settings.task} if settings.task else {}),
        **({"faces": settings.faces} if settings.faces else {}),
        **(_absent(settings, clips) if settings.modalities != "av" else {}),
        "split": settings.split.portable,
        "listed_ids": split.listed,
        "merged_labels": settings.reader.get("merge", {}),
        "settings": settings.model_dump(include={"seed", "min_duration_s", "max_duration_s", "crf"}),
        "versions": {name: version(name) for name in ("emotion-pipeline", "av", "numpy", "soundfile")},
        "found": kept + rejected,
        "labelled": kept + rejected - reasons["unlabelled"],
        "kept": kept,
        "rejected": rejected,
        "broken": sum(is_broken(reject) for reject in rejects),
        "without_words": sum(not clip.text.strip() for clip in clips),
        "reasons": dict(sorted(reasons.items())),
        "unused_files_and_lines": dict(sorted(files.items())),
        "splits": {name: label_counts([c for c in clips if c.split == name], settings.emotions) for name in SPLITS},
        "shared": {
            "speakers": shared_between({clip.utterance_id: clip.speaker for clip in clips}, by_id),
            "dialogues": shared_between({clip.utterance_id: clip.dialogue_id for clip in clips}, by_id),
        },
        "notes": [*release.notes, *split.notes, *video_notes(results)],
    }


def _absent(settings: ReorganizeSettings, clips: Sequence[Clip]) -> dict[str, Any]:
    """The modalities that each utterance must have, and how many lack one of the others."""
    return {
        "modalities": settings.modalities,
        "without_sound": sum(not clip.wav for clip in clips),
        "without_picture": sum(not clip.clip for clip in clips),
    }


def split_of(release: Release, settings: ReorganizeSettings) -> SplitResult:
    """The split that the settings ask for, with a note where it is one that papers report on.

    Raises:
        DataError: an impossible split.
    """
    rejected = [reject.utterance_id for reject in release.rejects if reject.utterance_id]
    split = assign_splits(release.utterances, settings.split, settings.seed, rejected)
    known = published_facts(settings.dataset, settings.published).split(str(settings.split), split.listed)
    if known and split.listed:
        split.notes.append(f"by their numbers of ids these are {known.name}")
    return split


def check_owner(out: Path, dataset: str, root: Path) -> None:
    """Raise DataError where another data set lies in `out`: its clips would be deleted.

    One's own videos are all of the data set `folder`: there the name of the folder `root` tells them apart.
    """
    path = out / DATASET_FILE
    if not path.exists():
        return
    try:
        about = read_json(path)
        found, source = about["dataset"], about.get("source")
    except (DataError, KeyError):
        raise DataError(f"{path} is not one that reorganize wrote; choose another --out, or delete it") from None
    if found != dataset:
        raise DataError(f"{out} holds the data set {found!r}, not {dataset!r}; choose another --out, or delete it")
    if dataset == "folder" and source not in (None, printable(root.name)):
        raise DataError(
            f"{out} holds the videos of a folder {source!r}, not of {root.name!r}; choose another --out, or, where the "
            f"folder has only got another name, delete {path}"
        )


def _no_face_shares(out: Path) -> dict[str, float]:
    """Shares that stage 2 has put into the manifest, by utterance id; none where a clip was just redone."""
    if not (out / UTTERANCES_FILE).is_file():
        return {}
    try:
        shares = read_manifest(out).set_index("utterance_id")["no_face_share"].dropna()
    except DataError:
        return {}  # damaged, or of another version: it is about to be replaced
    return {str(utterance_id): float(share) for utterance_id, share in shares.items()}


def _dialogues(root: Path, out: Path, utterances: Sequence[Utterance], settings: ReorganizeSettings) -> list[Dialogue]:
    """One job a dialogue, the ones with most to cut first, so that no long one is left for the end."""
    grouped: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        grouped[utterance.dialogue_id].append(utterance)
    needed = settings.modalities.replace("t", "")
    how = ClipSettings(settings.crf, settings.min_duration_s, settings.max_duration_s, needed)
    jobs = [Dialogue(root, out, tuple(members), how) for members in grouped.values()]
    return sorted(jobs, key=lambda job: (-_size(job), job.utterances[0].dialogue_id))


def _size(job: Dialogue) -> float:
    """Seconds up to which the videos have to be decoded, where the release says so."""
    ends = [u.end_s if math.isfinite(u.end_s) else u.stated_s or 0.0 for u in job.utterances]
    return max(ends)


def _seconds(dialogue: Dialogue) -> float:
    """Of media in its utterances; not finite where the release does not say."""
    intervals = ((u.end_s - u.start_s, u.stated_s or math.inf) for u in dialogue.utterances)
    return sum(interval_s if math.isfinite(interval_s) else stated_s for interval_s, stated_s in intervals)


def _work(dialogues: Sequence[Dialogue], todo: Sequence[Dialogue]) -> Work[tuple[Dialogue, Any]]:
    total_s, left_s = sum(map(_seconds, dialogues)), sum(map(_seconds, todo))
    done = len(dialogues) - len(todo)
    if not math.isfinite(total_s):
        return Work(done=done)
    return Work(lambda item: _seconds(item[0]), total_s, done, total_s - left_s)


def _cut_all(
    dialogues: Sequence[Dialogue], receipts: Receipts, settings: ReorganizeSettings, reporter: Reporter
) -> dict[str, DialogueResult]:
    """Result by dialogue id, sorted."""
    results: dict[str, DialogueResult] = {}
    todo = []
    for dialogue in dialogues:
        done = receipts.result(dialogue)
        if done is None:
            todo.append(dialogue)
        else:
            results[dialogue.folder.name] = done
            receipts.take_in(dialogue.folder)  # of an earlier version, or of a run that was killed
    if results:
        reporter.say(f"{len(results)} of {len(dialogues)} dialogues are done already and are kept")
    # Starts nothing yet: a cluster that does not answer leaves the folder as it was.
    finished = run_jobs(
        make_clips,
        todo,
        settings.workers,
        preload="data_tools.clips",
        executor=settings.executor,
        reads=dialogues[0].root,
        writes=dialogues[0].data_dir,
        # Where nobody knows how long the media last, the longest clip that is allowed stands in for it.
        limit_s=lambda job: time_limit(settings.time_limit_s, _size(job) or settings.max_duration_s),
    )
    if todo:
        # From here on the old manifest would name clips that are being replaced.
        (todo[0].data_dir / UTTERANCES_FILE).unlink(missing_ok=True)
        # And the old features would be of clips that are gone; preprocess keeps those that still fit.
        (todo[0].data_dir / STORE_FOLDER / STORE_FILE).unlink(missing_ok=True)
    for dialogue in todo:
        receipts.put_beside(dialogue)
    work = _work(dialogues, todo)
    for dialogue, result in reporter.track(finished, len(dialogues), "reorganize", "dialogues", work):
        results[dialogue.folder.name] = _rejected(dialogue, result) if isinstance(result, Lost) else result
        receipts.take_in(dialogue.folder)
    return dict(sorted(results.items()))


def _rejected(dialogue: Dialogue, lost: Lost[Dialogue]) -> DialogueResult:
    source = dialogue.utterances[0].source_video or dialogue.utterances[0].source_audio
    return DialogueResult(
        rejects=[Reject(u.utterance_id, source, STAGE, lost.reason, lost.detail) for u in dialogue.utterances]
    )


def _rows(
    utterances: Sequence[Utterance],
    results: Mapping[str, DialogueResult],
    split: SplitResult,
    no_face_shares: Mapping[str, float],
) -> list[Clip]:
    made = {clip.utterance_id: clip for result in results.values() for clip in result.made}
    return [
        Clip(
            utterance_id=u.utterance_id,
            dialogue_id=u.dialogue_id,
            speaker=u.speaker,
            session=u.session,
            split=split.by_id[u.utterance_id],
            start_s=u.start_s,
            end_s=made[u.utterance_id].end_s,
            text=u.text,
            clip="" if "v" in made[u.utterance_id].absent else f"clips/{u.dialogue_id}/{u.utterance_id}.mp4",
            wav="" if "a" in made[u.utterance_id].absent else f"clips/{u.dialogue_id}/{u.utterance_id}.wav",
            labels=u.labels,
            sentiment=u.sentiment,
            source_video=u.source_video,
            source_audio=u.source_audio,
            fps=made[u.utterance_id].fps,
            no_face_share=no_face_shares.get(u.utterance_id),
        )
        for u in utterances
        if u.utterance_id in made
    ]


COMMAND = Command(
    reorganize,
    (ReorganizeSettings,),
    example="pipeline reorganize --dataset iemocap --root raw/IEMOCAP_full_release --split session:5",
    read=lambda flags, assignments: {"settings": ReorganizeSettings.read(flags, assignments)},
    takes_set=True,
)

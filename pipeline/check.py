"""`pipeline check`: what a release holds, beside the published counts, or whether a data folder is sound.

Touches nothing.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from data_tools.about import DATASET_FILE
from data_tools.corpora.readers import read_release
from data_tools.corpora.release import Release
from data_tools.media.audio import AUDIO_RATE_HZ
from data_tools.records import PRESENT_FROM, Reject, Utterance
from data_tools.splits import SPLITS, SplitResult, shared_between
from pipeline.check_data import check_data, format_data_check, tried
from pipeline.check_media import sample_media
from pipeline.check_report import format_check
from pipeline.command import Command
from pipeline.jobs.account import check_share
from pipeline.progress import Reporter
from pipeline.published import Published, PublishedFiles, published_facts, total
from pipeline.reorganize import ReorganizeSettings, check_owner, split_of
from pipeline.settings import ConfigError, LocalPath, Settings, flag

# What a second of an utterance becomes: 16-bit wav; two 48x48 faces; 80 rows of 128 mel bands in 2 bytes.
_WAV_BYTES = 2 * AUDIO_RATE_HZ
_STORE_BYTES = 2 * 48 * 48 * 3 + 80 * 128 * 2
_TOUCHED = "Nothing was touched"


def check(settings: ReorganizeSettings, samples: int = 8) -> dict[str, Any]:
    """Return what stage 1 would find with these settings, as plain values; seconds for a release of 10,000 utterances.

    `problems` are sentences, each with its remedy: with one of them stage 1 would fail. `warnings` are what it would
    live with. `files`, `utterances`, `labels` and `facts` have the published counts beside them, where there are any.
    samples: how many source videos are opened.
    """
    published = published_facts(settings.dataset, settings.published)
    summary: dict[str, Any] = {"dataset": settings.dataset, "root": None, "problems": [], "warnings": []}
    problems: list[str] = summary["problems"]
    if settings.min_duration_s >= settings.max_duration_s:
        problems.append(
            f"min_duration_s {settings.min_duration_s} is not below max_duration_s {settings.max_duration_s}: "
            "nothing would be left; change one with --set"
        )
    release = tried(lambda: _read(settings), problems)
    if release is None:
        return summary
    emotions = settings.emotions or release.emotions
    summary |= {
        "root": str(release.root),
        "standin": release.is_standin,
        "notes": release.notes,
        "files": {kind: _files(release.root, files) for kind, files in published.files.items()},
        "utterances": _utterances(release, published),
        "labels": _labels(release, emotions, published, settings),
        "facts": _facts(release, published),
        "rejects": _by_reason(release.rejects),
        "unused_files_and_lines": dict(
            sorted(Counter(r.reason for r in release.rejects if not r.utterance_id).items())
        ),
    }
    problems += _out_problems(settings, release)
    split = tried(lambda: split_of(release, settings), problems)
    wanted = [u for u in release.utterances if split is None or u.utterance_id in split.by_id]
    if split is not None:
        summary["split"] = _split(settings, split, wanted, emotions, published)
        rejects = release.rejects + split.rejects
        tried(lambda: check_share(len(wanted), rejects, settings.root, settings.max_reject_share, _TOUCHED), problems)
    summary["samples"] = sample_media(
        release.root, wanted, samples, settings.seed, published.media, settings.modalities
    )
    _judge_samples(summary, settings)
    summary["disk"] = _disk(settings, wanted, summary["samples"])
    _judge_disk(summary, settings)
    summary["warnings"] += _warnings(settings, wanted, emotions, summary, published)
    return summary


def _read(settings: ReorganizeSettings) -> Release:
    return read_release(settings.dataset, settings.root, settings.emotions, settings.reader, settings.modalities)


def failed(summary: Mapping[str, Any]) -> bool:
    """True where stage 1 would fail."""
    return bool(summary["problems"])


def _files(root: Path, files: PublishedFiles) -> dict[str, Any]:
    """Count of a kind of file, under the first pattern that has some: that one names the layout."""
    counted: dict[str, dict[str, Any]] = {}
    for pattern in files.paths:
        if isinstance(files.count, int):
            counted[pattern] = {"found": _count(root, pattern), "published": files.count}
        else:
            by_session = {
                session: {"found": _count(root, pattern.replace("{session}", session)), "published": count}
                for session, count in files.count.items()
            }
            found = sum(counts["found"] for counts in by_session.values())
            counted[pattern] = {"found": found, "published": total(files.count), "by_session": by_session}
        if counted[pattern]["found"]:
            return {"path": pattern} | counted[pattern]
    return {"path": files.paths[0]} | counted[files.paths[0]]


def _count(root: Path, pattern: str) -> int:
    """Files that are not hidden; the ending in any case, as discs copied by Windows have it."""
    stem, dot, suffix = pattern.rpartition(".")
    either = re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", suffix)
    return sum(not path.name.startswith(".") for path in root.glob(stem + dot + either))


def _utterances(release: Release, published: Published) -> dict[str, Any]:
    """Labelled utterances, kept or not, in all and of each session."""
    labelled = [r for r in release.rejects if r.utterance_id and r.reason != "unlabelled"]
    counts: dict[str, Any] = {
        "usable": len(release.utterances),
        "labelled": len(release.utterances) + len(labelled),
        "published": None if published.utterances is None else total(published.utterances),
    }
    if published.session_folder and isinstance(published.utterances, dict):
        found = Counter(utterance.session for utterance in release.utterances)
        found.update(_session(reject, published.session_folder, published.utterances) for reject in labelled)
        counts["by_session"] = {
            session: {"found": found[session], "published": count} for session, count in published.utterances.items()
        }
    return counts


def _session(reject: Reject, folder: str, sessions: Iterable[str]) -> str:
    """The session of a reject, by the folder that its source lies in; empty for none."""
    return next((name for name in sessions if reject.source.startswith(folder.replace("{session}", name) + "/")), "")


def _labels(
    release: Release, emotions: Sequence[str], published: Published, settings: ReorganizeSettings
) -> dict[str, dict[str, int | None]]:
    """Utterances of each label, also of those that the task leaves out; those whose files are broken are not here."""
    if not emotions:
        return {}  # only sentiment is asked for
    found = Counter(
        {emotion: sum(u.labels[emotion] >= PRESENT_FROM for u in release.utterances) for emotion in emotions}
    )
    found.update(r.reason.removeprefix("label:") for r in release.rejects if r.reason.startswith("label:"))
    stated = published.merged_labels(settings.reader.get("merge") or {})
    names = dict.fromkeys([*emotions, *sorted(stated, key=lambda label: -stated[label]), *sorted(found)])
    return {name: {"found": found[name], "published": stated.get(name)} for name in names}


def _facts(release: Release, published: Published) -> dict[str, dict[str, dict[str, int | None]]]:
    """Counts that the reader made besides those of labels, by kind and value."""
    facts: dict[str, dict[str, dict[str, int | None]]] = {}
    for kind, found in release.facts.items():
        stated = published.facts.get(kind, {})
        values = dict.fromkeys([*stated, *sorted(found)])
        facts[kind] = {value: {"found": found.get(value, 0), "published": stated.get(value)} for value in values}
    return facts


def _by_reason(rejects: Sequence[Reject]) -> dict[str, dict[str, Any]]:
    """Count of each reason, with one example."""
    counts = Counter(reject.reason for reject in rejects if reject.utterance_id)
    first = {reject.reason: reject for reject in reversed(rejects) if reject.utterance_id}
    return {
        reason: {"utterances": counts[reason], "example": first[reason].utterance_id, "detail": first[reason].detail}
        for reason in sorted(counts)
    }


def _out_problems(settings: ReorganizeSettings, release: Release) -> list[str]:
    out = settings.out.absolute()
    problems: list[str] = []
    if out == release.root or release.root in out.parents:
        problems.append(f"--out {out} lies inside the release {release.root}; choose another folder")
    tried(lambda: check_owner(out, settings.dataset, release.root), problems)
    there = _existing(out)
    if not there.is_dir():
        problems.append(f"--out {out}: {there} is a file; choose another folder")
    elif not os.access(there, os.W_OK | os.X_OK):
        problems.append(f"--out {out}: {there} cannot be written to; change its permissions or choose another folder")
    return problems


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _split(
    settings: ReorganizeSettings,
    split: SplitResult,
    wanted: Sequence[Utterance],
    emotions: Sequence[str],
    published: Published,
) -> dict[str, Any]:
    known = published.split(str(settings.split), split.listed)
    parts = {name: [u for u in wanted if split.by_id[u.utterance_id] == name] for name in SPLITS}
    return {
        "protocol": str(settings.split),
        "splits": {
            name: {
                "utterances": len(members),
                "published": known.utterances.get(name) if known else None,
                "labels": {emotion: sum(u.labels[emotion] >= PRESENT_FROM for u in members) for emotion in emotions},
            }
            for name, members in parts.items()
        },
        "shared": {
            "speakers": shared_between({u.utterance_id: u.speaker for u in wanted}, split.by_id),
            "dialogues": shared_between({u.utterance_id: u.dialogue_id for u in wanted}, split.by_id),
        },
        "left_out": len(split.rejects),
        "notes": split.notes,
    }


def _judge_samples(summary: dict[str, Any], settings: ReorganizeSettings) -> None:
    samples = summary["samples"]
    bad = [sample for sample in samples if sample["problems"]]
    summary["warnings"] += [f"{sample['video']}: {text}" for sample in bad for text in sample["problems"]]
    if bad and len(bad) > settings.max_reject_share * len(samples):
        summary["problems"].append(
            f"{len(bad)} of {len(samples)} sampled videos have problems, the first of them {bad[0]['video']} (see the "
            f"warnings); copy such files from the release again"
        )


def _disk(
    settings: ReorganizeSettings, wanted: Sequence[Utterance], samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Room for what stages 1 and 2 write, if clips are as dense as the sampled videos: clips, wavs, faces and mel."""
    probed = [sample for sample in samples if sample.get("duration_s")]
    probed_s = sum(sample["duration_s"] for sample in probed)
    density = sum(sample["bytes"] for sample in probed) / probed_s if probed_s else 0.0
    seconds = [u.end_s - u.start_s if isfinite(u.end_s) else u.stated_s for u in wanted]
    usual_s = probed_s / len(probed) if probed else 0.0  # of whole clips whose length nobody states
    total_s = sum(usual_s if length is None else length for length in seconds)
    folder = _existing(settings.out.absolute())
    return {
        "seconds": round(total_s, 1),
        "need_bytes": round(total_s * (density + _WAV_BYTES + _STORE_BYTES)),
        "free_bytes": shutil.disk_usage(folder).free,
        "folder": str(folder),
    }


def _judge_disk(summary: dict[str, Any], settings: ReorganizeSettings) -> None:
    disk = summary["disk"]
    if disk["need_bytes"] > disk["free_bytes"]:
        sentence = (
            f"{disk['folder']} has {disk['free_bytes'] / 1e9:.1f} GB free, and about {disk['need_bytes'] / 1e9:.1f} GB "
            "are needed; free some, or choose another --out"
        )
        # What an earlier run has written there is a part of the need.
        kind = "warnings" if (settings.out / DATASET_FILE).is_file() else "problems"
        summary[kind].append(sentence)


def _warnings(
    settings: ReorganizeSettings,
    wanted: Sequence[Utterance],
    emotions: Sequence[str],
    summary: Mapping[str, Any],
    published: Published,
) -> list[str]:
    """Warnings: things that stage 1 would accept, and a person should know before."""
    warnings = [
        f"{name}: {files['found']} files, the published release has {files['published']}"
        for name, files in summary["files"].items()
        # Where there is none at all, the copy has another layout, or the reader's rejects say what is lost.
        if 0 < files["found"] < files["published"] and not summary["standin"]
    ]
    warnings += [f"no utterance has the label {e}; leave it out of emotions" for e in emotions if not _has(wanted, e)]
    for name, part in summary.get("split", {"splits": {}})["splits"].items():
        without = [e for e in emotions if not part["labels"][e] and _has(wanted, e)]
        if part["utterances"] and without:
            warnings.append(f"{name} has no utterance with {', '.join(without)}: scores of these mean nothing there")
    lengths = [u.end_s - u.start_s for u in wanted]
    short, long = (
        sum(s < settings.min_duration_s for s in lengths),
        sum(settings.max_duration_s < s < float("inf") for s in lengths),
    )
    if short:
        warnings.append(f"{short} intervals are shorter than min_duration_s {settings.min_duration_s}: rejected")
    if long:
        warnings.append(f"{long} intervals are longer than max_duration_s {settings.max_duration_s}: rejected")
    empty = Counter(u.dialogue_id for u in wanted if u.dialogue_id in published.no_person)
    if empty:
        listed = ", ".join(sorted(empty)[:3])
        warnings.append(f"{empty.total()} utterances of {len(empty)} videos in which nobody is seen, e.g. {listed}")
    return warnings


def _has(utterances: Sequence[Utterance], emotion: str) -> bool:
    return any(utterance.labels[emotion] >= PRESENT_FROM for utterance in utterances)


class CheckFlags(Settings):
    """Flags of `pipeline check` beside those of `reorganize`."""

    dataset: str | None = flag(None, help="A release to check: a name in configs/datasets, or a path to a YAML file.")
    data: LocalPath | None = flag(None, help="A data folder to check instead: its files against their checksums.")
    samples: int = flag(8, ge=0, help="Source videos that are opened.")


def _check_either(settings: ReorganizeSettings | Path, samples: int, reporter: Reporter) -> dict[str, Any]:
    return check_data(settings, reporter) if isinstance(settings, Path) else check(settings, samples)


def _read_command(flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    flags = dict(flags)
    own = CheckFlags.checked({name: flags[name] for name in CheckFlags.model_fields if name in flags}, "flags")
    if (own.dataset is None) is (own.data is None):
        raise ConfigError("give either --dataset NAME, to check a release, or --data FOLDER, to check a data folder")
    if own.data is not None:
        if others := [*(flags.keys() - {"data"}), *assignments]:
            raise ConfigError(f"--data checks a data folder as it is; leave out {', '.join(sorted(others))}")
        return {"settings": own.data, "samples": own.samples}
    flags.pop("samples", None)
    return {"settings": ReorganizeSettings.read(flags, assignments), "samples": own.samples}


def _for_people(summary: Mapping[str, Any]) -> str:
    return format_data_check(summary) if "data" in summary else format_check(summary)


COMMAND = Command(
    _check_either,
    (CheckFlags, ReorganizeSettings),
    example="pipeline check --dataset iemocap --root raw/IEMOCAP_full_release --split session:5",
    read=_read_command,
    takes_set=True,
    for_people=_for_people,
    failed=failed,
    without=("workers", "executor", "time_limit_s"),
)

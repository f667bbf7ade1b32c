"""`pipeline import-features`: MMSA's files of features -> a data folder without clips."""

from collections import Counter, defaultdict
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_tools.corpora.mmsa.features import NAMES, Imported, ImportedFile, read_mmsa
from data_tools.errors import DataError
from data_tools.files import folder_lock, refuse_links, sweep, write_json
from data_tools.manifest import UTTERANCES_FILE, has_media, read_manifest, write_manifest, write_rejects
from data_tools.names import printable
from data_tools.records import Clip
from data_tools.sequences.store import (
    FEATURES_FILE,
    IMPORTED,
    FeatureFacts,
    features_folder,
    features_path,
    write_facts,
)
from data_tools.sequences.store import write_dialogue as write_features
from data_tools.splits import SPLITS
from data_tools.tensor_file import delete_ours
from pipeline.command import Command, fields_of
from pipeline.progress import Reporter
from pipeline.settings import ConfigError, LocalPath, Settings, flag

_PACKAGES = ("emotion-pipeline", "numpy")


class ImportFeaturesSettings(Settings):
    """Settings of `pipeline import-features`."""

    file: Path = flag(positional=True, help="A pickle with train, valid and test, as MMSA has them.")
    out: LocalPath | None = flag(None, help="The data folder to write, by default data/<name of the file>.")
    add_to: LocalPath | None = flag(
        None, help="A data folder that is there: its utterances get the features beside what was extracted."
    )


def import_features(file: Path, out: Path | None, reporter: Reporter, add_to: Path | None = None) -> dict[str, Any]:
    """Make the data folder `out` of a pickle of features: manifest, splits, sentiment, and the features `imported`.

    add_to: a data folder that gets the features `imported` for the utterances of its manifest, and keeps all else.

    An older import in `out` is replaced. Returns the counts that the command prints; they are in dataset.json too.

    Raises:
        DataError: the file cannot be read, holds more than plain data or nothing usable; `out` holds a data set with
            clips, another run is at work in it, or it cannot be written to.
    """
    if add_to is not None:
        if out is not None:
            raise ConfigError("--out makes a data folder and --add-to adds to one: give one of them")
        return _add_to(file, add_to, reporter)
    out = out or Path("data") / file.stem
    with folder_lock(out):
        _check_place(out)
        reporter.say(f"reading {file}")
        found = read_mmsa(file)
        if not found.utterances:
            raise DataError(f"{file} has no usable utterance; {len(found.rejects)} were rejected")
        fingerprints = _write_features(out, found, reporter)
        summary = _summary(file, found)
        write_rejects(out, found.rejects)
        write_facts(
            out,
            FeatureFacts(
                IMPORTED,
                found.sizes,
                {"imported": True},
                fingerprints,
                None,
                {name: version(name) for name in _PACKAGES},
            ),
        )
        write_json(out / "dataset.json", {"dataset": printable(out.resolve().name)} | summary)
        write_manifest(out, [_clip(utterance, file) for utterance in found.utterances], [])
    _say(summary, reporter)
    return summary


def _add_to(file: Path, data: Path, reporter: Reporter) -> dict[str, Any]:
    """Give the utterances of the manifest of `data` the features of the file; those that it lacks are left out.

    Raises:
        DataError: as `import_features`; no utterance is in both.
    """
    table = read_manifest(data)
    with folder_lock(data):
        reporter.say(f"reading {file}")
        found = read_mmsa(file)
        steps = {utterance.utterance_id: utterance.steps for utterance in found.utterances}
        both = sum(name in steps for name in table["utterance_id"])
        if not both:
            raise DataError(
                f"none of the {len(steps)} utterances of {file} is in {data}, e.g. {next(iter(steps), 'none')} there "
                f"and {next(iter(table['utterance_id']), 'none')} here"
            )
        folder = features_folder(data, IMPORTED)
        refuse_links(data, folder)
        (folder / FEATURES_FILE).unlink(missing_ok=True)
        delete_ours(folder)
        sweep(folder)
        fingerprints = {}
        for dialogue, rows in table.groupby("dialogue_id"):
            own = {name: steps[name] for name in rows["utterance_id"] if name in steps}
            absent = tuple(name for name in rows["utterance_id"] if name not in steps)
            digest = blake2b(digest_size=16)
            for name, by_letter in own.items():
                digest.update(f"\0{name}\0".encode() + b"".join(part.values.tobytes() for part in by_letter.values()))
            fingerprints[str(dialogue)] = digest.hexdigest()
            path = features_path(data, IMPORTED, str(dialogue))
            write_features(path, own, found.sizes, fingerprints[str(dialogue)], rejected=absent)
        recipe = {"imported": True}
        versions = {name: version(name) for name in _PACKAGES}
        write_facts(data, FeatureFacts(IMPORTED, found.sizes, recipe, fingerprints, None, versions))
    summary = {"source": printable(file.name), "folder": str(data), "added": both, "sizes": found.sizes}
    summary |= {"without": len(table) - both, "not_here": len(steps) - both}
    reporter.say(
        f"{both} utterances of {data} have the features `{IMPORTED}`; {summary['without']} are not in the file, and "
        f"{summary['not_here']} of the file are not here"
    )
    return summary


def _check_place(out: Path) -> None:
    """Refuse a folder whose clips would lose their manifest."""
    if (out / UTTERANCES_FILE).is_file() and has_media(read_manifest(out)):
        raise DataError(f"{out} holds a data set with clips; give another folder with --out, or --add-to {out}")


def _write_features(out: Path, found: ImportedFile, reporter: Reporter) -> dict[str, str]:
    """One file a video; returns their fingerprints."""
    folder = features_folder(out, IMPORTED)
    videos: dict[str, list[Imported]] = defaultdict(list)
    for utterance in sorted(found.utterances, key=lambda u: u.utterance_id):
        videos[utterance.video].append(utterance)
    # Until the end the folder counts as unfinished, and without a manifest as no data set.
    refuse_links(out, folder)
    for path in (out / UTTERANCES_FILE, folder / FEATURES_FILE):
        path.unlink(missing_ok=True)
    delete_ours(folder)
    sweep(out)
    sweep(folder)
    fingerprints = {}
    for video, utterances in reporter.track(sorted(videos.items()), len(videos), "import", "videos"):
        digest = blake2b(digest_size=16)
        for utterance in utterances:
            digest.update(f"\0{utterance.utterance_id}\0".encode())
            for steps in utterance.steps.values():
                digest.update(steps.values.tobytes())
        fingerprints[video] = digest.hexdigest()
        features = {utterance.utterance_id: utterance.steps for utterance in utterances}
        write_features(features_path(out, IMPORTED, video), features, found.sizes, fingerprints[video])
    return fingerprints


def _clip(utterance: Imported, file: Path) -> Clip:
    """A row of the manifest; nothing is known of media, seconds and frames."""
    return Clip(
        utterance_id=utterance.utterance_id,
        dialogue_id=utterance.video,
        speaker=utterance.video,
        session="",
        split=utterance.split,
        start_s=0.0,
        end_s=0.0,
        text=utterance.text,
        clip="",
        wav="",
        labels={},
        sentiment=utterance.sentiment,
        source_video=printable(file.name),
        source_audio=printable(file.name),
        fps=float("nan"),
    )


def _summary(file: Path, found: ImportedFile) -> dict[str, Any]:
    """No time and no path of this machine: the same file gives the same bytes anywhere."""
    kept, rejected = len(found.utterances), len(found.rejects)
    counts = Counter(utterance.split for utterance in found.utterances)
    counted = (
        (found.replaced, "{} values of {} were no numbers and are 0 now"),
        (found.beyond, "{} utterances have values of {} beyond their stated length, which are left out"),
        (found.wrong_lengths, "{} utterances state a length that their {} does not have"),
    )
    notes = [
        text.format(count, NAMES[letter])
        for counts, text in counted
        for letter, count in sorted(counts.items())
        if count
    ]
    if found.aligned:
        notes.append(f"aligned: all modalities keep the same steps ({', '.join(dict.fromkeys(found.aligned))})")
    without_words = sum(not utterance.text.strip() for utterance in found.utterances)
    if without_words:
        notes.append(f"{without_words} utterances have no words")
    if found.unused:
        more = f" and {len(found.unused) - 20} more" if len(found.unused) > 20 else ""
        notes.append(f"not used: {', '.join(sorted(found.unused)[:20])}{more}")
    return {
        "source": printable(file.name),
        "imported": True,
        "standin": False,
        "emotions": [],
        "split": "release",
        "found": kept + rejected,
        "kept": kept,
        "rejected": rejected,
        "reasons": dict(sorted(Counter(reject.reason for reject in found.rejects).items())),
        "splits": {split: {"utterances": counts[split], "labels": {}} for split in SPLITS},
        "sizes": found.sizes,
        "notes": notes,
    }


def _say(summary: dict[str, Any], reporter: Reporter) -> None:
    reporter.say(f"{summary['kept']} utterances kept + {summary['rejected']} rejected = {summary['found']} in the file")
    for reason, count in summary["reasons"].items():
        reporter.say(f"  {reason:24} {count:6}")
    reporter.say(", ".join(f"{split} {counts['utterances']}" for split, counts in summary["splits"].items()))
    reporter.say("values a step: " + ", ".join(f"{NAMES[letter]} {n}" for letter, n in summary["sizes"].items()))
    for note in summary["notes"]:
        reporter.say(f"note: {note}")


COMMAND = Command(
    import_features,
    (ImportFeaturesSettings,),
    example="pipeline import-features unaligned_50.pkl --out data/mosi-mmsa",
    read=fields_of(ImportFeaturesSettings),
)

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
from pipeline.settings import LocalPath, Settings, flag

_PACKAGES = ("emotion-pipeline", "numpy")


class ImportFeaturesSettings(Settings):
    """Settings of `pipeline import-features`."""

    file: Path = flag(positional=True, help="A pickle with train, valid and test, as MMSA has them.")
    out: LocalPath | None = flag(None, help="The data folder to write, by default data/<name of the file>.")


def import_features(file: Path, out: Path | None, reporter: Reporter) -> dict[str, Any]:
    """Make the data folder `out` of a pickle of features: manifest, splits, sentiment, and the features `imported`.

    An older import in `out` is replaced. Returns the counts that the command prints; they are in dataset.json too.

    Raises:
        DataError: the file cannot be read, holds more than plain data or nothing usable; `out` holds a data set with
            clips, another run is at work in it, or it cannot be written to.
    """
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


def _check_place(out: Path) -> None:
    """Refuse a folder whose clips would lose their manifest."""
    if (out / UTTERANCES_FILE).is_file() and has_media(read_manifest(out)):
        raise DataError(f"{out} holds a data set with clips; give another folder with --out")


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

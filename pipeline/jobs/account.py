"""The account of stage 1: what dataset.json says, what a person reads, and when too much is broken."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from data_tools.receipts import DialogueResult
from data_tools.records import PRESENT_FROM, Clip, Reject

# Reasons that say nothing is broken: the task does not use the utterance.
_NOT_BROKEN = ("label:", "unlabelled", "split:")


def is_broken(reject: Reject) -> bool:
    """True where an utterance is lost that the task would use."""
    return reject.utterance_id is not None and not reject.reason.startswith(_NOT_BROKEN)


def label_counts(clips: Sequence[Clip], emotions: Sequence[str]) -> dict[str, Any]:
    """Utterances of `clips`, and those with each emotion."""
    return {
        "utterances": len(clips),
        "labels": {emotion: sum(clip.labels[emotion] >= PRESENT_FROM for clip in clips) for emotion in emotions},
    }


def video_notes(results: Mapping[str, DialogueResult]) -> list[str]:
    """Each note on source videos once, with how many videos have it."""
    videos = Counter(note for result in results.values() for note in result.notes)
    return [f"{count} videos: {note}" for note, count in sorted(videos.items())]


def lines_of(summary: Mapping[str, Any], published: int) -> Iterator[str]:
    """The account in dataset.json, for a person. published: labelled utterances of the whole release, 0 if unknown."""
    unlabelled = summary["found"] - summary["labelled"]
    rejected = summary["rejected"] - unlabelled
    yield f"{summary['kept']} utterances kept + {rejected} rejected = {summary['labelled']} labelled in the release"
    if summary["standin"]:
        yield "  (a stand-in, made by a program: no score on it means anything about people)"
    elif published and published != summary["labelled"]:
        yield f"  (the published release has {published} labelled utterances: this is another copy or a part of it)"
    if unlabelled:
        yield f"{unlabelled} more have a transcript line, but no label"
    if summary["without_words"]:
        yield f"{summary['without_words']} of the {summary['kept']} kept have no words"
    for absent in ("sound", "picture"):
        if summary.get(f"without_{absent}"):
            yield f"{summary[f'without_{absent}']} of the {summary['kept']} kept have no {absent}"
    for reason, count in summary["reasons"].items():
        yield f"  {reason:24} {count:6}"
    for reason, count in summary["unused_files_and_lines"].items():
        yield f"  {reason:24} {count:6} files or lines"
    emotions = summary["emotions"]
    yield "split  utterances" + "".join(f" {emotion:>9}" for emotion in emotions)
    for name, counts in summary["splits"].items():
        yield f"{name:6} {counts['utterances']:10}" + "".join(f" {counts['labels'][e]:9}" for e in emotions)
    for group, pairs in summary["shared"].items():
        yield f"{group} shared: " + ", ".join(f"{pair} {count}" for pair, count in pairs.items())
    for note in summary["notes"]:
        yield f"note: {note}"


def check_share(kept: int, rejects: Sequence[Reject], root: Path, max_reject_share: float, state: str) -> None:
    """Raise DataError where too few of the utterances are usable. state: what is in the data folder now."""
    reasons = Counter(reject.reason for reject in rejects if reject.utterance_id is not None)
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "none found"
    broken = [reject for reject in rejects if is_broken(reject)]
    example = f"; e.g. {broken[0].utterance_id}: {broken[0].detail} ({broken[0].source})" if broken else ""
    if not kept:
        raise DataError(f"no utterance of {root} is left ({counts}){example}. {state}")
    share = len(broken) / (kept + len(broken))
    if share > max_reject_share:
        raise DataError(
            f"{len(broken)} of {kept + len(broken)} utterances ({share:.0%}) are broken, more than max_reject_share "
            f"{max_reject_share:.0%} ({counts}){example}. {state}: mend the sources and run again, or accept "
            f"it with --set max_reject_share={min(1.0, share + 0.01):.2f}"
        )

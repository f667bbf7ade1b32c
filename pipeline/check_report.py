"""The answer of `pipeline check` as lines for a person."""

from collections.abc import Iterator, Mapping
from typing import Any


def format_check(summary: Mapping[str, Any]) -> str:
    """Text for a person: what was found beside the published counts, then warnings, problems and the verdict."""
    lines: list[str] = []
    if summary["root"] is not None:
        standin = " (a stand-in, made by a program)" if summary["standin"] else ""
        lines = [f"{summary['dataset']} release: {summary['root']}{standin}"]
        lines += [*_counts(summary), *_rejects(summary), *_split(summary), *_samples(summary), *_disk(summary)]
        lines += [f"note: {note}" for note in summary["notes"]]
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    lines += [f"problem: {problem}" for problem in summary["problems"]]
    count = len(summary["problems"])
    verdict = f"{count} problem{'s' * (count > 1)}: stage 1 would fail" if count else "stage 1 would start well"
    return "\n".join([*lines, verdict])


def _counts(summary: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'':22} {'found':>7} {'published':>9} {'diff.':>6}"
    for kind, files in summary["files"].items():
        yield _beside(kind, files["found"], files["published"], files.get("by_session")) + f"  {files['path']}"
    utterances = summary["utterances"]
    labelled = utterances["labelled"], utterances["published"]
    yield _beside("labelled utterances", *labelled, utterances.get("by_session"))
    yield _beside("of them usable", utterances["usable"], None)
    for label, counts in summary["labels"].items():
        yield _beside(f"  {label}", counts["found"], counts["published"])
    for kind, facts in summary["facts"].items():
        for value, counts in facts.items():
            yield _beside(f"{kind}: {value}", counts["found"], counts["published"])


def _beside(name: str, found: int, published: int | None, sessions: Mapping[str, Any] | None = None) -> str:
    line = f"{name:22} {found:7} {'' if published is None else published:>9}"
    if published is not None:
        line += f" {found - published:+6}" if found != published else f" {'same':>6}"
    each = " ".join(f"{counts['found']}/{counts['published']}" for counts in (sessions or {}).values())
    return f"{line}  by session {each}" if each else line


def _rejects(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["rejects"]:
        yield "left out, by reason"
    for reason, counts in summary["rejects"].items():
        yield f"  {reason:20} {counts['utterances']:7}  e.g. {counts['example']}: {counts['detail']}"
    for reason, count in summary["unused_files_and_lines"].items():
        yield f"  {reason:20} {count:7}  files or lines"


def _split(summary: Mapping[str, Any]) -> Iterator[str]:
    split = summary.get("split")
    if split is None:
        return
    emotions = list(split["splits"]["train"]["labels"])
    yield f"split {split['protocol']}"
    yield f"  {'':6} {'utterances':>10} {'published':>9}" + "".join(f" {emotion:>9}" for emotion in emotions)
    for name, part in split["splits"].items():
        published = "" if part["published"] is None else part["published"]
        counts = "".join(f" {part['labels'][emotion]:9}" for emotion in emotions)
        yield f"  {name:6} {part['utterances']:10} {published:>9}{counts}"
    for group, pairs in split["shared"].items():
        yield f"  {group} shared: " + ", ".join(f"{pair} {count}" for pair, count in pairs.items())
    for note in split["notes"]:
        yield f"  {note}"


def _samples(summary: Mapping[str, Any]) -> Iterator[str]:
    yield f"{len(summary['samples'])} sampled videos"
    for sample in summary["samples"]:
        line = f"  {sample['video']}:"
        if "codec" in sample:
            line += f" {sample['codec']} {sample['width']}x{sample['height']}, {sample['fps']:.2f} fps,"
            line += f" {sample['duration_s']:.1f} s"
        if "sound_hz" in sample:
            line += f"; sound {sample['sound_codec']} {sample['sound_hz']} Hz, {sample['channels']} channels"
        if "longest_difference_s" in sample:
            line += f", lengths within {sample['longest_difference_s']:.3f} s of the intervals"
        yield line + "".join(f"; {note}" for note in sample["notes"])


def _disk(summary: Mapping[str, Any]) -> Iterator[str]:
    disk = summary["disk"]
    need = "about" if any("bytes" in sample for sample in summary["samples"]) else "(not counting their pictures)"
    yield (
        f"disk: {disk['seconds'] / 3600:.2f} h of utterances need {need} {_size(disk['need_bytes'])}, "
        f"{disk['folder']} has {_size(disk['free_bytes'])} free"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"

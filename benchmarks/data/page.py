"""data-cpu.json as a page for a person."""

from collections.abc import Sequence
from typing import Any

# Hours of the utterances that are cut: the six-class counts times the mean seconds of the MESM paper's Table 1, and
# the sum of the intervals in CMU_MOSEI_Labels.csd.
REAL_RELEASES = {"iemocap": ("IEMOCAP, six classes", 9.4), "mosei": ("CMU-MOSEI", 49.1)}


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Tables of the ratios, of the agreement between detectors, and how each figure was got."""
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    corpora = {row["corpus"]: row for row in rows if "source_s" in row}
    material = "; ".join(f"{name} {row['source_s']:.0f} s of video" for name, row in corpora.items())
    ratios = [row for row in rows if "ratio" in row]
    lines = [
        "# The data stages",
        "",
        "Written by `python -m benchmarks bench-data` (`make bench-data`); rows in data-cpu.json.",
        "",
    ]
    lines += [
        f"{first['date']}, {first['device']}, {versions}. Stand-in material: {material}. Medians, run in turn.",
        "",
    ]
    lines += ["| work | corpus | ours | compared to | theirs | ratio | at most |", "|---|---|---:|---|---:|---:|---:|"]
    lines += [
        f"| {row['work']} | {row['corpus']} | {_amount(row['value'], row['unit'])} | {row['compared_to']} "
        f"| {_amount(row['compared_value'], row['unit'])} | {row['ratio']:.2f} | {row['target']} |"
        for row in ratios
    ]
    lines += ["", "## Faces: ours beside one call of the library for all frames", ""]
    lines += ["| corpus | frames | found | found by the library | mean IoU | least IoU | crops differ by |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {row['corpus']} | {row['frames']} | {row['found_share']:.1%} | {row['full_found_share']:.1%} "
        f"| {_share(row['mean_overlap'])} | {_share(row['least_overlap'])} | {row['mean_crop_difference']:.4f} of 255 |"
        for row in rows
        if "found_share" in row
    ]
    lines += ["", "## How each was got", ""]
    lines += [
        f"- {row['work']}, {row['corpus']}: `{row['how']}`; {row['compared_to']}: {row['compared_how']}"
        for row in ratios
    ]
    lines += [
        f"- waiting for data: {row['share']:.1%} of a training step ({row['model']})." for row in rows if "share" in row
    ]
    return "\n".join([*lines, *_real_releases(rows)]) + "\n"


def _real_releases(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Hours and gigabytes that these rates come to on the published releases."""
    lines = ["", "## How long and how big on the real releases", ""]
    lines += [
        "Computed from the rates above, on this machine; real pictures are noisier, so that clips are larger.",
        "",
    ]
    lines += [
        "| release | hours of utterances | reorganize | preprocess | clips, wavs and store |",
        "|---|---:|---:|---:|---:|",
    ]
    for corpus, (name, hours) in REAL_RELEASES.items():
        found = {row["work"]: row for row in rows if row["corpus"] == corpus and row.get("unit")}
        if not {"reorganize", "preprocess", "disk"} <= set(found):
            continue
        scale = hours * 3600 / found["reorganize"]["clip_s"]
        cut_h, process_h = (found[work]["value"] * scale / 3600 for work in ("reorganize", "preprocess"))
        size = found["disk"]["value"] * scale / 1e9
        lines.append(f"| {name} | {hours} | {cut_h:.1f} h | {process_h:.1f} h | {size:.1f} GB |")
    return lines


def _amount(value: float, unit: str) -> str:
    return f"{value:.1f} s" if unit == "s" else f"{value / 2**20:.0f} MiB"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"

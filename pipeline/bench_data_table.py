"""The rows of the data benchmark as a page for a person."""

from collections.abc import Sequence
from typing import Any


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
        "Written by `pipeline bench-data` (`make bench-data`); rows in data-cpu.json.",
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
    lines += ["", "## Faces: the cheap detector beside the full one", ""]
    lines += ["| corpus | frames | found | found by full | mean IoU | least IoU | crops differ by |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {row['corpus']} | {row['frames']} | {row['found_share']:.1%} | {row['full_found_share']:.1%} "
        f"| {_share(row['mean_overlap'])} | {_share(row['least_overlap'])} | {row['mean_crop_difference']:.4f} of 255 |"
        for row in rows
        if "found_share" in row
    ]
    lines += ["", "## How each was got", ""]
    lines += [
        f"- {row['work']}, {row['corpus']}: `{row['how']}`; {row['compared_to']}: {_shortened(row['compared_how'])}"
        for row in ratios
    ]
    lines += [
        f"- waiting for data: {row['share']:.1%} of a training step ({row['model']})." for row in rows if "share" in row
    ]
    return "\n".join(lines) + "\n"


def _amount(value: float, unit: str) -> str:
    return f"{value:.1f} s" if unit == "s" else f"{value / 2**20:.0f} MiB"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _shortened(command: str, most: int = 600) -> str:
    """A long ffmpeg command by its beginning; the JSON file has the whole."""
    return command if len(command) <= most else f"{command[:most]} ... ({len(command)} characters)"

"""The rows of the benchmarks as pages for a person."""

from collections.abc import Sequence
from typing import Any

from benchmarks.targets import Verdict, cpu_verdicts, of_published


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The page of cpu.json: targets first, then what was measured; every row with its own date."""
    lines = [
        "# Measured speed",
        "",
        "Written by `pipeline bench` (`make bench`); rows in the JSON file beside this page.",
    ]
    lines += [
        "Noise as input (9 faces, 12 chunks, 50 tokens an utterance), untrained weights, medians; models in turn.",
        "",
    ]
    for device, versions in dict.fromkeys((row["device"], _versions(row)) for row in rows):
        lines.append(f"- {device}, {versions}")
    lines += ["", "## Targets", "", *verdict_table(cpu_verdicts(rows))]
    timed = [row for row in rows if row.get("ratio_to_fe2e") is not None]
    lines += ["", "## Models", ""]
    lines += ["| work | batch | precision | model | engine | seconds | of FE2E | of published | peak GiB | of | date |"]
    lines += ["|---|---:|---|---|---|---:|---:|---:|---:|---:|---|", *map(_model_line, timed)]
    if shares := [row for row in rows if "share_of_step" in row]:
        lines += ["", "## Attention and top-p", "", "| work | batch | precision | p | seconds | step | share | date |"]
        lines += ["|---|---:|---|---:|---:|---:|---:|---|", *map(_share_line, shares)]
    if curves := [row for row in rows if "losses" in row]:
        lines += ["", "## Loss curves", ""]
        lines += ["The same short training from one seed; differences are from float32's curve.", ""]
        lines += ["Control: the last difference of a float32 training whose weights were rounded at the start.", ""]
        lines += [
            "| model | precision | steps | first loss | last | largest difference | of the last | control | date |"
        ]
        lines += ["|---|---|---:|---:|---:|---:|---:|---:|---|", *map(_curve_line, curves)]
    if floors := [row for row in rows if "floor_s" in row]:
        lines += [
            "",
            "## Floors",
            "",
            "| work | batch | precision | model | floor s | measured | times the floor | date |",
        ]
        lines += ["|---|---:|---|---|---:|---:|---:|---|", *(_floor_line(row, timed) for row in floors)]
    return "\n".join(lines) + "\n"


def verdict_table(verdicts: Sequence[Verdict]) -> list[str]:
    """Lines of a table: each target, what was found, and whether it is met."""
    met = sum(verdict.met == "yes" for verdict in verdicts)
    lines = [f"{met} of {len(verdicts)} are met.", "", "| what | at most | found | met |", "|---|---:|---:|---|"]
    for verdict in verdicts:
        found = "" if verdict.found is None else f"{verdict.found:.3f}{verdict.unit}"
        lines.append(f"| {verdict.what} | {verdict.target}{verdict.unit} | {found} | {verdict.met} |")
    return lines


def model_name(row: dict[str, Any]) -> str:
    """E.g. `mesm p 0.5`."""
    return str(row["model"]) + ("" if row["top_p"] is None else f" p {row['top_p']}")


def gib(size: int | None) -> str:
    """Bytes in GiB; empty for None."""
    return "" if size is None else f"{size / 2**30:.2f}"


def _versions(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


def _model_line(row: dict[str, Any]) -> str:
    published = of_published(row)
    cells = [row["work"], row["batch"], row["precision"], model_name(row), row["backend"], f"{row['median_s']:.3f}"]
    cells += [f"{row['ratio_to_fe2e']:.2f}", "" if published is None else f"{published:.2f}", gib(row["peak_bytes"])]
    return _line([*cells, row["repeats"], row["date"]])


def _share_line(row: dict[str, Any]) -> str:
    cells = [
        row["work"],
        row["batch"],
        row["precision"],
        row["top_p"],
        f"{row['median_s']:.3f}",
        f"{row['step_s']:.3f}",
    ]
    return _line([*cells, f"{row['share_of_step']:.1%}", row["date"]])


def _curve_line(row: dict[str, Any]) -> str:
    cells = [model_name(row), row["precision"], len(row["losses"]), row["first_loss"], row["last_loss"]]
    differences = row["largest_difference"], row["last_difference"], row.get("control_difference", "")
    return _line([*cells, *differences, row["date"]])


def _floor_line(floor: dict[str, Any], timed: Sequence[dict[str, Any]]) -> str:
    same = ("work", "model", "top_p", "batch", "precision")
    found = [row["median_s"] for row in timed if all(row[key] == floor[key] for key in same)]
    beside = [f"{found[-1]:.3f}", f"{found[-1] / floor['floor_s']:.1f}"] if found else ["", ""]
    cells = [floor["work"], floor["batch"], floor["precision"], model_name(floor), f"{floor['floor_s']:.4f}", *beside]
    return _line([*cells, floor["date"]])


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"

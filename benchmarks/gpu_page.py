"""gpu.json as a page for a person. Needs no torch."""

from collections.abc import Sequence
from typing import Any

from benchmarks.tables import gib, model_name, verdict_table
from benchmarks.targets import gpu_verdicts


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Machine, targets, tests, times; then what was not measured, by reason."""
    machine = [row for row in rows if row["work"] == "environment"]
    tests = [row for row in rows if row["work"].startswith("tests marked gpu")]
    timed = [row for row in rows if row not in machine and row not in tests]
    lines = ["# On a GPU", "", "Written by `make gpu-test`; rows in gpu.json.", ""]
    lines += _machine(machine[0]) if machine else ["**Nothing was measured on a GPU, and nothing is claimed for one.**"]
    lines += ["", "## Targets", "", *verdict_table(gpu_verdicts(timed))]
    lines += ["", "## Tests", "", *(f"- {row['work']}: {_outcome(row)}" for row in tests)]
    if found := [row for row in timed if row["median_s"] is not None]:
        lines += ["", "## Times", "", "Noise as input, untrained weights; medians; epochs are of 5,162 utterances.", ""]
        lines += [
            "| work | batch | precision | model | asked | engine | how | seconds | of FE2E | peak GiB | waiting |"
        ]
        lines += ["|---|---:|---|---|---|---|---|---:|---:|---:|---:|", *map(_line, found)]
    lines += ["", "## Not measured", "", *_left(timed)]
    return "\n".join(lines) + "\n"


def _machine(row: dict[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {version}" for name, version in row["packages"].items())
    lines = [f"{row['date']}, {row['gpu']}, driver {row['driver']}, CUDA {row['cuda']}, Python {row['python']}.", ""]
    lines += [f"Packages: {packages}.", ""]
    missing = "; ".join(f"{name} ({needs})" for name, needs in row["missing"].items())
    return [*lines, f"Missing: {missing or 'nothing'}."]


def _outcome(row: dict[str, Any]) -> str:
    if row.get("not_measured"):
        return f"not measured ({row['not_measured']})"
    left_out = f"; left out, not installed: {', '.join(row['left_out'])}" if row["left_out"] else ""
    return f"{row['outcome']}, {row['median_s']} s{left_out}"


def _line(row: dict[str, Any]) -> str:
    ratio, waiting = row.get("ratio_to_fe2e"), row.get("waiting_share")
    cells = [row["work"], row["batch"], row["precision"], model_name(row), row["asked"], row["backend"], row["mode"]]
    cells += [f"{row['median_s']:.4f}", "" if ratio is None else f"{ratio:.2f}", gib(row["peak_bytes"])]
    cells.append("" if waiting is None else f"{waiting:.1%}")
    return f"| {' | '.join(map(str, cells))} |"


def _left(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for reason in dict.fromkeys(row["not_measured"] for row in rows if row.get("not_measured")):
        names = [
            f"{row['work']}, batch {row['batch']}, {row['precision']}, {model_name(row)}, {row['asked']}, {row['mode']}"
            for row in rows
            if row.get("not_measured") == reason
        ]
        lines += [f"- {reason} ({row_dates(rows, reason)}):", *(f"  - {name}" for name in names)]
    return lines or ["All of it was measured."]


def row_dates(rows: Sequence[dict[str, Any]], reason: str) -> str:
    """The dates of the rows that have this reason."""
    return ", ".join(dict.fromkeys(str(row["date"]) for row in rows if row.get("not_measured") == reason))

"""The models' speed side by side, written into docs/benchmarks by the command that measured it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from data_tools.files import write_json, write_text
from pipeline.bench.models import Precision, bench_models
from pipeline.progress import Reporter

# The published code, measured elsewhere on 2 cores at these sizes: seconds of one training step.
PUBLISHED_STEP_S = {
    ("towers only", "fe2e"): 3.1,
    ("towers only", "mesm"): 3.2,
    ("whole model", "fe2e"): 4.6,
    ("whole model", "mesm"): 4.2,
}


def bench(out: Path, reporter: Reporter) -> dict[str, Any]:
    """Measure the models and write `out`/cpu.json (or cuda.json), one object a row, and a table of it beside.

    Takes about 12 minutes on two cores and wants the machine for itself. Returns {"rows": [...], "files": [...]}.

    Raises:
        DataError: `out` cannot be written to.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[dict[str, Any]] = []
    for precision in get_args(Precision):
        rows += bench_models(reporter, precision=precision, device=device)
    files = [out / f"{device}.json", out / f"{device}.md"]
    write_json(files[0], rows)
    write_text(files[1], as_markdown(rows))
    reporter.say(f"written: {', '.join(map(str, files))}")
    return {"rows": rows, "files": [str(path) for path in files]}


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as tables for a person."""
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    lines = ["# Measured speed", "", "Written by `pipeline bench`; the rows are in the JSON file beside this one.", ""]
    lines += [f"{first['date']}, {first['device']}, {versions}. Medians; noise as input, untrained weights.", ""]
    lines += ["## Models, batch 8 with 72 faces, 96 chunks, 50 tokens", ""]
    lines += ["| work | precision | model | seconds | of FE2E | peak GiB | of the published step |"]
    lines += ["|---|---|---|---:|---:|---:|---:|"]
    lines += [_model_line(row) for row in rows]
    return "\n".join(lines) + "\n"


def _model_line(row: dict[str, Any]) -> str:
    name = row["model"] + ("" if row["top_p"] is None else f" p {row['top_p']}")
    peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.2f}"
    work, _, scope = row["work"].partition(", ")
    # MESM was measured there at p 0.5, and all of it on a CPU.
    comparable = row["device"].startswith("CPU") and row["top_p"] in (None, 0.5)
    published = PUBLISHED_STEP_S.get((scope, row["model"])) if comparable else None
    share = f"{row['median_s'] / published:.2f}" if published and work == "training step" else ""
    numbers = f"{row['median_s']:.3f} | {row['ratio_to_fe2e']:.2f} | {peak} | {share}"
    return f"| {row['work']} | {row['precision']} | {name} | {numbers} |"

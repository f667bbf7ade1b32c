"""Plan of `make gpu-test`: its jobs, in the order in which they are worth most. Needs no torch and no GPU."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rows import model_name

ROOT = Path(__file__).parents[2]
TOP_P = (None, 0.5, 0.7)
SCOPES = ("towers only", "whole model")
# Backends of the sparse convolutions beside `auto`; those that a machine lacks get a row that says so.
BACKENDS = ("torch", "dense", "triton", "spconv", "spconv_triton")
# What makes a row the one that was planned.
IDENTITY = ("work", "model", "top_p", "batch", "precision", "asked", "mode")


@dataclass(frozen=True)
class Sizes:
    """Sizes of what is measured. utterances: of the epoch; faces and chunks are means of an utterance."""

    batches: tuple[int, ...] = (32, 64)
    utterances: int = 5162
    faces: int = 9
    chunks: int = 12
    tokens: int = 50
    width: int = 64
    repeats: int = 5
    loader_workers: int = 8


# "tiny" walks through every job on any machine; its times mean nothing.
SIZES = {
    "full": Sizes(),
    "tiny": Sizes(batches=(2,), utterances=6, faces=2, chunks=2, tokens=4, width=4, repeats=1, loader_workers=0),
}


@dataclass(frozen=True)
class Job:
    """Work of one process. rows: those that it is to give. most_s: it is stopped after so many seconds."""

    name: str
    kind: str
    rows: tuple[dict[str, Any], ...]
    most_s: float


def plan(sizes: Sizes, root: Path = ROOT) -> list[Job]:
    """Jobs in order: tests, then the rows with targets, then the rest."""
    first, *others = sizes.batches
    jobs = [_tests(folder) for folder in folders_of_tests(root)]
    jobs.append(_models("models, bf16-mixed", first, "bf16-mixed", most_s=90))
    jobs.append(_epoch("epoch in memory", sizes.batches))
    jobs += [_epoch(name, (first,)) for name in from_store(sizes)]
    jobs.append(Job("cuda graphs", "models", tuple(_graphs(sizes.batches)), 60))
    jobs.append(Job("backends", "models", tuple(_backends(first)), 60))
    jobs += [_models(f"models, bf16-mixed, batch {batch}", batch, "bf16-mixed", most_s=60) for batch in others]
    jobs += [_models(f"models, 16-mixed, batch {batch}", batch, "16-mixed", most_s=60) for batch in sizes.batches]
    jobs.append(Job("compiled", "models", tuple(_compiled(first)), 150))
    return jobs


def from_store(sizes: Sizes) -> dict[str, dict[str, Any]]:
    """Epochs by `pipeline train`: name -> the settings that say where its data comes from."""
    return {
        "epoch from the store, held on the device": {"keep_on_device": True},
        f"epoch from the store, read by {sizes.loader_workers} processes": {
            "keep_on_device": False,
            "loader_workers": sizes.loader_workers,
        },
    }


def folders_of_tests(root: Path) -> list[str]:
    """Folders below tests/ that have tests marked gpu, relative to `root`."""
    marked = filter(is_marked, sorted(root.glob("tests/**/test_*.py")))
    return list(dict.fromkeys(path.parent.relative_to(root).as_posix() for path in marked))


def is_marked(path: Path) -> bool:
    """Return True if the file has tests marked gpu."""
    return re.search(r"^(@|pytestmark = )pytest\.mark\.gpu", path.read_text("utf-8"), re.MULTILINE) is not None


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    """Values that tell planned rows apart."""
    return tuple(row.get(name) for name in IDENTITY)


def not_measured(row: dict[str, Any], reason: str, date: str) -> dict[str, Any]:
    """A planned row without figures, and the reason."""
    nothing: dict[str, Any] = {
        "backend": None,
        "median_s": None,
        "min_s": None,
        "ratio_to_fe2e": None,
        "peak_bytes": None,
    }
    nothing |= {"device": None, "versions": None, "date": date}
    return {name: row.get(name) for name in IDENTITY} | nothing | {"not_measured": reason}


def grouped(rows: Sequence[dict[str, Any]], jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The rows as gpu.json keeps them: those that were not measured are one object a reason and date.

    Its `rows` names them as `names_of` does. A row that has a program's output stays as it is.
    """
    left = [row for row in rows if row.get("not_measured") and "output" not in row]
    reasons = dict.fromkeys((row["not_measured"], row["date"]) for row in left)
    return [row for row in rows if row not in left] + [
        {
            "not_measured": reason,
            "date": date,
            "rows": names_of([r for r in left if _reason(r) == (reason, date)], jobs),
        }
        for reason, date in reasons
    ]


def _reason(row: dict[str, Any]) -> tuple[str, str]:
    return row["not_measured"], row["date"]


def names_of(rows: Sequence[dict[str, Any]], jobs: Sequence[Job]) -> list[str]:
    """Names of planned rows: a job's name for all of its rows, and each row of a job that is not there as a whole."""
    left = {identity(row): row for row in rows}
    names = []
    for job in jobs:
        planned = [identity(row) for row in job.rows]
        if all(name in left for name in planned):
            names.append(job.name if len(planned) == 1 else f"{job.name} ({len(planned)} rows)")
            left = {name: row for name, row in left.items() if name not in planned}
    return names + [_in_words(row) for row in left.values()]


def _in_words(row: dict[str, Any]) -> str:
    names = f"{model_name(row)}, {row['asked']}, {row['mode']}"
    return f"{row['work']}, batch {row['batch']}, {row['precision']}, {names}"


def _row(
    work: str,
    top_p: float | None = None,
    batch: int | None = None,
    precision: str | None = None,
    asked: str = "auto",
    mode: str = "eager",
) -> dict[str, Any]:
    model, asked = ("fe2e", "dense") if top_p is None else ("mesm", asked)
    return dict(zip(IDENTITY, (work, model, top_p, batch, precision, asked, mode), strict=True))


def _tests(folder: str) -> Job:
    row: dict[str, Any] = dict.fromkeys(IDENTITY)
    return Job(f"tests in {folder}", "tests", (row | {"work": f"tests marked gpu in {folder}"},), 120)


def _models(name: str, batch: int, precision: str, most_s: float) -> Job:
    works = [f"{work}, {scope}" for scope in SCOPES for work in ("training step", "forward")]
    return Job(name, "models", tuple(_row(work, p, batch, precision) for work in works for p in TOP_P), most_s)


def _epoch(name: str, batches: Sequence[int]) -> Job:
    return Job(name, name, tuple(_row(name, None, batch, "bf16-mixed") for batch in batches), 90)


def _graphs(batches: Sequence[int]) -> list[dict[str, Any]]:
    works = [(f"training step, {scope}", batch) for batch in batches for scope in SCOPES]
    return [_row(work, None, batch, "bf16-mixed", mode="cuda graph") for work, batch in works]


def _backends(batch: int) -> list[dict[str, Any]]:
    asked = [(precision, backend) for precision in ("bf16-mixed", "16-mixed", "32-true") for backend in BACKENDS]
    return [_row("training step, towers only", 0.5, batch, precision, backend) for precision, backend in asked]


def _compiled(batch: int) -> list[dict[str, Any]]:
    works = [f"training step, {scope}" for scope in SCOPES]
    return [_row(work, p, batch, "bf16-mixed", mode="compile") for work in works for p in (None, 0.5)]

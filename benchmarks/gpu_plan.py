"""What `make gpu-test` is to measure, in the order in which it is worth most. Needs no torch and no GPU."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOP_P = (None, 0.5, 0.7)
SCOPES = ("towers only", "whole model")
# Engines of the sparse convolutions beside `auto`; those that a machine lacks get a row that says so.
ENGINES = ("torch", "dense", "spconv", "spconv_triton")
# What makes a row the one that was planned.
IDENTITY = ("work", "model", "top_p", "batch", "precision", "asked", "mode")


@dataclass(frozen=True)
class Sizes:
    """How much is measured. utterances: of the epoch; faces and chunks are means of an utterance."""

    batches: tuple[int, ...] = (32, 64)
    utterances: int = 5162
    faces: int = 9
    chunks: int = 12
    tokens: int = 50
    width: int = 64
    repeats: int = 5
    loader_workers: int = 8


# "tiny" walks through every step on any machine; its times mean nothing.
SIZES = {
    "full": Sizes(),
    "tiny": Sizes(batches=(2,), utterances=6, faces=2, chunks=2, tokens=4, width=4, repeats=1, loader_workers=0),
}


@dataclass(frozen=True)
class Step:
    """One process's work. rows: what it is to give. most_s: it is stopped after so many seconds."""

    name: str
    kind: str
    rows: tuple[dict[str, Any], ...]
    most_s: float


def plan(sizes: Sizes, root: Path = ROOT) -> list[Step]:
    """The steps in order: tests, then the rows with targets, then the rest."""
    first, *others = sizes.batches
    steps = [_tests(folder) for folder in folders_of_tests(root)]
    steps.append(_models("models, bf16-mixed", first, "bf16-mixed", most_s=90))
    steps.append(_epoch("epoch in memory", sizes.batches))
    steps += [_epoch(name, (first,)) for name in from_store(sizes)]
    steps.append(Step("cuda graphs", "models", tuple(_graphs(sizes.batches)), 60))
    steps.append(Step("engines", "models", tuple(_engines(first)), 60))
    steps += [_models(f"models, bf16-mixed, batch {batch}", batch, "bf16-mixed", most_s=60) for batch in others]
    steps += [_models(f"models, 16-mixed, batch {batch}", batch, "16-mixed", most_s=60) for batch in sizes.batches]
    steps.append(Step("compiled", "models", tuple(_compiled(first)), 150))
    return steps


def from_store(sizes: Sizes) -> dict[str, dict[str, Any]]:
    """The epochs by `pipeline train`: what each is called, and the settings that say where its data comes from."""
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
    """Whether a file has tests marked gpu."""
    return re.search(r"^(@|pytestmark = )pytest\.mark\.gpu", path.read_text("utf-8"), re.MULTILINE) is not None


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells planned rows apart."""
    return tuple(row.get(name) for name in IDENTITY)


def not_measured(row: dict[str, Any], reason: str, date: str) -> dict[str, Any]:
    """A planned row without figures, and why."""
    nothing: dict[str, Any] = {
        "backend": None,
        "median_s": None,
        "min_s": None,
        "ratio_to_fe2e": None,
        "peak_bytes": None,
    }
    nothing |= {"device": None, "versions": None, "date": date}
    return {name: row.get(name) for name in IDENTITY} | nothing | {"not_measured": reason}


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


def _tests(folder: str) -> Step:
    row: dict[str, Any] = dict.fromkeys(IDENTITY)
    return Step(f"tests in {folder}", "tests", (row | {"work": f"tests marked gpu in {folder}"},), 120)


def _models(name: str, batch: int, precision: str, most_s: float) -> Step:
    works = [f"{work}, {scope}" for scope in SCOPES for work in ("training step", "forward")]
    return Step(name, "models", tuple(_row(work, p, batch, precision) for work in works for p in TOP_P), most_s)


def _epoch(name: str, batches: Sequence[int]) -> Step:
    return Step(name, name, tuple(_row(name, None, batch, "bf16-mixed") for batch in batches), 90)


def _graphs(batches: Sequence[int]) -> list[dict[str, Any]]:
    works = [(f"training step, {scope}", batch) for batch in batches for scope in SCOPES]
    return [_row(work, None, batch, "bf16-mixed", mode="cuda graph") for work, batch in works]


def _engines(batch: int) -> list[dict[str, Any]]:
    asked = [(precision, engine) for precision in ("bf16-mixed", "16-mixed", "32-true") for engine in ENGINES]
    return [_row("training step, towers only", 0.5, batch, precision, engine) for precision, engine in asked]


def _compiled(batch: int) -> list[dict[str, Any]]:
    works = [f"training step, {scope}" for scope in SCOPES]
    return [_row(work, p, batch, "bf16-mixed", mode="compile") for work in works for p in (None, 0.5)]

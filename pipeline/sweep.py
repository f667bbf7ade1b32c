"""`pipeline sweep`: the MESM paper's Figure 5 on a data folder, score and multiply-adds over top-p."""

import itertools
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

import models
from data_tools.files import folder_lock
from models.end_to_end import EndToEndModel
from pipeline.command import Command
from pipeline.counting import published as paper
from pipeline.progress import Reporter
from pipeline.report.comparison import score_tables, sheet_of
from pipeline.report.figures import data_uri, sweep_png
from pipeline.report.pages import Cell, Sheet, Table, markdown, number, score_column, write_result
from pipeline.run_data import dataset_name
from pipeline.settings import ConfigError, Names, flag
from pipeline.study.plan import (
    MODELS_HELP,
    Planned,
    StudySettings,
    ValueFlags,
    configs_of,
    planned_variant,
    read_study,
    refuse_own,
)
from pipeline.study.result import command_line, done_over_seeds, main_scores, metric_of, result_of
from pipeline.study.runs import Trained, check_runs, train_rows


def parse_grid(text: str, flag: str = "--top-p") -> tuple[float, ...]:
    """`0.1:1.0:0.1` (first, last, step) or `0.3,0.5,0.9` as numbers in (0, 1], exact: 0.3, not 0.30000000000000004.

    The last number is one of the grid only where a step falls on it.

    Raises:
        ConfigError: not numbers, a step that is not above 0, a first one above the last, values outside (0, 1], one
            that comes twice, or more than `MOST_RUNS`.
    """
    parts = text.split(":")
    if len(parts) not in (1, 3):
        raise ConfigError(
            f"{flag} is {text!r}: expected FIRST:LAST:STEP, for example 0.1:1.0:0.1, or values with commas"
        )
    try:
        values = [Decimal(part.strip()) for part in (parts if len(parts) == 3 else text.split(","))]
    except InvalidOperation:
        raise ConfigError(f"{flag} is {text!r}: not all of it are numbers; expected for example 0.1:1.0:0.1") from None
    if not all(value.is_finite() for value in values):
        raise ConfigError(f"{flag} is {text!r}: give finite numbers, for example 0.1:1.0:0.1")
    found = _steps(values, text, flag) if len(parts) == 3 else values
    if wrong := [value for value in found if not 0 < value <= 1]:
        raise ConfigError(f"{flag} is {text!r}: {wrong[0]} is outside (0, 1]; 1 keeps every site")
    if len(set(found)) < len(found):
        raise ConfigError(f"{flag} is {text!r}: a value comes twice; give each one once")
    return tuple(float(value) for value in sorted(found))


def _steps(given: list[Decimal], text: str, flag: str) -> list[Decimal]:
    first, last, step = given
    if step <= 0:
        raise ConfigError(f"{flag} is {text!r}: the step is {step}; give one above 0, for example 0.1:1.0:0.1")
    if first > last:
        raise ConfigError(f"{flag} is {text!r}: it begins above its end; give FIRST:LAST:STEP, for example 0.1:1.0:0.1")
    count = int((last - first) / step) + 1
    check_runs(count, f"{flag} {text}")
    return [first + number * step for number in range(count)]


def _grid(value: Any) -> Any:
    return parse_grid(value) if isinstance(value, str) else value


class SweepSettings(StudySettings):
    """Settings of `pipeline sweep`."""

    models: Names = flag(("mesm", "fe2e"), min_length=1, help=MODELS_HELP)
    top_p: Annotated[tuple[float, ...], BeforeValidator(_grid)] = flag(
        parse_grid("0.1:1.0:0.1"),
        min_length=1,
        help="FIRST:LAST:STEP, or values with commas; each in (0, 1], 1 keeps every site.",
    )


def sweep(asked: SweepSettings, reporter: Reporter) -> dict[str, Any]:
    """Train each sparse model at each top_p and the others once, with every seed; then write the figure and its page.

    Runs that are finished are kept, as in `pipeline compare`. Writes sweep.json, sweep.md and sweep.html into the
    folder and returns sweep.json: that of a comparison, with "sweep": {"metric", "points", "paper", "findings"}.

    Raises:
        ConfigError, ModelError, DataError: as `pipeline.compare.compare`; no model with a top_p, one that counts
            no multiply-adds, or nothing to select from.
    """
    refuse_own(asked, "top_p", "give it as --top-p, it is what the sweep changes")
    _check_models(asked)
    out = asked.out or Path("runs") / f"sweep-{dataset_name(asked.data)}"
    rows = dict(_rows(asked, reporter))
    with folder_lock(out):
        trained = train_rows(out, rows, asked, reporter)
        grid = ",".join(map(str, asked.top_p))
        result = result_of(asked, trained, command_line("sweep", asked, out, "--top-p", grid))
        result["sweep"] = _sweep(result, trained, rows)
        write_result(
            out,
            "sweep",
            result,
            sheet(result),
            reporter,
            "report/sweep.html.j2",
            figure=data_uri(sweep_png(result["sweep"])),
        )
    return result


def _check_models(asked: SweepSettings) -> None:
    names = {config.label: config.model["name"] for config in configs_of(asked.models, asked.data)}
    counted = [name for name, (_, model) in models.REGISTRY.items() if issubclass(model, EndToEndModel)]
    sparse = [name for name in counted if _is_sparse(name)]
    if others := [label for label, name in names.items() if name not in counted]:
        raise ConfigError(
            f"--models has {', '.join(others)}, which count no multiply-adds in training; known: {', '.join(counted)}"
        )
    if not set(names.values()) & set(sparse):
        raise ConfigError(f"--models is {','.join(names)}: none has a top_p; add {' or '.join(sparse)}")


def _is_sparse(name: str) -> bool:
    return "top_p" in models.REGISTRY[name][0].model_fields


def _rows(asked: SweepSettings, reporter: Reporter) -> Iterator[tuple[str, tuple[str, Planned]]]:
    """(label, (folder, training)): the dense models first, they are what the others are held against."""
    dense: dict[str, tuple[str, Planned]] = {}
    sparse: dict[str, tuple[str, Planned]] = {}
    for top_p in asked.top_p:
        for planned in planned_variant(asked, reporter, top_p=top_p):
            name = planned.name
            if not {"a", "v"} & set(planned.prepared.model.config.modalities):
                raise ConfigError("modalities is 't': top_p selects sites of faces and sound; add a or v")
            if _is_sparse(planned.prepared.model.name):
                sparse[_label(name, top_p)] = (f"{name}/top_p-{top_p}", planned)
            else:
                dense[name] = (name, planned)
    yield from (dense | sparse).items()


def _label(name: str, top_p: float) -> str:
    return f"{name}, top_p {top_p}"


def _sweep(result: dict[str, Any], trained: Trained, rows: dict[str, tuple[str, Planned]]) -> dict[str, Any]:
    scores = main_scores(result)
    done = {label: done_over_seeds(runs) for label, runs in trained.finished.items()}
    dense = [label for label, (_, planned) in rows.items() if planned.prepared.model.name == "fe2e" and label in done]
    points = [
        {
            "label": label,
            "model": planned.name,
            "top_p": planned.prepared.model.given.get("top_p"),
            "score": scores[label],
            "done": done[label],
            "of_fe2e": done[label]["towers"] / done[dense[0]]["towers"] if dense else None,
        }
        for label, (_, planned) in rows.items()
        if label in done
    ]
    found = {
        "metric": metric_of(result),
        "points": points,
        "paper": {
            "flops": {"fe2e": paper.FE2E, **{str(top_p): count for top_p, count in paper.MESM.items()}},
            "of_fe2e": {str(top_p): paper.of_fe2e(top_p) for top_p in paper.MESM},
        },
    }
    return found | {"findings": list(_findings(found))}


def _findings(found: dict[str, Any]) -> Iterator[str]:
    """Findings of this sweep, each beside what the paper says of its own."""
    for name in dict.fromkeys(point["model"] for point in found["points"] if point["top_p"] is not None):
        points = {point["top_p"]: point for point in found["points"] if point["model"] == name}
        falls = [
            f"{low} to {high}"
            for low, high in itertools.pairwise(points)
            if points[high]["done"]["towers"] < points[low]["done"]["towers"]
        ]
        yield (
            f"{name}: the multiply-adds of the towers "
            + ("never fall while top_p rises" if not falls else f"fall from top_p {', '.join(falls)}")
            + ". In the paper they fall consistently with top_p."
        )
        for top_p in paper.MESM:
            if top_p in points and points[top_p]["of_fe2e"] is not None:
                yield (
                    f"{name} at top_p {top_p}: {points[top_p]['of_fe2e']:.2f} of the multiply-adds of FE2E's towers "
                    f"here; {paper.of_fe2e(top_p):.2f} in the paper ({paper.MESM[top_p] / 1e9:.2f} of "
                    f"{paper.FE2E / 1e9:.2f} x 1e9, for a sample of unstated size)."
                )
        for high, low, said in ((0.9, 0.5, "no significant drop"), (0.5, 0.1, "a clear downgrade")):
            if high in points and low in points:
                before, after = (points[top_p]["score"]["mean"] for top_p in (high, low))
                yield (
                    f"{name}: {found['metric']['name']} from top_p {high} to {low}: {number(before)} to "
                    f"{number(after)}. The paper's weighted accuracy: {said}."
                )
    yield "`pipeline flops` says what can and cannot explain the paper's counts."


def sheet(result: dict[str, Any]) -> Sheet:
    """The page of a sweep. result: sweep.json."""
    found, title = result["sweep"], f"Score and multiply-adds over top_p on {result['dataset']}: {result['task']}"
    return sheet_of(result, title, [_table(found), *score_tables(result)], found["findings"])


def _table(found: dict[str, Any]) -> Table:
    points, metric = found["points"], found["metric"]
    score = score_column([point["score"] for point in points], metric["lower_is_better"])
    rows = [
        [
            Cell(point["label"]),
            cell,
            Cell(number(point["of_fe2e"]) if point["of_fe2e"] is not None else "-"),
            *(Cell(f"{point['done'][part] / 1e6:,.2f}") for part in ("towers", "text", "total")),
            *(Cell(_shares(point["done"]["share_of_sites"], tower)) for tower in ("face", "mel")),
        ]
        for point, cell in zip(points, score, strict=True)
    ]
    note = (
        f"{metric['name']}: {metric['definition']}. Multiply-adds: million for an utterance, really done by the "
        "forward passes of the last epoch's training, mean over its utterances and the seeds; towers: of faces and "
        "sound, with attention and sequence encoder. Where the engine computes densely, as `auto` does where that is "
        "faster, that is counted; `--set backend=torch` does only what active sites need. Sites: share that is active "
        "after each attention layer."
    )
    columns = ["model", metric["name"], "towers of fe2e", "towers", "text", "total", "sites, faces", "sites, chunks"]
    return Table("Over top_p", note, columns, rows)


def _shares(shares: dict[str, float], tower: str) -> str:
    listed = [f"{share:.0%}" for key, share in shares.items() if key.startswith(f"{tower}.share.")]
    return ", ".join(listed) or "all"


COMMAND = Command(
    sweep,
    (SweepSettings, ValueFlags),
    example="pipeline sweep --data data/iemocap --top-p 0.1:1.0:0.1 --seeds 3",
    read=read_study(SweepSettings),
    takes_set=True,
    for_people=lambda result: markdown(sheet(result)),
    failed=lambda result: bool(result["failed"]),
    without=("frontend",),
)

"""`pipeline reproduce`: a paper's table or figure on a data folder, the published figure beside each of ours."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from data_tools.files import folder_lock
from pipeline.command import Command
from pipeline.metrics.metric import by_full_name
from pipeline.progress import Reporter
from pipeline.report.figures import data_uri, missing_models_png
from pipeline.report.pages import Cell, Sheet, Table, markdown, write_result
from pipeline.run_data import dataset_name
from pipeline.settings import (
    DATA_HELP,
    DEFAULT_DATA,
    ConfigError,
    Device,
    LocalPath,
    Settings,
    configs_dir,
    flag,
    read_yaml,
)
from pipeline.study.papers import Asked, Found, run_study
from pipeline.study.spec import Row, Study, load_study, study_names

NOT_BUILT = "not built here"


def _first(value: Any) -> Any:
    return (value[0] if value else None) if isinstance(value, list | tuple) else value


class ReproduceSettings(Settings):
    """Settings of `pipeline reproduce`."""

    name: Annotated[str | None, BeforeValidator(_first)] = flag(
        None, positional=True, help="A study of configs/studies, e.g. emt-table-6; --list has all."
    )
    list: bool = flag(False, help="List the studies: what each needs, and how long it took on the stand-in.")
    data: LocalPath = flag(DEFAULT_DATA, help=DATA_HELP)
    seeds: int | None = flag(None, ge=1, help="Runs of each row; by default as many as the paper has.")
    quick: bool = flag(False, help="Few utterances, one epoch, the smallest models: to see that it runs.")
    pretrained: LocalPath | None = flag(None, help="The run of `pipeline pretrain --stage mlm`, for rows that need it.")
    adapted: LocalPath | None = flag(None, help="That of `pipeline pretrain --stage tapt`, for rows that need it.")
    out: LocalPath | None = flag(None, help="The folder of runs and tables, by default runs/<study>-<dataset>.")
    device: Device = flag("auto", help="auto, cpu or cuda.")
    values: dict[str, Any] = Field({}, description="settings laid over all rows")


def reproduce(asked: ReproduceSettings, reporter: Reporter) -> dict[str, Any]:
    """Train the rows of a study that can be trained on these data, and write its table in the paper's layout.

    Runs that are finished are kept. Writes reproduce.json, reproduce.md and reproduce.html and returns
    reproduce.json: {"study", "paper", "shows", "comparable", "columns", "rows": [{"label", "config", "values",
    "published", "reason"}], ...}. With `list`, {"studies": [...]}.

    Raises:
        ConfigError: no such study, a setting that no row knows, or no row can be trained.
        DataError: the data folder is missing; a run in the folder was started on other data.
    """
    if asked.list:
        return {"studies": [_listed(name) for name in study_names()]}
    if asked.name is None:
        raise ConfigError("give the name of a study, e.g. emt-table-6, or --list")
    study = load_study(asked.name)
    kind = "counts" if study.kind == "counts" else dataset_name(asked.data)
    out = asked.out or Path("runs") / f"{asked.name}-{kind}"
    seeds = asked.seeds or (read_yaml(configs_dir() / "quick.yaml")["seeds"] if asked.quick else study.seeds)
    starts = {name: path for name in ("pretrained", "adapted") if (path := getattr(asked, name)) is not None}
    wanted = Asked(study, asked.data, out, seeds, asked.quick, asked.device, asked.values, starts)
    with folder_lock(out):
        found = run_study(wanted, reporter)
        result = _result(asked, study, found, out, seeds)
        write_result(out, "reproduce", result, sheet(result), reporter, **_picture(found))
    return result


def _picture(found: Found) -> dict[str, Any]:
    if "missing" not in found.about:
        return {}
    missing = found.about["missing"]
    pictured = missing_models_png(missing["rates"], missing["models"], list(by_full_name(found.about["metrics"])))
    return {"template": "report/sweep.html.j2", "figure": data_uri(pictured)}


def _listed(name: str) -> dict[str, Any]:
    study = load_study(name)
    trained = [row for row in study.rows if row.config is not None]
    needs = [f"data of {' or '.join(study.corpora)}"] if study.corpora and study.kind != "counts" else []
    return {
        "name": name,
        "paper": study.paper,
        "shows": study.shows,
        "title": study.title,
        "needs": "; ".join([*needs, *([study.needs] if study.needs else [])]) or "nothing",
        "rows": len(trained),
        "published_alone": len(study.rows) - len(trained),
        "seeds": study.seeds,
        "took": study.took,
    }


def _result(asked: ReproduceSettings, study: Study, found: Found, out: Path, seeds: int) -> dict[str, Any]:
    about: dict[str, Any] = {
        key: found.about[key]
        for key in ("dataset", "folder", "notice", "split", "split_protocol", "utterances", "task", "monitor", "spread")
        if key in found.about
    }
    return {
        "study": asked.name,
        "command": _command(asked, out, seeds),
        "paper": study.paper,
        "shows": study.shows,
        "title": study.title,
        "kind": study.kind,
        "note": study.note,
        "seeds": seeds,
        "quick": asked.quick,
        **about,
        "comparable": _comparable(asked, study, found),
        "columns": [column.model_dump(mode="json", exclude_none=True) for column in study.columns],
        "rows": [_row(row, study, found) for row in study.rows],
        "pages": found.pages,
        "versions": found.about.get("versions", {}),
        "failed": found.about.get("failed", []),
        **({"missing": found.about["missing"]} if "missing" in found.about else {}),
    }


def _row(row: Row, study: Study, found: Found) -> dict[str, Any]:
    nothing = [None] * len(study.columns)
    return {
        "label": row.label,
        "config": row.config,
        "values": found.values.get(row.label, nothing),
        "published": list(row.published) or nothing,
        "reason": NOT_BUILT if row.config is None else found.reasons.get(row.label, ""),
    }


def _comparable(asked: ReproduceSettings, study: Study, found: Found) -> str:
    """Empty where ours may be held against the published figures, else why not."""
    if study.kind == "counts":
        return ""
    if found.about.get("notice"):
        return str(found.about["notice"])
    if asked.quick:
        return "--quick: one epoch of the smallest models on a few utterances"
    name = str(found.about.get("dataset", ""))
    family = name.replace("_", "-").partition("-")[0]
    if study.corpora and not {name, family} & set(study.corpora):
        return f"the published figures are of {' and '.join(study.corpora)}, these data are {name}"
    return ""


def _command(asked: ReproduceSettings, out: Path, seeds: int) -> str:
    given = ["pipeline", "reproduce", str(asked.name), "--data", str(asked.data), "--seeds", str(seeds)]
    given += ["--quick"] * asked.quick + ["--out", str(out)]
    return shlex.join([*given, *(part for key, value in asked.values.items() for part in ("--set", f"{key}={value}"))])


def sheet(result: Mapping[str, Any]) -> Sheet:
    """The page of a study. result: reproduce.json."""
    title = f"{result['paper']}, {result['shows']}: {result['title']}"
    table = Table(result["shows"], _table_note(result), _columns(result), [_cells(row) for row in result["rows"]])
    remarks = [f"{row['label']}: {row['reason']}" for row in result["rows"] if row["reason"] not in ("", NOT_BUILT)]
    remarks += [f"{label}: {page}" for label, page in result["pages"].items()]
    return Sheet(title, result.get("notice"), _about(result), [table], remarks, result["command"], result["versions"])


def _about(result: Mapping[str, Any]) -> str:
    if result["kind"] == "counts":
        return "Counted on untrained models; nothing is learned and no data are read. " + result["note"]
    counts = ", ".join(f"{count} {split}" for split, count in result["utterances"].items())
    said = (
        f"Data set {result['dataset']}, split protocol {result['split_protocol']} ({counts} utterances); scores on "
        f"{result['split']}, {result['seeds']} seed{'s' * (result['seeds'] > 1)}. {result['note']}"
    )
    if why := result["comparable"]:
        return f"{said} Ours cannot be held against the published figures: {why}."
    return said


def _table_note(result: Mapping[str, Any]) -> str:
    names = [f"{column['label']}: {column['metric']}" for column in result["columns"] if "metric" in column]
    ours = (
        "Ours: mean, and ± population standard deviation where there are several runs; beside it the published figure."
    )
    return f"{ours} A row without ours is a system that is not built here, or has a remark below. {'; '.join(names)}."


def _columns(result: Mapping[str, Any]) -> list[str]:
    return ["", *(part for column in result["columns"] for part in (column["label"], "published"))]


def _cells(row: Mapping[str, Any]) -> list[Cell]:
    label = row["label"] + (f" ({NOT_BUILT})" if row["config"] is None else "")
    pairs = zip(row["values"], row["published"], strict=True)
    return [Cell(label), *(cell for ours, theirs in pairs for cell in (Cell(_ours(ours)), Cell(_figure(theirs))))]


def _ours(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    if score["mean"] is None:
        return "undefined"
    spread = f" ± {_figure(score['spread'])}" if len(score["values"]) > 1 else ""
    return f"{_figure(score['mean'])}{spread}"


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def format_reproduce(result: Mapping[str, Any]) -> str:
    """The list of studies, or the table, for a person."""
    if "studies" not in result:
        return markdown(sheet(result))
    lines = []
    for study in result["studies"]:
        lines += [
            f"{study['name']}: {study['paper']}, {study['shows']}: {study['title']}",
            f"    {study['rows']} rows trained, {study['published_alone']} published alone, seeds {study['seeds']}; "
            f"needs {study['needs']}; on the stand-in: {study['took']}",
        ]
    return "\n".join(lines)


def _read_command(flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    return {"asked": ReproduceSettings.checked({**flags, "values": dict(assignments)}, "flags")}


COMMAND = Command(
    reproduce,
    (ReproduceSettings,),
    example="pipeline reproduce emt-table-6-mosi --data data/mosi-mmsa",
    read=_read_command,
    takes_set=True,
    for_people=format_reproduce,
    failed=lambda result: bool(result.get("failed")),
)

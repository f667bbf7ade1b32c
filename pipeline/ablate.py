"""`pipeline ablate`: the MESM paper's Table 5 on a data folder: every subset of the modalities, for each model."""

from itertools import combinations
from pathlib import Path
from typing import Any

from data_tools.files import folder_lock
from pipeline.command import Command
from pipeline.progress import Reporter
from pipeline.report.comparison import score_tables, sheet_of
from pipeline.report.pages import Cell, Sheet, Table, markdown, number, score_column, write_result
from pipeline.run_data import dataset_name
from pipeline.settings import ConfigError, Names, flag
from pipeline.study.plan import (
    ALL,
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
from pipeline.study.runs import Trained, train_rows

MODALITIES = "tav"
SUBSETS = tuple("".join(chosen) for size in (1, 2, 3) for chosen in combinations(MODALITIES, size))


class AblateSettings(StudySettings):
    """Settings of `pipeline ablate`."""

    models: Names = flag(("mesm", "fe2e"), min_length=1, help=MODELS_HELP)


def ablate(asked: AblateSettings, reporter: Reporter) -> dict[str, Any]:
    """Train each model on each of the 7 subsets of text, audio and vision, with every seed; then write the table.

    Runs that are finished are kept, as in `pipeline compare`. Writes ablate.json, ablate.md and ablate.html into the
    folder and returns ablate.json: that of a comparison, with "ablation": {"metric", "models", "subsets", "findings"}.

    Raises:
        ConfigError, ModelError, DataError: as `pipeline.compare.compare`; a model that needs a modality.
    """
    refuse_own(asked, "modalities", "leave it out, every subset of them is trained")
    if ALL in asked.models:
        raise ConfigError(f"--models is {ALL!r}: name the models, not every one takes every subset of the modalities")
    out = asked.out or Path("runs") / f"ablate-{dataset_name(asked.data)}"
    rows = _rows(asked, reporter)
    with folder_lock(out):
        trained = train_rows(out, rows, asked, reporter)
        result = result_of(asked, trained, command_line("ablate", asked, out))
        result["ablation"] = _ablation(
            result, trained, [config.label for config in configs_of(asked.models, asked.data)]
        )
        write_result(out, "ablate", result, sheet(result), reporter)
    return result


def _rows(asked: AblateSettings, reporter: Reporter) -> dict[str, tuple[str, Planned]]:
    return {
        _label(planned.name, subset): (f"{planned.name}/{subset}", planned)
        for subset in SUBSETS
        for planned in planned_variant(asked, reporter, modalities=subset)
    }


def _label(name: str, subset: str) -> str:
    return f"{name}, {subset}"


def _ablation(result: dict[str, Any], trained: Trained, names: list[str]) -> dict[str, Any]:
    """scores, done: of each model whose runs finished."""
    scores = main_scores(result)
    subsets = []
    for subset in SUBSETS:
        ended = {name: _label(name, subset) for name in names if _label(name, subset) in scores}
        subsets.append(
            {
                "modalities": subset,
                "scores": {name: scores[label] for name, label in ended.items()},
                "done": {name: done_over_seeds(trained.finished[label]) for name, label in ended.items()},
            }
        )
    found = {"metric": metric_of(result), "models": names, "subsets": subsets}
    return found | {"findings": _findings(found)}


def _findings(found: dict[str, Any]) -> list[str]:
    """Findings of this table, and what the paper says of its own."""
    findings = []
    pick = min if found["metric"]["lower_is_better"] else max
    for name in found["models"]:
        means = {
            subset["modalities"]: subset["scores"][name]["mean"]
            for subset in found["subsets"]
            if name in subset["scores"] and subset["scores"][name]["mean"] is not None
        }
        single = {letters: mean for letters, mean in means.items() if len(letters) == 1}
        shown = [
            f"{kind} {best} ({number(among[best])})"
            for kind, among in (("best of all", means), ("best alone", single))
            if among
            for best in [pick(among, key=lambda letters: among[letters])]
        ]
        findings.append(f"{name}: {', '.join(shown) or 'no subset has a score'}.")
    said = (
        "In the paper's Table 5 all three are the best for both models, text is the best alone, and with two MESM is "
        "on a par with FE2E."
    )
    return [*findings, said]


def sheet(result: dict[str, Any]) -> Sheet:
    """The page of an ablation. result: ablate.json."""
    title = f"Every subset of the modalities on {result['dataset']}: {result['task']}"
    found = result["ablation"]
    return sheet_of(result, title, [_table(found), *score_tables(result)], found["findings"])


def _table(found: dict[str, Any]) -> Table:
    metric, names, subsets = found["metric"], found["models"], found["subsets"]
    scores = [
        score_column([subset["scores"].get(name) for subset in subsets], metric["lower_is_better"]) for name in names
    ]
    rows = [
        [
            Cell(subset["modalities"].upper()),
            *(column[i] for column in scores),
            *(Cell(_millions(subset["done"].get(name))) for name in names),
        ]
        for i, subset in enumerate(subsets)
    ]
    note = (
        f"T: words, A: sound, V: faces. {metric['name']}: {metric['definition']}. Multiply-adds: million for an "
        "utterance, really done by the forward passes of the last epoch's training, text encoder included; "
        "-: the model counts none."
    )
    columns = ["modalities", *(f"{metric['name']}, {name}" for name in names), *(f"multiply-adds, {n}" for n in names)]
    return Table("By modalities", note, columns, rows)


def _millions(done: dict[str, Any] | None) -> str:
    return f"{done['total'] / 1e6:,.2f}" if done and done["total"] else "-"


COMMAND = Command(
    ablate,
    (AblateSettings, ValueFlags),
    example="pipeline ablate --data data/iemocap --seeds 3",
    read=read_study(AblateSettings),
    takes_set=True,
    for_people=lambda result: markdown(sheet(result)),
    failed=lambda result: bool(result["failed"]),
    without=("top_p", "modalities"),
)

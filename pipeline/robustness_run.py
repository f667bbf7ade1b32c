"""A finished run on missing and noisy input -> robustness.json and a table.

What is damaged, and how, is in data_tools/damage.py: the same for every model. The thresholds stay those that were
chosen on undamaged valid; a run that was trained with modalities left out has its own for each subset of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from data_tools.about import read_dataset_facts
from data_tools.absent import leave_out_all
from data_tools.damage import add_noise, drop_modalities, drop_steps, subsets
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import atomic_path, folder_lock, read_json, write_json
from models.base import Model
from pipeline.metrics.metric import DEFINITIONS, FIRST_RATE, SPREAD, by_full_name, mean_and_spread, named_auilcs
from pipeline.progress import Reporter
from pipeline.published import published_facts
from pipeline.report.figures import missing_png
from pipeline.run import RunDir
from pipeline.run_data import dataset_name, notice_of
from pipeline.settings import (
    OTHER_DATA_HELP,
    RUN_HELP,
    SPLIT_HELP,
    ConfigError,
    Device,
    LocalPath,
    Settings,
    flag,
    split_commas,
)
from pipeline.training.damage import NOISE, Change, blank_of, empty_text, in_order
from pipeline.training.data import load_fitting
from pipeline.training.scoring import BestModel, split_protocol, task_on

Scores = dict[str, float | None]

PROTOCOLS = {
    "random": "at one rate for all modalities each time step is missing or not, by itself (TFR-Net, EMT); sound, "
    "pictures and features become their mean, tokens the unknown token, [CLS] and [SEP] stay",
    "modalities": "whole modalities are absent, step by step as in `random` at rate 1; the named ones are present",
    "absent": "whole modalities are left out, as of an utterance that never had them; the named ones are there",
    "bernoulli": "to each element of every modality one deviation is added with the probability (UCRN, section 4.4); "
    "tokens become the unknown token with the same probability",
}
# Of the missing steps, where the data set's own config states no others.
RATES = tuple(i / 10 for i in range(1, 11))
# Of damage, and of the trainings that are compared under it: three, or as many as a study asks for.
SEEDS = (111, 1111, 11111, 111111, 1111111)
DROP = "(undamaged - damaged) / |undamaged|, as UCRN; below 0 where a larger value is a worse one, such as a loss"


class DamagedRunSettings(Settings):
    """Damage to the input of a finished run: its protocol, its rates and its seeds."""

    run: LocalPath = flag(help=RUN_HELP)
    protocol: Literal["random", "modalities", "absent", "bernoulli"] = flag(
        "random",
        help="random: steps missing; modalities: all steps of whole ones missing; absent: whole ones left out; "
        "bernoulli: noise.",
    )
    rates: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...] | None, BeforeValidator(split_commas)] = flag(
        None,
        help="Missing rates, or probabilities of noise, with commas. By default for random 0.1, 0.2 ... 1.0, or what "
        "the data set's own config states (sims: to 0.5), for bernoulli 0.5; modalities has none.",
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(split_commas)] = flag(
        SEEDS[:3], min_length=1, help="Each damages the same data in another way; with commas."
    )
    split: str = flag("test", help=SPLIT_HELP)
    data: LocalPath | None = flag(None, help=OTHER_DATA_HELP)
    batch_size: int | None = Field(None, ge=1, description="None: as in training")
    device: Device = flag("auto", help="auto, cpu or cuda.")


def score_damaged(settings: DamagedRunSettings, reporter: Reporter) -> dict[str, Any]:
    """Score a finished run on a split, damaged by one protocol; returns that protocol's part of robustness.json.

    Other protocols and splits that were scored before stay in the file. For `random` a picture is drawn too. Nobody
    else trains or evaluates the run meanwhile.

    Raises:
        ConfigError: as `pipeline.evaluate.evaluate`, or rates that the protocol doesn't have.
        DataError: as there.
        ModelError: the text encoder knows no unknown token.
    """
    run = RunDir.existing(settings.run)
    run.read_thresholds()  # refuses an unfinished run before anything is loaded
    with folder_lock(run.path):
        dataset = load_fitting(run, settings.data or run.own_data(), settings.split)
        best = BestModel.load(run, settings.device, settings.batch_size)
        task = task_on(run, dataset)
        definitions: dict[str, str] = {}

        def scored(label: str, damage: Change | None = None, present: str | None = None) -> Scores:
            found = best.score(dataset, reporter, label, damage)
            named = by_full_name(task.report(found, run.read_thresholds(present)))
            definitions.update({name: entry["definition"] for name, entry in named.items()})
            return {name: entry["value"] for name, entry in named.items()}

        undamaged = scored("undamaged")
        conditions = []
        model = best.scorer.model
        name = dataset_name(dataset.data_dir)
        for condition in _conditions(settings, name, model):
            by_seed = {
                seed: scored(
                    f"{settings.protocol} {condition.name}{seed and f', seed {seed}'}", damage, condition.present
                )
                for seed, damage in condition.damages.items()
            }
            conditions.append(_summed(condition, by_seed, undamaged))
        report = _about(run, settings, dataset) | {
            "metrics": definitions,
            "undamaged": undamaged,
            "conditions": conditions,
        }
        if settings.protocol == "random":
            report |= _areas(undamaged, conditions)
            _draw(run, dataset, report)
        _write(run, dataset, report)
    reporter.say(format_robustness(report))
    return report


@dataclass(frozen=True)
class _Condition:
    """One way of damage.

    name: for people. rate: where it has one. damages: by seed, "" where nothing is drawn. present: letters of the
    modalities that are there, where others are left out.
    """

    name: str
    rate: float | None = None
    damages: Mapping[str, Change] = field(default_factory=dict)
    present: str | None = None


def _conditions(settings: DamagedRunSettings, dataset: str, model: Model) -> Iterator[_Condition]:
    if settings.protocol in ("modalities", "absent"):
        if settings.rates is not None:
            raise ConfigError(
                f"protocol {settings.protocol} has no rates: a modality is there or not; leave --rates out"
            )
        yield from _subset_conditions(settings.protocol, model)
        return
    blank = blank_of(model)
    if settings.protocol == "bernoulli":
        for rate in sorted(set(settings.rates or [NOISE])):
            damages = {
                str(seed): partial(add_noise, probability=rate, seed=seed, blank=blank) for seed in settings.seeds
            }
            yield _Condition(f"{rate:g}", rate, damages)
    else:
        for rate in sorted(set(settings.rates or published_facts(dataset).missing_rates or RATES)):
            damages = {str(seed): partial(drop_steps, rate=rate, seed=seed, blank=blank) for seed in settings.seeds}
            yield _Condition(f"{rate:g}", rate, damages)


def _subset_conditions(protocol: str, model: Model) -> Iterator[_Condition]:
    """A condition for each subset of the model's modalities that is present."""
    blank = blank_of(model) if protocol == "modalities" else None
    empty = empty_text(model)
    letters = in_order(model.config.modalities)
    for present in subsets(letters):
        if blank is None:
            change: Change = partial(leave_out_all, letters=set(letters) - set(present), empty=empty)
        else:
            change = partial(drop_modalities, present=[present], seed=0, blank=blank)
        yield _Condition(present, damages={"": change}, present=present if protocol == "absent" else None)


def _summed(condition: _Condition, by_seed: Mapping[str, Scores], undamaged: Scores) -> dict[str, Any]:
    """One condition, ready for JSON: every seed, their mean and spread, and the relative drop of the mean."""
    mean: Scores = {}
    spread: Scores = {}
    drop: Scores = {}
    for name, before in undamaged.items():
        after, spread[name] = mean_and_spread([scores[name] for scores in by_seed.values()])
        mean[name] = after
        drop[name] = None if before is None or after is None or before == 0 else (before - after) / abs(before)
    seeds = {seed: scores for seed, scores in by_seed.items() if seed}
    return {
        "name": condition.name,
        "rate": condition.rate,
        "seeds": seeds,
        "mean": mean,
        "spread": spread,
        "relative_drop": drop,
    }


def _about(run: RunDir, settings: DamagedRunSettings, dataset: UtteranceDataset) -> dict[str, Any]:
    about = read_dataset_facts(dataset.data_dir)
    trained = run.read_settings()[0].damage
    return {
        "protocol": settings.protocol,
        "definition": PROTOCOLS[settings.protocol],
        "relative_drop": DROP,
        "spread": SPREAD,
        "split": settings.split,
        "split_protocol": split_protocol(run, [dataset.data_dir]),
        "dataset": dataset_name(dataset.data_dir),
        "folder": dataset.data_dir.as_posix(),
        "utterances": len(dataset),
        "notice": notice_of(about),
        "trained_with_damage": None if trained is None else trained.model_dump(mode="json"),
    }


def _areas(undamaged: Scores, conditions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every variant of AUILC that the rates allow, by metric."""
    rates = {0.0, *(condition["rate"] for condition in conditions)}
    wanted = [name for name, first in FIRST_RATE.items() if first in rates and max(rates) > first]
    if len(wanted) < len(FIRST_RATE):
        return {"areas": {}, "areas_definition": {}, "areas_reason": "AUILC needs rate 0.1 and a higher one"}
    areas: dict[str, Scores] = {name: {} for name in wanted}
    for metric, value in undamaged.items():
        line = {0.0: value} | {condition["rate"]: condition["mean"][metric] for condition in conditions}
        for name, area in named_auilcs(line).items():
            areas[name][metric] = area
    return {"areas": areas, "areas_definition": DEFINITIONS}


def _draw(run: RunDir, dataset: UtteranceDataset, report: Mapping[str, Any]) -> None:
    conditions = report["conditions"]
    lines = {}
    for name, first in report["undamaged"].items():
        pairs = [(first, 0.0), *((condition["mean"][name], condition["spread"][name]) for condition in conditions)]
        lines[name] = [None if mean is None else (mean, spread) for mean, spread in pairs]
    with atomic_path(run.robustness(dataset.data_dir, "png")) as temporary:
        temporary.write_bytes(missing_png([0.0, *(condition["rate"] for condition in conditions)], lines))


def _write(run: RunDir, dataset: UtteranceDataset, report: Mapping[str, Any]) -> None:
    path = run.robustness(dataset.data_dir)
    before = read_json(path).get("splits") if path.is_file() else {}
    if not isinstance(before, dict) or not isinstance(before.get(report["split"], {}), dict):
        raise DataError(f"{path} is damaged: it has no splits; delete it and run `pipeline robustness` again")
    of_split = dict(before.get(report["split"], {})) | {report["protocol"]: report}
    # In name order, so that the file doesn't depend on which was scored first.
    write_json(path, {"splits": dict(sorted((before | {report["split"]: dict(sorted(of_split.items()))}).items()))})


def format_robustness(report: Mapping[str, Any]) -> str:
    """For a person: protocol and split, then a row a metric: its value under each damage, and its relative drops."""
    notice = f" [{report['notice']}]" if report["notice"] else ""
    lines = [
        f"{report['dataset']} {report['split']}, split {report['split_protocol']}, {report['utterances']} utterances, "
        f"protocol {report['protocol']}{notice}",
        f"  {report['definition']}",
    ]
    conditions, areas = report["conditions"], report.get("areas", {})
    names = [condition["name"] for condition in conditions]
    values = [["", "undamaged", *names, *areas]]
    drops = [["relative drop", *names]]
    for metric, before in report["undamaged"].items():
        found = [before, *(condition["mean"][metric] for condition in conditions)]
        found += [of_metric[metric] for of_metric in areas.values()]
        values.append([metric, *map(_number, found)])
        drops.append([metric, *(_percent(condition["relative_drop"][metric]) for condition in conditions)])
    return "\n".join([*lines, *_columns(values), *_columns(drops)])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(["", row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.1%}"

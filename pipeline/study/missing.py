"""Each model trained and tested at each missing rate, with each seed (EMT's Tables 4 to 7, Figures 4 to 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from data_tools.files import folder_lock, read_json
from pipeline.metrics.metric import DEFINITIONS, FIRST_RATE, by_full_name, named_auilcs, over_seeds
from pipeline.progress import Reporter
from pipeline.published import published_facts
from pipeline.report.comparison import sheet_of
from pipeline.report.figures import data_uri, missing_models_png
from pipeline.report.pages import Cell, Sheet, Table, score_column, write_result
from pipeline.robustness_run import RATES, SEEDS, DamagedRunSettings, score_damaged
from pipeline.run import RunDir
from pipeline.run_data import dataset_name
from pipeline.settings import DEFAULT_DATA, ConfigError, Device, LocalPath, Names, Settings
from pipeline.study.plan import Planned, StudySettings, planned_variant
from pipeline.study.result import command_line, result_of
from pipeline.study.runs import Trained, Wanted, check_runs, train_all
from pipeline.train import Prepared


class MissingStudy(Settings):
    """Models, rates, and seeds of training and damage alike, of a study of missing input."""

    models: Names = Field(min_length=1)
    data: LocalPath = DEFAULT_DATA
    rates: tuple[float, ...] | None = None
    seeds: tuple[int, ...] = SEEDS[:3]
    out: LocalPath | None = None
    device: Device = "auto"
    values: dict[str, Any] = Field({})


def study_missing(asked: MissingStudy, reporter: Reporter) -> dict[str, Any]:
    """Train each model at each rate with each seed, score it on test damaged alike, and write the study's tables.

    A seed is that of the training, of its damage, and of test's: every model meets the same. Runs are in
    OUT/<model>/rate-<rate>/seed-<seed>; those that are finished are kept. Writes robustness.json, robustness.md and
    robustness.html into OUT and returns robustness.json: that of a comparison, a row for each model and rate, with
    "missing": {"rates", "seeds", "areas": AUILC -> definition, "models": name -> {"curves": metric -> rate -> score,
    "areas": AUILC -> metric -> score}}.

    Raises:
        ConfigError, ModelError, DataError: as `pipeline.compare.compare`.
    """
    if "damage" in asked.values:
        raise ConfigError("--set damage: leave it out, each rate is trained; give them as --rates")
    values = asked.values | ({"device": asked.device} if asked.device != "auto" else {})
    study = StudySettings(data=asked.data, models=asked.models, out=asked.out, values=values)
    name = dataset_name(study.data)
    rates = rates_of(asked.data, asked.rates)
    out = study.out or Path("runs") / f"robustness-{name}"
    at_rate = {rate: planned_variant(study, reporter, damage=damage_at(rate)) for rate in rates}
    planned: dict[str, dict[float, Planned]] = {one.name: {} for one in at_rate[rates[0]]}
    for rate, trainings in at_rate.items():
        for one in trainings:
            planned[one.name][rate] = one
    wanted = wanted_at_rates(out, {label: (label, by_rate) for label, by_rate in planned.items()}, asked.seeds)
    with folder_lock(out):
        trained = train_all(wanted, reporter)
        further = ("--rates", ",".join(f"{rate:g}" for rate in rates))
        result = result_of(study, trained, _command(study, asked, out, further))
        result["seeds"] = len(asked.seeds)
        result["missing"] = missing_of(wanted, trained, rates, asked.device, reporter)
        pictured = missing_models_png(rates, result["missing"]["models"], list(by_full_name(result["metrics"])))
        page = {"template": "report/sweep.html.j2", "figure": data_uri(pictured)}
        write_result(out, "robustness", result, sheet(result), reporter, **page)
    return result


def rates_of(data: Path, asked: Sequence[float] | None = None) -> list[float]:
    """Missing rates: those that are asked for, else those that the data set's own config states, else 0.1 ... 1.0."""
    return sorted(set(asked or published_facts(dataset_name(data)).missing_rates or RATES))


def damage_at(rate: float) -> dict[str, Any] | None:
    """The setting `damage` of a training at a rate; None at rate 0."""
    return None if rate == 0 else {"protocol": "random", "rate": rate}


def _command(study: StudySettings, asked: MissingStudy, out: Path, further: Sequence[str]) -> str:
    line = command_line("robustness", study, out, *further)
    return line.replace("--seeds 1 ", f"--seeds {','.join(map(str, asked.seeds))} ", 1)


def wanted_at_rates(
    out: Path, rows: Mapping[str, tuple[str, Mapping[float, Planned]]], seeds: Sequence[int]
) -> list[Wanted]:
    """All rows at all rates with one seed, then with the next. rows: label -> (its folder in `out`, rate -> training).

    Raises:
        ConfigError: too many trainings.
    """
    check_runs(sum(len(by_rate) for _, by_rate in rows.values()) * len(seeds), f"the rates with {len(seeds)} seeds")
    return [
        Wanted(label_of(label, rate), RunDir(out / folder / f"rate-{rate:g}" / f"seed-{seed}"), prepared, seed)
        for seed in seeds
        for label, (folder, by_rate) in rows.items()
        for rate, one in by_rate.items()
        for prepared in [_with_seed(one, seed)]
    ]


def _with_seed(planned: Planned, seed: int) -> Prepared:
    settings = planned.prepared.settings
    damage = None if settings.damage is None else settings.damage.model_copy(update={"seed": seed})
    return replace(planned.prepared, settings=settings.model_copy(update={"damage": damage}))


def label_of(name: str, rate: float) -> str:
    """Row of a model at a rate."""
    return f"{name}, rate {rate:g}"


def missing_of(
    wanted: Sequence[Wanted], trained: Trained, rates: Sequence[float], device: Device, reporter: Reporter
) -> dict[str, Any]:
    """Scores of every finished run at its own rate and seed, by model and metric, and the areas of whole curves."""
    finished = {run.path for runs in trained.finished.values() for run in runs}
    scores: dict[str, dict[int, dict[float, Mapping[str, Any]]]] = {}
    for one in wanted:
        if one.run.path in finished:
            damage = one.prepared.settings.damage
            rate = 0.0 if damage is None else float(damage.rate)  # type: ignore[arg-type]
            name = one.label.rpartition(", rate ")[0]
            scores.setdefault(name, {}).setdefault(one.seed, {})[rate] = _scored(
                one.run, rate, one.seed, device, reporter
            )
    areas = [name for name, first in FIRST_RATE.items() if first in rates and max(rates) > first]
    return {
        "rates": list(rates),
        "seeds": list(dict.fromkeys(one.seed for one in wanted)),
        "areas": {name: DEFINITIONS[name] for name in areas},
        "models": {name: _of_model(by_seed, rates, areas) for name, by_seed in scores.items()},
    }


def _scored(run: RunDir, rate: float, seed: int, device: Device, reporter: Reporter) -> Mapping[str, Any]:
    """Metrics of a run on test, damaged at its rate with its seed; those that were written before are read."""
    data = run.own_data()
    if run.robustness(data).is_file():
        report = read_json(run.robustness(data))["splits"].get("test", {}).get("random", {})
        for condition in report.get("conditions", []):
            if condition["rate"] == rate and str(seed) in condition["seeds"]:
                return dict(condition["seeds"][str(seed)])
    settings = DamagedRunSettings(run=run.path, rates=(rate,), seeds=(seed,), device=device)
    (condition,) = score_damaged(settings, Reporter(quiet=reporter.quiet))["conditions"]
    return dict(condition["seeds"][str(seed)])


def _of_model(
    by_seed: Mapping[int, Mapping[float, Mapping[str, Any]]], rates: Sequence[float], areas: Sequence[str]
) -> dict[str, Any]:
    metrics = next(iter(next(iter(by_seed.values())).values()))
    whole = [of_seed for of_seed in by_seed.values() if set(of_seed) == set(rates)]
    curves: dict[str, Any] = {}
    found: dict[str, Any] = {area: {} for area in areas}
    for metric in metrics:
        curves[metric] = {
            f"{rate:g}": over_seeds([of_seed[rate][metric] for of_seed in by_seed.values() if rate in of_seed])
            for rate in rates
        }
        lines = [{rate: of_seed[rate][metric] for rate in rates} for of_seed in whole]
        for area in areas:
            # A variant that begins at 0 is asked for where there is a rate 0; the other never reads it.
            values = [named_auilcs({0.0: line[min(rates)]} | line)[area] for line in lines]
            found[area][metric] = over_seeds(values) if values else None
    return {"curves": curves, "areas": found}


def sheet(result: Mapping[str, Any]) -> Sheet:
    """The page of a study. result: its robustness.json."""
    found, shown = result["missing"], by_full_name(result["metrics"])
    tables = [_area_table(area, said, found, shown) for area, said in found["areas"].items()]
    tables += [_curve_table(metric, about, found) for metric, about in shown.items()]
    title = f"{len(found['models'])} models on {result['dataset']} with missing input: {result['task']}"
    remarks = ["Each row is trained and tested at one rate; the best epoch is chosen on valid, damaged alike."]
    return sheet_of(result, title, tables, remarks)


def _area_table(area: str, said: str, found: Mapping[str, Any], shown: Mapping[str, Any]) -> Table:
    models = found["models"]
    columns = [
        score_column([model["areas"][area][metric] for model in models.values()], about["lower_is_better"])
        for metric, about in shown.items()
    ]
    rows = [[Cell(name), *(column[i] for column in columns)] for i, name in enumerate(models)]
    seeds = ", ".join(map(str, found["seeds"]))
    return Table(area.replace("_", " ").upper(), f"{said}; mean over the seeds {seeds}.", ["model", *shown], rows)


def _curve_table(metric: str, about: Mapping[str, Any], found: Mapping[str, Any]) -> Table:
    models, rates = found["models"], [f"{rate:g}" for rate in found["rates"]]
    columns = [
        score_column([model["curves"][metric][rate] for model in models.values()], about["lower_is_better"])
        for rate in rates
    ]
    rows = [[Cell(name), *(column[i] for column in columns)] for i, name in enumerate(models)]
    return Table(f"{metric} by missing rate", f"{about['definition']}.", ["model", *rates], rows)

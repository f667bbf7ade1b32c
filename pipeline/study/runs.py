"""Many trainings in one output folder: each is made, gone on with where it stopped, or found finished and kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.progress import Reporter, duration
from pipeline.run import RunDir
from pipeline.run_data import DataFacts
from pipeline.run_start import resumed_run
from pipeline.settings import ConfigError, ModelSpec
from pipeline.study.plan import Planned, StudySettings
from pipeline.train import Prepared, train
from pipeline.training.loop import TrainingError
from pipeline.training.settings import TrainSettings

SPLIT, VALID = "test", "valid"
# More than this is a mistyped step sooner than a plan.
MOST_RUNS = 500


@dataclass(frozen=True)
class Wanted:
    """A training that a table needs. label: its row; runs of one label differ in seed and fold alone.

    scored: the split that it ends with scores of; `valid` where test is not to be read.
    """

    label: str
    run: RunDir
    prepared: Prepared
    seed: int
    fold: str = ""
    scored: str = SPLIT

    @property
    def title(self) -> str:
        """For a person."""
        return f"{self.label}, {f'{self.fold}, ' * bool(self.fold)}seed {self.seed}"


@dataclass(frozen=True)
class Trained:
    """finished: label -> its runs, those of the first seed first; at least one label, each with at least one run.

    failed: `{"model": label, "seed", "reason"}` of each run whose loss was not finite.
    """

    finished: dict[str, list[RunDir]]
    failed: list[dict[str, Any]]


# label -> (its folder in the output folder, its trainings with the first seed: one, or one for each fold).
Rows = Mapping[str, tuple[str, Sequence[Planned]]]


def wanted_runs(out: Path, rows: Rows, seeds: int) -> list[Wanted]:
    """Every row once, then every row with the next seed: what is interrupted has whole rounds."""
    return [
        Wanted(label, RunDir(out / folder / one.fold / f"seed-{seed}"), one.prepared, seed, one.fold)
        for number in range(seeds)
        for label, (folder, trainings) in rows.items()
        for one in trainings
        for seed in [one.prepared.settings.seed + number]
    ]


def rows_of(planned: Sequence[Planned]) -> dict[str, tuple[str, list[Planned]]]:
    """A row for each config, in a folder of its name."""
    rows: dict[str, tuple[str, list[Planned]]] = {}
    for one in planned:
        rows.setdefault(one.name, (one.name, []))[1].append(one)
    return rows


def train_all(wanted: Sequence[Wanted], reporter: Reporter) -> Trained:
    """Train what is not trained yet. A run whose loss is not finite is noted, and the others go on.

    After each one it is said how long the others will take, if they take as long as those of this start on the average.

    Raises:
        ConfigError, DataError: as `train`; a run in the folder was started with other settings or data. Settings are
            looked at before anything is trained.
        ConfigError: several devices or machines are asked for: each of their processes would make the table.
        TrainingError: no run finished.
    """
    for one in wanted:
        if (processes := one.prepared.settings.devices * one.prepared.settings.nodes) > 1:
            raise ConfigError(
                f"devices times nodes is {processes} for {one.label}: a table of many runs is made by one process; "
                "leave both out, or train the models one by one with `pipeline train`"
            )
    kept = [_is_kept(one) for one in wanted]
    result, left, took_s = Trained({}, []), kept.count(False), []
    for number, (one, is_kept) in enumerate(zip(wanted, kept, strict=True), start=1):
        title = f"run {number} of {len(wanted)}: {one.title}"
        if is_kept:
            reporter.say(f"{title}: finished, kept")
            result.finished.setdefault(one.label, []).append(one.run)
            continue
        reporter.say(title)
        began = reporter.clock()
        try:
            train(*_settings(one), reporter, resume=one.run.settings.is_file(), test=one.scored == SPLIT)
            result.finished.setdefault(one.label, []).append(one.run)
        except TrainingError as error:
            fold = {"fold": one.fold} if one.fold else {}
            result.failed.append({"model": one.label, "seed": one.seed} | fold | {"reason": str(error)})
            reporter.say(f"{title} failed: {error}")
        took_s.append(reporter.clock() - began)
        left -= 1
        if left:
            mean_s = sum(took_s) / len(took_s)
            reporter.say(f"{len(wanted) - left} of {len(wanted)} runs are over; about {duration(mean_s * left)} left")
    if not result.finished:
        raise TrainingError("no run finished: " + "; ".join(run["reason"] for run in result.failed))
    # In the order of the rows, whichever seed of one failed.
    finished = {one.label: result.finished[one.label] for one in wanted if one.label in result.finished}
    return Trained(finished, result.failed)


def _settings(one: Wanted) -> tuple[TrainSettings, ModelSpec]:
    settings = one.prepared.settings.model_copy(update={"seed": one.seed, "out": one.run.path})
    return settings, one.prepared.model


def _is_kept(one: Wanted) -> bool:
    """Return True if the run is finished. Refuses one that was started with other settings."""
    if not one.run.settings.is_file():
        return False
    settings, model = _settings(one)
    resumed_run(one.run.path, settings, model.recorded())
    return _is_finished(one.run, one.prepared, one.scored)


def _is_finished(run: RunDir, prepared: Prepared, scored: str) -> bool:
    """Return True if a run has its scores on the data as they are now, and no more epochs are asked for."""
    settings, before = prepared.settings, run.read_settings()[0]
    if (settings.epochs, settings.patience) != (before.epochs, before.patience):
        return False
    if scored not in run.read_scores(settings.data):
        return False
    facts = DataFacts.from_splits(settings.data, prepared.train_split, prepared.valid_split)
    # Other data than then: training refuses them, and says so.
    return run.thresholds.is_file() and facts.same_data(run.facts())


def train_rows(out: Path, rows: Mapping[str, tuple[str, Planned]], asked: StudySettings, reporter: Reporter) -> Trained:
    """Train what is not trained yet. rows: label -> (its folder in `out`, what is trained).

    Raises:
        ConfigError, DataError: as `pipeline.study.runs.train_all`; too many runs.
    """
    check_runs(len(rows) * asked.seeds, f"{len(rows)} rows with --seeds {asked.seeds}")
    trainings = {label: (folder, [planned]) for label, (folder, planned) in rows.items()}
    return train_all(wanted_runs(out, trainings, asked.seeds), reporter)


def check_runs(count: int, asked_by: str) -> None:
    """Refuse more than `MOST_RUNS` trainings. asked_by: the flags that ask for them.

    Raises:
        ConfigError: there are more.
    """
    if count > MOST_RUNS:
        raise ConfigError(
            f"{asked_by}: {count} trainings, and at most {MOST_RUNS} make one table; give fewer values, models or seeds"
        )

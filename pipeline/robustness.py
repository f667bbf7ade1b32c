"""`pipeline robustness`: a run, or a whole study, on missing and noisy input -> robustness.json and a table."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pipeline.command import Command
from pipeline.progress import Reporter
from pipeline.robustness_run import DamagedRunSettings, format_robustness, score_damaged
from pipeline.settings import RUN_HELP, ConfigError, LocalPath, Names, flag
from pipeline.study.missing import MissingStudy, study_missing

__all__ = ["COMMAND", "RobustnessSettings", "format_robustness", "robustness"]


class RobustnessSettings(DamagedRunSettings):
    """Settings of `pipeline robustness`."""

    run: LocalPath | None = flag(None, help=f"{RUN_HELP[:-1]}; or give --models for a study.")  # type: ignore[assignment]
    models: Names | None = flag(
        None, help="Models or configs with commas, each trained and tested at each rate with each seed."
    )
    out: LocalPath | None = flag(None, help="Of a study: its folder, by default runs/robustness-<dataset>.")
    values: dict[str, Any] = Field(
        {}, description="of a study: settings of training, and of every model that knows them"
    )


def robustness(settings: RobustnessSettings, reporter: Reporter) -> dict[str, Any]:
    """Score a finished run on damaged input, or with `models` train and score a study of missing input.

    Raises:
        ConfigError: neither or both of run and models, or settings of the other.
        ConfigError, ModelError, DataError: as `score_damaged` and `study_missing`.
    """
    if (settings.run is None) == (settings.models is None):
        raise ConfigError("give either --run for a finished run or --models for a study")
    if settings.models is not None:
        if settings.protocol != "random":
            raise ConfigError(f"protocol is {settings.protocol!r}: a study trains on missing steps; leave it out")
        own = {name: getattr(settings, name) for name in MissingStudy.model_fields}
        return study_missing(MissingStudy.checked({k: v for k, v in own.items() if v is not None}, "flags"), reporter)
    if settings.values or settings.out is not None:
        raise ConfigError("--set and --out are for a study with --models; a finished run has its settings and folder")
    own = {name: getattr(settings, name) for name in DamagedRunSettings.model_fields}
    return score_damaged(DamagedRunSettings.checked(own, "flags"), reporter)


def _read_command(flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    return {"settings": RobustnessSettings.checked({**flags, "values": dict(assignments)}, "flags")}


COMMAND = Command(
    robustness,
    (RobustnessSettings,),
    example="pipeline robustness --run runs/first --protocol random --rates 0.1,0.2,0.3,0.4,0.5",
    read=_read_command,
    takes_set=True,
    failed=lambda result: bool(result.get("failed")),
)

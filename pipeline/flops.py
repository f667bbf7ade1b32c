"""`pipeline flops`: multiply-adds by part and parameters, beside the figures of the papers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.command import Command
from pipeline.settings import (
    ConfigError,
    LocalPath,
    ModelFlags,
    ModelSettingFlags,
    ModelSpec,
    Settings,
    flag,
    read_model,
)
from pipeline.training.settings import TrainSettings


class RunFlag(Settings):
    """The flag `--run`."""

    run: LocalPath | None = flag(None, help="A run folder: also what its training really multiplied.")


def flops(model: ModelSpec | None = None, run: Path | None = None) -> dict[str, Any]:
    """Counts of a model, or of the model that a run kept, or with neither FE2E and MESM beside Tables 3 and 4.

    Raises:
        ConfigError: not a run, or no epoch of it is finished. ModelError: the text encoder or the model cannot be read.
    """
    # Torch is needed only here: the flags are not.
    from pipeline.counting.beside import beside_paper
    from pipeline.counting.model import count_model, count_run

    if run is not None:
        return count_run(run)
    return beside_paper() if model is None else count_model(model.name, model.given)


def format_flops(result: dict[str, Any]) -> str:
    """The result as lines for a person; figures in units of 1e6 (M) and 1e9 (G)."""
    from pipeline.counting.beside import format_beside
    from pipeline.counting.model import format_model

    return format_beside(result) if "rows" in result else format_model(result)


def _read_command(flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    flags = dict(flags)
    run = RunFlag.checked({"run": flags.pop("run", None)}, "flags").run
    if run is not None and (flags or assignments):
        raise ConfigError("--run says which model it is: leave the other flags out")
    if unused := set(assignments) & set(TrainSettings.model_fields):
        raise ConfigError(f"--set {', '.join(sorted(unused))}: a setting of training, which changes no count here")
    if run is not None or not (flags or assignments):
        return {"run": run}
    model, config = flags.pop("model", None), flags.pop("config", None)
    return {"model": read_model(model, config, {**assignments, **flags}, ())[1]}


COMMAND = Command(
    flops,
    (ModelFlags, ModelSettingFlags, RunFlag),
    example="pipeline flops --model mesm --top-p 0.5",
    read=_read_command,
    takes_set=True,
    for_people=format_flops,
)

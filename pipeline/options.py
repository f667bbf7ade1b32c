"""What the sub-commands share: options with their help, settings from flags, and the printing of a result."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.settings import ConfigError, load_config, local_path, parse_assignments
from pipeline.training.settings import TrainSettings

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Workers = Annotated[int | None, typer.Option(help="Processes; by default one for each core, of all machines.")]
Executor = Annotated[
    str | None,
    typer.Option(
        help="local; ray: the Ray cluster that runs here, or one of this machine alone; ray:HOST:PORT: that cluster. "
        "Its machines must mount the release and the data folder under the same paths."
    ),
]
Data = Annotated[Path, typer.Option(help="The data folder that `pipeline reorganize` made.", callback=local_path)]
TrainData = Annotated[Path | None, typer.Option(help="The data folder, by default data/iemocap.")]
TrainDevice = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Resume = Annotated[bool, typer.Option(help="Go on with the run in --out where it stopped.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting by name, key=value; may be repeated.")]
Config = Annotated[str | None, typer.Option(help="A file in configs/models, or a path to a YAML file.")]
Modalities = Annotated[str | None, typer.Option(help="Letters of tav: text, audio, video.")]
Frontend = Annotated[
    str | None,
    typer.Option(help="features: extracted ones; towers: end to end, from faces, mel and tokens; cmt: encoders."),
]
TopP = Annotated[float | None, typer.Option(help="Share of the attention that is kept, in (0, 1]; 1 keeps every site.")]


def print_result(
    result: dict[str, Any], as_json: bool, for_people: Callable[[dict[str, Any]], str] | None = None
) -> None:
    """The result on standard output, as JSON, or in words where there are any."""
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
    elif for_people:
        sys.stdout.write(for_people(result) + "\n")


def flags_given(**flags: Any) -> dict[str, Any]:
    """The flags that were really given: the others keep the value of the config file."""
    return {name: value for name, value in flags.items() if value is not None}


def model_config(
    model: str | None, config: str | None, assignments: list[str] | None, **flags: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(training settings, model settings) of a config file, with `--set` and the model's flags laid over them."""
    if (model is None) == (config is None):
        raise ConfigError("give either --model NAME or --config NAME, for example --model mesm")
    values = load_config("models", config or model or "")
    if unknown := set(values) - {"train", "model"}:
        raise ConfigError(f"config {config or model!r} has unknown sections {sorted(unknown)}; known: model, train")
    train_values, model_values = values.get("train") or {}, values.get("model") or {}
    if not isinstance(train_values, dict) or not isinstance(model_values, dict) or "name" not in model_values:
        raise ConfigError(f"config {config or model!r}: expected mappings `model`, with a name, and `train`")
    for key, value in parse_assignments(assignments or []).items():
        section = train_values if key in TrainSettings.model_fields else model_values
        section[key] = value
    return train_values, model_values | flags_given(**flags)

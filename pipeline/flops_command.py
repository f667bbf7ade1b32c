"""The sub-command `flops`: parsing only."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import Config, Frontend, Json, Modalities, Set, TopP, model_config, print_result
from pipeline.settings import ConfigError, TrainSettings, local_path, parse_assignments

FLOPS_EXAMPLE = "Example: pipeline flops --model mesm --top-p 0.5"


def flops(
    model: Annotated[str | None, typer.Option(help="A model with its default settings, e.g. mesm.")] = None,
    config: Config = None,
    top_p: TopP = None,
    modalities: Modalities = None,
    frontend: Frontend = None,
    run: Annotated[
        Path | None, typer.Option(help="A run folder: also what its training really multiplied.", callback=local_path)
    ] = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Multiply-adds by part and parameters, beside the figures of the paper; without flags, the paper's table."""
    from pipeline.counting.beside import beside_paper, format_beside
    from pipeline.counting.model import flops as count
    from pipeline.counting.model import flops_of_run, format_flops

    about_a_model = any(value is not None for value in (model, config, top_p, modalities, frontend, settings))
    if run is not None:
        if about_a_model:
            raise ConfigError("--run says which model it is: leave the other flags out")
        print_result(flops_of_run(run), as_json, format_flops)
        return
    if not about_a_model:
        print_result(beside_paper(), as_json, format_beside)
        return

    if unused := set(parse_assignments(settings or [])) & set(TrainSettings.model_fields):
        raise ConfigError(f"--set {', '.join(sorted(unused))}: a setting of training, which changes no count here")
    flags = {"top_p": top_p, "modalities": modalities, "frontend": frontend}
    _, model_values = model_config(model, config, settings, **flags)
    print_result(count(model_values.pop("name"), model_values), as_json, format_flops)

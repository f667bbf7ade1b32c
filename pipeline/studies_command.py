"""The sub-commands `sweep` and `ablate`: parsing only."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.options import Data, Frontend, Json, Modalities, Set, flags_given, print_result
from pipeline.progress import Reporter
from pipeline.settings import parse_assignments

SWEEP_EXAMPLE = "Example: pipeline sweep --data data/iemocap --top-p 0.1:1.0:0.1 --seeds 3"
ABLATE_EXAMPLE = "Example: pipeline ablate --data data/iemocap --seeds 3"
Models = Annotated[str, typer.Option(help="Names of models with commas.")]
Seeds = Annotated[int, typer.Option(help="Runs of each row of the table, each with a seed of its own.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]


def sweep(
    data: Data = Path("data/iemocap"),
    top_p: Annotated[
        str, typer.Option(help="FIRST:LAST:STEP, or values with commas; each in (0, 1], 1 keeps every site.")
    ] = "0.1:1.0:0.1",
    models: Models = "mesm,fe2e",
    seeds: Seeds = 1,
    out: Annotated[Path | None, typer.Option(help="The folder of runs and tables, by default runs/sweep-...")] = None,
    modalities: Modalities = None,
    device: Device = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Score and multiply-adds over top-p, as in the paper's Figure 5: the sparse model at each, the dense one once.

    Started again it goes on. `--set` holds for every model that has the setting.
    """
    from pipeline.study.grid import parse_grid
    from pipeline.sweep import SweepSettings, sheet
    from pipeline.sweep import sweep as run

    values = parse_assignments(settings or []) | flags_given(modalities=modalities, device=device)
    given = _given(data, models, seeds, out, values) | {"top_p": parse_grid(top_p)}
    _print(run(SweepSettings.checked(given, "flags"), Reporter()), as_json, sheet)


def ablate(
    data: Data = Path("data/iemocap"),
    models: Models = "mesm,fe2e",
    seeds: Seeds = 1,
    out: Annotated[Path | None, typer.Option(help="The folder of runs and tables, by default runs/ablate-...")] = None,
    frontend: Frontend = None,
    device: Device = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Every subset of text, sound and faces, as in the paper's Table 5: seven trainings of each model and seed.

    Started again it goes on. `--set` holds for every model that has the setting.
    """
    from pipeline.ablate import ablate as run
    from pipeline.ablate import sheet
    from pipeline.study.plan import CompareSettings

    values = parse_assignments(settings or []) | flags_given(frontend=frontend, device=device)
    given = _given(data, models, seeds, out, values)
    _print(run(CompareSettings.checked(given, "flags"), Reporter()), as_json, sheet)


def _given(data: Path, models: str, seeds: int, out: Path | None, values: dict[str, Any]) -> dict[str, Any]:
    return {"data": data, "models": models.split(","), "seeds": seeds, "values": values} | flags_given(out=out)


def _print(result: dict[str, Any], as_json: bool, sheet: Any) -> None:
    from pipeline.report.tables import markdown

    print_result(result, as_json, lambda found: markdown(sheet(found)))
    if result["failed"]:
        raise typer.Exit(1)

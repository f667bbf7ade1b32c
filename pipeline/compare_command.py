"""The sub-command `compare`: parsing only."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import Data, Frontend, Json, Modalities, Set, flags_given, print_result
from pipeline.progress import Reporter
from pipeline.settings import parse_assignments

COMPARE_EXAMPLE = "Example: pipeline compare --data data/iemocap --models mesm,fe2e,mult --seeds 3"


def compare(
    models: Annotated[str, typer.Option(help="Names of models with commas, or all.")],
    data: Data = Path("data/iemocap"),
    seeds: Annotated[int, typer.Option(help="Runs of each model, each with a seed of its own.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The folder of runs and tables, by default runs/compare-...")] = None,
    modalities: Modalities = None,
    frontend: Frontend = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Train and score models side by side on one split: one table with mean and spread, sizes and times, and a page.

    Started again it goes on. `--set` holds for every model that has the setting.
    """
    from pipeline.compare import compare as run
    from pipeline.report.comparison import as_markdown
    from pipeline.study.plan import CompareSettings

    values = parse_assignments(settings or []) | flags_given(modalities=modalities, frontend=frontend, device=device)
    given = {"data": data, "models": models.split(","), "seeds": seeds, "values": values} | flags_given(out=out)
    result = run(CompareSettings.checked(given, "flags"), Reporter())
    print_result(result, as_json, as_markdown)
    if result["failed"]:
        raise typer.Exit(1)

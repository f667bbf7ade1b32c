"""The sub-command `selection`: parsing only."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import Json, Modalities, Set, flags_given, print_result
from pipeline.progress import Reporter
from pipeline.settings import parse_assignments

SELECTION_EXAMPLE = "Example: pipeline selection --data data/iemocap --data data/mosei --seeds 3"


def selection(
    data: Annotated[
        list[Path] | None, typer.Option(help="A data folder; may be repeated. By default data/iemocap.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each mode on each data folder, each with a seed of its own.")] = 3,
    modes: Annotated[str | None, typer.Option(help="Values of attention_gradient with commas; by default all.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the runs, by default runs/selection.")] = None,
    tables: Annotated[
        Path | None, typer.Option(help="The folder for selection.json and selection.md, by default that of the runs.")
    ] = None,
    modalities: Modalities = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; of the training.")] = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Train MESM in each mode of its selection: scores, gradients of the attention, sites on mouth and eyes, cost.

    Started again it goes on.
    """
    from benchmarks.selection.page import as_markdown
    from benchmarks.selection.study import SelectionSettings
    from benchmarks.selection.study import selection as run

    values = parse_assignments(settings or []) | flags_given(modalities=modalities, device=device)
    given = {"data": data or [Path("data/iemocap")], "seeds": seeds, "values": values}
    given |= flags_given(out=out, tables=tables, modes=modes and modes.split(","))
    result = run(SelectionSettings.checked(given, "flags"), Reporter())
    print_result(result, as_json, as_markdown)
    if result["failed"]:
        raise typer.Exit(1)

"""The sub-commands that measure: parsing only."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.options import Json, print_result
from pipeline.progress import Reporter
from pipeline.settings import ConfigError, local_path

BENCH_EXAMPLE = "Example: pipeline bench --parts models --batch 8 --precision 32-true --scopes 'towers only'"
BENCH_GPU_EXAMPLE = "Example: pipeline bench-gpu --budget-s 480"
BENCH_DATA_EXAMPLE = "Example: pipeline bench-data --out docs/benchmarks"
BENCH_FUSION_EXAMPLE = "Example: pipeline bench-fusion --out docs/benchmarks"


def bench(
    out: Annotated[Path, typer.Option(help="The folder for cpu.json and its page.", callback=local_path)] = Path(
        "docs/benchmarks"
    ),
    parts: Annotated[str, typer.Option(help="models, attention, curves, floors.")] = "models,attention,curves,floors",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "8,32",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed.")] = "32-true,bf16-mixed",
    scopes: Annotated[str, typer.Option(help="towers only, whole model.")] = "towers only,whole model",
    repeats: Annotated[int | None, typer.Option(min=1, help="By default 5, at batches from 16 on 3.")] = None,
    as_json: Json = False,
) -> None:
    """Speed of FE2E and MESM side by side on this CPU; under 20 minutes. Rows not measured again stay as they are."""
    from benchmarks.page import bench as run

    lists = {"parts": parts, "precisions": precision, "scopes": scopes}
    chosen: dict[str, Any] = {name: [part.strip() for part in text.split(",")] for name, text in lists.items()}
    try:
        chosen["batches"] = [int(size) for size in batch.split(",")]
    except ValueError:
        raise ConfigError(f"--batch is {batch!r}: give whole numbers with commas between, e.g. 8,32") from None
    print_result(run(out, Reporter(), repeats=repeats, **chosen), as_json)


def bench_gpu(
    out: Annotated[Path, typer.Option(help="The folder for gpu.json and its page.", callback=local_path)] = Path(
        "docs/benchmarks"
    ),
    budget_s: Annotated[float, typer.Option(min=30, help="Seconds in all; the rest is not measured.")] = 480.0,
    not_measured: Annotated[
        bool, typer.Option("--not-measured", help="Write rows that say so; no GPU needed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check and time on a GPU all that needs one, in under 8 minutes; fails where a test does or no GPU is there."""
    from benchmarks.gpu import gpu_test, write_not_measured

    result = write_not_measured(out) if not_measured else gpu_test(out, Reporter().say, budget_s=budget_s)
    print_result(result, as_json)
    if result["problems"]:
        raise typer.Exit(1)


def bench_data(
    out: Annotated[Path, typer.Option(help="The folder for the JSON file and its table.")] = Path("docs/benchmarks"),
    seconds: Annotated[float, typer.Option(min=1, help="Of stand-in video, at least, from each corpus.")] = 300.0,
    as_json: Json = False,
) -> None:
    """The data stages beside plain ways: speed, memory, disk, and the faces found. Takes about 15 minutes."""
    from benchmarks.data import bench_data as run
    from benchmarks.data_table import as_markdown

    print_result(run(out, Reporter(), seconds), as_json, lambda result: as_markdown(result["rows"]))


def bench_fusion(
    out: Annotated[Path, typer.Option(help="The folder for the JSON file and its table.")] = Path("docs/benchmarks"),
    as_json: Json = False,
) -> None:
    """EMT's three ways of fusion with 2 to 6 modalities, by clock and by count. Takes a few minutes."""
    from benchmarks.fusion import as_markdown
    from benchmarks.fusion import bench_fusion as run

    print_result(run(out, Reporter()), as_json, lambda result: as_markdown(result["rows"]))

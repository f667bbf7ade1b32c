"""The benchmarks' command line, `python -m benchmarks NAME`, from the root of a checkout. Parsing only."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.rows import RESULTS
from pipeline.cli import exit_statuses
from pipeline.progress import Reporter
from pipeline.settings import ConfigError, local_path, parse_assignments

app = typer.Typer(
    help="Measure this project: speed, memory, floors, and what MESM's selection learns.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Out = Annotated[Path, typer.Option(help="The folder for the JSON file and its page.", callback=local_path)]


@app.command(
    epilog="Example: python -m benchmarks bench --parts models --batch 8 --precision 32-true --scopes 'towers only'"
)
def bench(
    out: Out = RESULTS,
    parts: Annotated[str, typer.Option(help="models, attention, curves, floors.")] = "models,attention,curves,floors",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "8,32",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed.")] = "32-true,bf16-mixed",
    scopes: Annotated[str, typer.Option(help="towers only, whole model.")] = "towers only,whole model",
    repeats: Annotated[int | None, typer.Option(min=1, help="By default 5, at batches from 16 on 3.")] = None,
    as_json: Json = False,
) -> None:
    """Speed of FE2E and MESM side by side on this CPU; under 20 minutes. Rows not measured again stay as they are."""
    from benchmarks.models.bench import bench as run

    lists = {"parts": parts, "precisions": precision, "scopes": scopes}
    chosen: dict[str, Any] = {name: [part.strip() for part in text.split(",")] for name, text in lists.items()}
    try:
        chosen["batches"] = [int(size) for size in batch.split(",")]
    except ValueError:
        raise ConfigError(f"--batch is {batch!r}: give whole numbers with commas between, e.g. 8,32") from None
    _print(run(out, Reporter(), repeats=repeats, **chosen), as_json)


@app.command("bench-data", epilog="Example: python -m benchmarks bench-data --out benchmarks/results")
def bench_data(
    out: Out = RESULTS,
    seconds: Annotated[float, typer.Option(min=1, help="Of stand-in video, at least, from each corpus.")] = 300.0,
    as_json: Json = False,
) -> None:
    """The data stages beside plain ways: speed, memory, disk, and the faces found. Takes about 15 minutes."""
    from benchmarks.data.bench_data import bench_data as run
    from benchmarks.data.page import as_markdown

    _print(run(out, Reporter(), seconds), as_json, lambda result: as_markdown(result["rows"]))


@app.command("bench-fusion", epilog="Example: python -m benchmarks bench-fusion --out benchmarks/results")
def bench_fusion(out: Out = RESULTS, as_json: Json = False) -> None:
    """EMT's three ways of fusion with 2 to 6 modalities, by clock and by count. Takes a few minutes."""
    from benchmarks.bench_fusion import as_markdown
    from benchmarks.bench_fusion import bench_fusion as run

    _print(run(out, Reporter()), as_json, lambda result: as_markdown(result["rows"]))


@app.command("bench-gpu", epilog="Example: python -m benchmarks bench-gpu --budget-s 480")
def bench_gpu(
    out: Out = RESULTS,
    budget_s: Annotated[float, typer.Option(min=30, help="Seconds in all; the rest is not measured.")] = 480.0,
    not_measured: Annotated[
        bool, typer.Option("--not-measured", help="Write rows that say so; no GPU needed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check and time on a GPU all that needs one, in under 8 minutes; fails where a test does or no GPU is there."""
    from benchmarks.gpu.bench_gpu import gpu_test, write_not_measured

    result = write_not_measured(out) if not_measured else gpu_test(out, Reporter().say, budget_s=budget_s)
    _print(result, as_json)
    if result["problems"]:
        raise typer.Exit(1)


@app.command(epilog="Example: python -m benchmarks selection --data data/iemocap --data data/mosei --seeds 3")
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
    modalities: Annotated[str | None, typer.Option(help="Letters of tav: text, audio, vision.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; of the training.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting by name, key=value; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train MESM in each mode of its selection: scores, gradients of the attention, sites on mouth and eyes, cost.

    Started again it goes on.
    """
    from benchmarks.selection.page import as_markdown
    from benchmarks.selection.study import SelectionSettings
    from benchmarks.selection.study import selection as run

    values = parse_assignments(settings or []) | _given(modalities=modalities, device=device)
    flags = {"data": data or [Path("data/iemocap")], "seeds": seeds, "values": values}
    flags |= _given(out=out, tables=tables, modes=modes and modes.split(","))
    result = run(SelectionSettings.checked(flags, "flags"), Reporter())
    _print(result, as_json, as_markdown)
    if result["failed"]:
        raise typer.Exit(1)


@app.command(epilog="Example: python -m benchmarks films --run runs/first")
def films(
    run: Annotated[Path, typer.Option(help="A trained run; its size is part of the speed.")],
    minutes: Annotated[float, typer.Option(min=2, help="Of the long film.")] = 60.0,
    out: Out = RESULTS,
    as_json: Json = False,
) -> None:
    """`predict` on a film of a minute and of an hour, without and with words: speed, memory. Takes half an hour."""
    from benchmarks.films import as_markdown
    from benchmarks.films import films as measure

    _print(measure(run, minutes, out, Reporter()), as_json, lambda found: as_markdown(found["rows"]))


@app.command(epilog="Example: python -m benchmarks words --talk pyannote/audio/sample")
def words(
    sentences: Annotated[
        Path | None, typer.Option(help="Wavs with `transcription`; by default those of pocketsphinx-testdata.")
    ] = None,
    talk: Annotated[
        Path | None, typer.Option(help="A folder of one wav and its turns (.stm), as pyannote-audio's.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
) -> None:
    """Recognised words and turns beside those that people wrote down: error rates, times. Takes minutes."""
    from benchmarks.words import SENTENCES, as_markdown
    from benchmarks.words import words as measure

    result = measure(sentences or SENTENCES, talk, out, Reporter())
    _print(result, as_json, lambda found: as_markdown(found["rows"]))


@app.command("who-speaks", epilog="Example: python -m benchmarks who-speaks --utterances 240")
def who_speaks(
    utterances: Annotated[int, typer.Option(min=6, help="Of the stand-in IEMOCAP.")] = 240, as_json: Json = False
) -> None:
    """Whose face of two is taken: the largest, or the one that speaks; and what that costs. Takes 10 minutes."""
    from benchmarks.data.who_speaks import as_text
    from benchmarks.data.who_speaks import who_speaks as run

    _print(run(utterances, Reporter()), as_json, as_text)


@app.command(epilog="Example: python -m benchmarks scale --utterances 10000,100000 --layouts few")
def scale(
    out: Out = RESULTS,
    utterances: Annotated[str, typer.Option(help="Sizes; 1000000 takes hours and 3 million files.")] = "10000,20000",
    layouts: Annotated[str, typer.Option(help="few: 100 utterances a dialogue; one each.")] = "few,one each",
    code: Annotated[str, typer.Option(help="The state of the project that is measured, in a word.")] = "now",
    as_json: Json = False,
) -> None:
    """Cost of a data folder by its number of utterances, on simulated ones: time, growth for each doubling, memory."""
    from benchmarks.scale import LAYOUTS, as_markdown
    from benchmarks.scale import scale as run

    asked = [name.strip() for name in layouts.split(",")]
    if unknown := [name for name in asked if name not in LAYOUTS]:
        raise ConfigError(f"--layouts has {unknown[0]!r}; known: {', '.join(LAYOUTS)}")
    try:
        sizes = [int(size) for size in utterances.split(",")]
        if min(sizes) < 1000:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"--utterances is {utterances!r}: give whole numbers from 1000 on with commas between, e.g. 10000,20000"
        ) from None
    _print(run(sizes, asked, code, out, Reporter()), as_json, lambda result: as_markdown(result["rows"]))


def _given(**flags: Any) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def _print(result: dict[str, Any], as_json: bool, for_people: Callable[[dict[str, Any]], str] | None = None) -> None:
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
    elif for_people:
        sys.stdout.write(for_people(result) + "\n")


def main() -> None:
    """Run the command line. Exit status: 0 success, 1 the work failed, 2 bad usage, 130 interrupted."""
    with exit_statuses():
        app(prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()

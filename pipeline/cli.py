"""The `pipeline` command: sub-command -> stage function. Parsing only; every stage can be called without it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from data_tools.errors import DataError
from pipeline.compare_command import COMPARE_EXAMPLE, compare
from pipeline.flops_command import FLOPS_EXAMPLE, flops
from pipeline.options import (
    Config,
    Data,
    Executor,
    Frontend,
    Json,
    Modalities,
    Resume,
    Set,
    TopP,
    TrainData,
    TrainDevice,
    Workers,
    flags_given,
    model_config,
    print_result,
)
from pipeline.pretrain_command import PRETRAIN_EXAMPLE, pretrain
from pipeline.progress import Reporter
from pipeline.settings import (
    ConfigError,
    EvaluateSettings,
    PreprocessSettings,
    ReorganizeSettings,
    RobustnessSettings,
    TrainSettings,
    available_cores,
    load_config,
    local_path,
    parse_assignments,
)
from pipeline.studies_command import ABLATE_EXAMPLE, SWEEP_EXAMPLE, ablate, sweep

app = typer.Typer(
    help="Emotion recognition from raw video: reorganize, preprocess, train, evaluate, predict.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Exit status: 0 success, 1 the work failed, 2 bad usage, 130 interrupted."""
    try:
        app()
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:  # typer makes this of Ctrl-C, without a word
            sys.stderr.write("interrupted; what was finished is kept: start the same command again (train: --resume)\n")
        raise
    except ConfigError as error:
        _fail(error, 2)
    except DataError as error:
        _fail(error, 1)
    except ValueError as error:
        # Only here: importing it brings torch, which no process of `reorganize` needs.
        from models.errors import ModelError

        if not isinstance(error, ModelError):
            raise
        _fail(error, 2)


def _fail(message: object, status: int) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(status)


@app.command(epilog="Example: pipeline standin --dataset iemocap --out raw --utterances 240")
def standin(
    dataset: Annotated[str, typer.Option(help="iemocap or mosei.")],
    out: Annotated[Path, typer.Option(help="The folder to write the release into.", callback=local_path)],
    utterances: Annotated[int, typer.Option(min=6, help="How many utterances of the task's classes.")] = 240,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    noise: Annotated[float | None, typer.Option(help="Chance in [0, 1) that a modality misleads.")] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Write a stand-in release in the real on-disk layout; no score on it means anything about people."""
    from data_tools.corpora.release import STANDINS

    if dataset not in STANDINS:
        raise ConfigError(f"--dataset is {dataset!r}; known: {', '.join(STANDINS)}")
    if noise is not None and not 0 <= noise < 1:
        raise ConfigError(f"--noise is {noise}: give a chance in [0, 1)")
    from data_tools.standin import write_standin

    reporter = Reporter()
    options = flags_given(noise=noise) | {"workers": workers or available_cores()}
    result = write_standin(dataset, out, utterances=utterances, seed=seed, track=reporter.track, **options)
    reporter.say(
        f"stand-in {dataset}: {utterances} utterances in {result['folder']}; no score on it means anything about people"
    )
    print_result(result, as_json)


@app.command(epilog="Example: pipeline check --dataset iemocap --root raw/IEMOCAP_full_release --split session:5")
def check(
    dataset: Annotated[str, typer.Option(help="A file in configs/datasets, e.g. iemocap or mosei.")],
    root: Annotated[Path | None, typer.Option(help="The raw release, by default raw/...")] = None,
    out: Annotated[Path | None, typer.Option(help="The data folder that stage 1 would write.")] = None,
    split: Annotated[
        str | None, typer.Option(help="random, random:utterance, release, session:K, speaker:ID or lists:PATH.")
    ] = None,
    seed: int | None = None,
    samples: Annotated[int, typer.Option(min=0, help="How many source videos are opened.")] = 8,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Before a long job: what a release holds and lacks, beside the published counts. Touches nothing; seconds."""
    from pipeline.check import check as run
    from pipeline.check import failed
    from pipeline.check_report import format_check

    values = load_config("datasets", dataset) | parse_assignments(settings or [])
    values |= flags_given(root=root, out=out, split=split, seed=seed)
    result = run(ReorganizeSettings.checked(values, f"--dataset {dataset} and flags"), samples)
    print_result(result, as_json, format_check)
    if failed(result):
        raise typer.Exit(1)


@app.command(epilog="Example: pipeline reorganize --dataset iemocap --root raw/IEMOCAP_full_release --split session:5")
def reorganize(
    dataset: Annotated[str, typer.Option(help="A file in configs/datasets: iemocap or mosei.")],
    root: Annotated[Path | None, typer.Option(help="The raw release, by default raw/...")] = None,
    out: Annotated[Path | None, typer.Option(help="The data folder to write, by default data/<dataset>.")] = None,
    split: Annotated[
        str | None, typer.Option(help="random, random:utterance, release, session:K, speaker:ID or lists:PATH.")
    ] = None,
    seed: int | None = None,
    workers: Workers = None,
    executor: Executor = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Stage 1: one clip per utterance, a manifest, and a reason for everything that was left out."""
    from pipeline.reorganize import reorganize as run

    values = load_config("datasets", dataset) | parse_assignments(settings or [])
    values |= flags_given(root=root, out=out, split=split, seed=seed, workers=workers, executor=executor)
    checked = ReorganizeSettings.checked(values, f"--dataset {dataset} and flags")
    print_result(run(checked, Reporter()), as_json)


@app.command(epilog="Example: pipeline preprocess --data data/iemocap --workers 2")
def preprocess(
    data: Data = Path("data/iemocap"),
    workers: Workers = None,
    executor: Executor = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Stage 2: a face for every sampled frame and log-mel for the sound, kept in data/<name>/store."""
    from pipeline.preprocess import preprocess as run

    flags = flags_given(device=device, workers=workers, executor=executor)
    values = {"data": data} | parse_assignments(settings or []) | flags
    print_result(run(PreprocessSettings.checked(values, "flags"), Reporter()), as_json)


@app.command(epilog="Example: pipeline extract --data data/iemocap")
def extract(
    data: Data = Path("data/iemocap"),
    features: Annotated[str, typer.Option(help="The name that the features get.")] = "default",
    recipe: Annotated[
        str | None, typer.Option(help="A file in configs/features, or a path to a YAML file; by default that name.")
    ] = None,
    workers: Workers = None,
    executor: Executor = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Feature sequences of text, sound and faces for models that read features, in data/<name>/features."""
    from pipeline.extract import extract as run
    from pipeline.extraction.recipe import ExtractSettings

    values = load_config("features", recipe or features) | parse_assignments(settings or [])
    values |= flags_given(data=data, features=features, workers=workers, executor=executor)
    print_result(run(ExtractSettings.checked(values, f"--features {features} and flags"), Reporter()), as_json)


@app.command("import-features", epilog="Example: pipeline import-features unaligned_50.pkl --out data/mosi-mmsa")
def import_features(
    file: Annotated[Path, typer.Argument(help="A pickle with train, valid and test, as MMSA has them.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The data folder to write, by default data/<name of the file>.", callback=local_path),
    ] = None,
    as_json: Json = False,
) -> None:
    """A data folder of somebody else's extracted features; nothing in the pickle is run."""
    from pipeline.import_features import import_features as run

    print_result(run(file, out or Path("data") / file.stem, Reporter()), as_json)


@app.command(epilog="Example: pipeline train --model mesm --top-p 0.5 --data data/iemocap --out runs/first")
def train(
    model: Annotated[str | None, typer.Option(help="A model with its default settings, e.g. mesm.")] = None,
    config: Config = None,
    top_p: TopP = None,
    data: TrainData = None,
    out: Annotated[Path | None, typer.Option(help="The run folder, by default runs/<model>-<dataset>-<time>.")] = None,
    modalities: Modalities = None,
    frontend: Frontend = None,
    device: TrainDevice = None,
    devices: Annotated[int | None, typer.Option(help="Processes of each machine that share every batch (DDP).")] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines that train together.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed.")] = None,
    compiled: Annotated[bool | None, typer.Option("--compile/--no-compile", help="Use torch.compile.")] = None,
    seed: int | None = None,
    resume: Resume = False,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Stage 3: train a model; the best epoch on the validation split is kept."""
    from pipeline.train import train as run
    from pipeline.training.processes import is_first_process

    of_model = {"top_p": top_p, "modalities": modalities, "frontend": frontend}
    train_values, model_values = model_config(model, config, settings, **of_model)
    train_values |= flags_given(data=data, out=out, device=device, devices=devices, nodes=nodes, seed=seed)
    train_values |= flags_given(precision=precision, compile=compiled)
    origin = f"--{'config ' + config if config else 'model ' + str(model)} and flags"
    result = run(TrainSettings.checked(train_values, origin), model_values, Reporter(), resume=resume)
    if is_first_process():
        print_result(result, as_json)


app.command(epilog=PRETRAIN_EXAMPLE)(pretrain)


@app.command(epilog="Example: pipeline evaluate --run runs/first --split test")
def evaluate(
    run: Annotated[Path, typer.Option(help="The run folder that `pipeline train` made.")],
    split: Annotated[str, typer.Option(help="A split of the manifest: train, valid or test.")] = "test",
    data: Annotated[Path | None, typer.Option(help="Another data folder than the run was trained on.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Stage 4: scores of a run on a split, each with its definition, count and the majority baseline."""
    from pipeline.evaluate import evaluate as evaluate_run

    values = {"run": run, "split": split, "device": device} | flags_given(data=data)
    print_result(evaluate_run(EvaluateSettings.checked(values, "flags"), Reporter()), as_json)


@app.command(epilog="Example: pipeline robustness --run runs/first --protocol random --rates 0.1,0.2,0.3,0.4,0.5")
def robustness(
    run: Annotated[Path, typer.Option(help="The run folder that `pipeline train` made.")],
    protocol: Annotated[
        str, typer.Option(help="random: steps missing; modalities: whole ones absent; bernoulli: noise.")
    ] = "random",
    rates: Annotated[str | None, typer.Option(help="Missing rates, or probabilities of noise, with commas.")] = None,
    seeds: Annotated[
        str, typer.Option(help="Each damages the same data in another way; with commas.")
    ] = "111,1111,11111",
    split: Annotated[str, typer.Option(help="A split of the manifest: train, valid or test.")] = "test",
    data: Annotated[Path | None, typer.Option(help="Another data folder than the run was trained on.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Scores of a run on missing or noisy input, beside those on undamaged input, with AUILC and relative drops."""
    from pipeline.robustness import robustness as damage_and_score

    values = {"run": run, "protocol": protocol, "split": split, "device": device, "seeds": seeds.split(",")}
    values |= flags_given(data=data, rates=rates and rates.split(","))
    print_result(damage_and_score(RobustnessSettings.checked(values, "flags"), Reporter()), as_json)


app.command(epilog=COMPARE_EXAMPLE)(compare)
app.command(epilog=SWEEP_EXAMPLE)(sweep)
app.command(epilog=ABLATE_EXAMPLE)(ablate)


@app.command(epilog='Example: pipeline predict --run runs/first film.mp4 --transcript "I am so glad you came."')
def predict(
    run: Annotated[Path, typer.Option(help="The run folder that `pipeline train` made.", callback=local_path)],
    files: Annotated[list[Path], typer.Argument(help="Video or sound files that ffmpeg reads.")],
    transcript: Annotated[str | None, typer.Option(help="The words said: a text, or a .srt or .txt file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Stage 5: emotion scores of any media file, with what was absent in it."""
    from pipeline.predict import failed, format_predictions
    from pipeline.predict import predict as predict_files

    result = predict_files(run, files, transcript, device, Reporter())
    print_result(result, as_json, format_predictions)
    if failed(result):
        raise typer.Exit(1)


@app.command(epilog="Example: pipeline stats --data data/iemocap")
def stats(data: Data = Path("data/iemocap"), as_json: Json = False) -> None:
    """Utterances, words, seconds and labels of each split."""
    from pipeline.stats import format_stats
    from pipeline.stats import stats as count

    print_result(count(data), as_json, format_stats)


@app.command(
    epilog="Example: pipeline inspect --data data/iemocap Ses01F_impro01_F000",
    context_settings={"ignore_unknown_options": True},  # ids of CMU-MOSEI begin with a dash
)
def inspect(
    ids: Annotated[list[str] | None, typer.Argument(help="Utterances, kept or rejected; by default a sample.")] = None,
    data: Data = Path("data/iemocap"),
    out: Annotated[Path | None, typer.Option(help="The page, by default inspect.html in the data folder.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many utterances the sample has.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    as_json: Json = False,
) -> None:
    """A contact sheet of utterances: frames with the chosen face, crops, sound, mel, words, labels, in one page."""
    from pipeline.inspect import format_inspection
    from pipeline.inspect import inspect as write

    print_result(write(data, ids or [], out, count, seed, Reporter()), as_json, format_inspection)


@app.command(
    epilog="Example: pipeline explain --run runs/first Ses05F_impro01_F000",
    context_settings={"ignore_unknown_options": True},  # ids of CMU-MOSEI begin with a dash
)
def explain(
    run: Annotated[Path, typer.Option(help="The run folder of a sparse model, mesm.", callback=local_path)],
    ids: Annotated[list[str] | None, typer.Argument(help="Utterances; by default one of each emotion.")] = None,
    split: Annotated[str, typer.Option(help="Where those are taken from when none is named.")] = "test",
    data: Annotated[Path | None, typer.Option(help="Another data folder than the run was trained on.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write into, by default explain in the run's.")] = None,
    as_json: Json = False,
) -> None:
    """Which sites of faces and sound the sparse model keeps after each attention layer: PNGs and one page."""
    from pipeline.explain import explain as write
    from pipeline.explain import format_explanation

    print_result(write(run, ids or [], split, data, out, Reporter()), as_json, format_explanation)


app.command(epilog=FLOPS_EXAMPLE)(flops)


@app.command(epilog="Example: pipeline demo --out demo")
def demo(
    out: Annotated[
        Path, typer.Option(help="The folder for the release, the data, the runs and report.html.", callback=local_path)
    ] = Path("demo"),
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Stages 1 to 4 on a stand-in IEMOCAP, FE2E and MESM side by side, in one page."""
    from pipeline.demo import demo as run

    print_result(run(out, Reporter(), workers), as_json)


if __name__ == "__main__":
    main()

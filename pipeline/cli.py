"""The `pipeline` command: the list of commands, each a file of its name in this package, and its exit statuses."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from data_tools.errors import DataError
from data_tools.names import for_terminal
from pipeline.command import Command, python_function, run_command_line
from pipeline.settings import ConfigError, did_you_mean

# Command -> what it does, by who needs it. A command is loaded when it is called: this list needs no torch.
COMMANDS: dict[str, dict[str, str]] = {
    "From a corpus to a trained model": {
        "check": "Before a long job: what a release holds, beside the published counts; or if a data folder is sound.",
        "reorganize": "Stage 1: one clip per utterance, a manifest, and a reason for everything that was left out.",
        "preprocess": "Stage 2: a face for every sampled frame and log-mel of the audio, kept in data/<name>/store.",
        "transcribe": "Words of the clips whose utterances have none, by a speech recogniser.",
        "train": "Stage 3: train a model; the best epoch on the validation split is kept.",
        "evaluate": "Stage 4: scores of a run on a split, each with its definition, count and the majority baseline.",
    },
    "From a model to a film": {
        "predict": "Stage 5: emotions along the time of any film, with what was absent in it.",
        "app": "The same in a browser: drop a film or record one, and look at its page. Of this machine alone.",
    },
    "Pass it on": {
        "share": "A model as a folder with a model card, or on the Hugging Face hub; `--run` takes both.",
    },
    "Look inside": {
        "stats": "Utterances, words, seconds and labels of each split, beside the papers' tables.",
        "inspect": "A page of utterances: frames with the chosen face, crops, audio, mel, words, labels.",
        "explain": "Sites of faces and audio that the sparse model keeps after each attention layer: PNGs and a page.",
        "flops": "Multiply-adds and parameters beside the papers' figures; without flags, MESM's tables 3 and 4.",
    },
    "Models that read features": {
        "extract": "Feature sequences of text, audio and faces for models that read features.",
        "import-features": "A data folder of somebody else's extracted features; nothing in the pickle is run.",
        "pretrain": "Pretrain CMT without labels, before `train`: hidden words and audio are guessed from both sides.",
    },
    "Many trainings, one table": {
        "compare": "Train and score models side by side on one split: mean and spread, sizes and times, and a page.",
        "sweep": "Score and multiply-adds over top-p, as in Figure 5 of the MESM paper.",
        "ablate": "Every subset of text, audio and vision, as in Table 5 of the MESM paper.",
        "reproduce": "A paper's table or figure on your data, the published figure beside each of ours; --list.",
        "tune": "Random or grid search over settings by the score on valid; the best as a config.",
        "robustness": "Scores of a run, or of a study, on missing or noisy input, with AUILC and relative drops.",
    },
    "Try it without data": {
        "demo": "Stages 1 to 4 on a stand-in IEMOCAP, FE2E and MESM side by side, in one page.",
        "standin": "Write a stand-in release in the real on-disk layout; no score on it says anything about people.",
    },
}
HELP = {name: text for group in COMMANDS.values() for name, text in group.items()}
INTERRUPTED = 130
_KEPT = "interrupted; what was finished is kept: start the same command again (train: --resume)"
# Commands of earlier versions that measure this project itself.
MOVED = ("bench", "bench-data", "bench-fusion", "bench-gpu", "selection")


def load_command(name: str) -> Command:
    """The command called `name`, from the file of its name."""
    command: Command = import_module(f"pipeline.{name.replace('-', '_')}").COMMAND
    return command


def api_functions() -> dict[str, Callable[..., dict[str, Any]]]:
    """The commands as functions of keyword arguments, by their name in Python."""
    return {
        name.replace("-", "_"): python_function(name.replace("-", "_"), text, partial(load_command, name))
        for name, text in HELP.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default that of this process; return on success.

    Exit status: 0 success, 1 the work failed, 2 bad usage, 130 interrupted.
    """
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if name in ("--help", "-h"):
        sys.stdout.write(format_help())
        return
    with exit_statuses():
        _check_name(name)
        run_command_line(name, HELP[name], load_command(name), rest)


@contextmanager
def exit_statuses() -> Iterator[None]:
    """Turn what a person can mend into one line on standard error and an exit status; a status of 0 goes on."""
    try:
        yield
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:  # typer makes this of Ctrl-C, without a word
            sys.stderr.write(f"{_KEPT}\n")
        if stopped.code:
            raise
    except KeyboardInterrupt:
        sys.stderr.write(f"{_KEPT}\n")
        sys.exit(INTERRUPTED)
    except ConfigError as error:
        _fail(error, 2)
    except DataError as error:
        _fail(error, 1)
    except PermissionError as error:
        _fail(f"{error.filename}: {error.strerror or 'permission denied'}; change its permissions", 1)
    except ValueError as error:
        # Only here: importing it brings torch, which `pipeline --help` does not need.
        from models.errors import ModelError

        if not isinstance(error, ModelError):
            raise
        _fail(error, 2)


def _fail(message: object, status: int) -> None:
    sys.stderr.write(f"error: {for_terminal(str(message))}\n")
    sys.exit(status)


def _check_name(name: str) -> None:
    if name in MOVED:
        raise ConfigError(
            f"`pipeline {name}` measures this project itself and is now `python -m benchmarks {name}`, in a checkout"
        )
    if name not in HELP:
        raise ConfigError(f"no command {name!r}{did_you_mean(name, list(HELP))}; `pipeline --help` lists them")


def format_help() -> str:
    """The list of commands, grouped by who needs them."""
    lines = ["Usage: pipeline COMMAND [OPTIONS]", "", "Emotion recognition from raw video, audio and text.", ""]
    for group, commands in COMMANDS.items():
        lines += [f"{group}:", *(f"  {name:16} {text}" for name, text in commands.items()), ""]
    return "\n".join([*lines, "`pipeline COMMAND --help` has the flags and an example.", ""])


if __name__ == "__main__":
    main()

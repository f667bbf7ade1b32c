import json
import re
import sys

import pytest

import models
from pipeline import cli
from pipeline.command import Command
from pipeline.stats import StatsSettings


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the command line in an empty folder: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return call


COMMANDS = sorted(cli.HELP)


def test_the_commands_are_those_of_the_readme(run):
    stages = ["standin", "reorganize", "preprocess", "extract", "pretrain", "train", "evaluate", "predict", "demo"]
    looks = ["check", "inspect", "stats", "flops", "robustness", "explain"]
    tables = ["compare", "sweep", "ablate", "reproduce", "tune"]
    others = ["import-features", "transcribe", "app", "share"]
    assert COMMANDS == sorted([*stages, *looks, *tables, *others])


# A flag that people have typed into their scripts stays. A new one is added here.
FLAGS = {
    "app": "run host port out max-mb max-length-s device",
    "standin": "dataset out utterances seed noise workers",
    "check": "data dataset root out split seed samples set",
    "reorganize": "dataset root out split seed workers executor time-limit-s set",
    "preprocess": "data workers executor time-limit-s device face-choice set",
    "extract": "data features recipe workers executor time-limit-s set",
    "import-features": "out add-to",
    "train": "model config top-p data labels out modalities frontend device devices nodes precision compile no-compile "
    "seed resume no-resume set",
    "pretrain": "stage model config data out device seed resume no-resume set",
    "evaluate": "run split data labels folds device",
    "robustness": "run models protocol rates seeds split data out device set",
    "compare": "models data across no-across labels seeds folds out modalities frontend device set",
    "sweep": "data top-p models seeds out modalities labels device set",
    "ablate": "data models seeds out frontend labels device set",
    "tune": "data model space grid no-grid trials seed out labels device set",
    "reproduce": "list no-list data seeds quick no-quick pretrained adapted out device set",
    "predict": "run transcript tier segments max-segment-s asr language out device",
    "transcribe": "data asr language overwrite no-overwrite workers executor time-limit-s",
    "stats": "data",
    "inspect": "data out count seed",
    "explain": "run split data out",
    "flops": "model config top-p modalities frontend run set",
    "demo": "out workers",
    "share": "run to public no-public licence title",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_of_a_command_stay(run, command):
    _, out, _ = run(command, "--help")
    listed = re.findall(r"^  --([a-z-]+)(?: / --([a-z-]+))?", out, re.MULTILINE)
    assert {name for names in listed for name in names if name} == {*FLAGS[command].split(), "json", "help"}


def test_a_flag_that_may_be_repeated(run, tmp_path):
    status, _, err = run("train", "--model", "fe2e", "--data", str(tmp_path), "--data", str(tmp_path))
    assert (status, "data names a folder twice" in err) == (2, True)


@pytest.mark.parametrize("command", ["bench", "bench-data", "bench-fusion", "bench-gpu", "selection"])
def test_a_command_that_moved_says_where(run, command):
    status, _, err = run(command, "--help")
    assert status == 2
    assert f"python -m benchmarks {command}" in err


def test_an_unknown_command_is_answered_with_the_nearest(run):
    status, _, err = run("trian")
    assert status == 2
    assert "did you mean train?" in err


def test_the_list_of_commands_is_printed_without_any(run):
    status, out, _ = run()
    assert (status, out) == (0, run("--help")[1])
    assert all(f"  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_of_the_command(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert f"Example: pipeline {command}" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "--modle", "mesm"], ["--modle"]),
        (["train"], ["--model", "--config"]),
        (["train", "--model", "mesn"], ["'mesn'", "fe2e", "mesm"]),
        (
            ["train", "--model", "mesm", "--set", "epohcs=3", "--data", "nowhere"],
            ["epohcs", "did you mean epochs", "training: ", "mesm: "],
        ),
        (["train", "--model", "mesm", "--set", "batch_size=0"], ["batch_size is 0"]),
        (["flops", "--model", "mesm", "--top-p", "0"], ["top_p", "(0, 1]"]),
        (["flops", "--model", "mesm", "--top-p", "1.5"], ["top_p", "1.5"]),
        (["reorganize", "--dataset", "iemocat"], ["'iemocat'", "iemocap", "mosei"]),
        (["reorganize", "--dataset", "iemocap", "--set", "crf=99"], ["crf is 99"]),
        (["preprocess", "--device", "tpu"], ["device is 'tpu'"]),
        (["preprocess", "--executor", "dask"], ["executor is 'dask'"]),
        (["reorganize", "--dataset", "iemocap", "--executor", "ray:head"], ["executor is 'ray:head'"]),
        (["reorganize", "--dataset", "iemocap", "--root", "s3://corpora/iemocap"], ["root is", "mount"]),
        (["stats", "--data", "s3://b/data"], ["s3:", "is a URL", "mount"]),
        (["predict", "--run", "gs://b/run", "film.mp4"], ["gs:", "is a URL", "mount"]),
        (["preprocess", "--set", "device=tpu"], ["device is 'tpu'"]),
        (["preprocess", "--set", "faces={margin_px: 60}"], ["faces.margin_px is 60"]),
        (["reorganize", "--dataset", "iemocap", "--split", "sesion:5"], ["sesion:5"]),
        (["flops", "--model", "mesm", "--set", "epochs=3"], ["epochs"]),
        (["standin", "--dataset", "iemocap", "--out", "x", "--utterances", "1"], ["utterances is 1", "6"]),
        (["standin", "--dataset", "meld", "--out", "x"], ["'meld'", "iemocap, mosei"]),
        (["standin", "--dataset", "mosei", "--out", "x", "--noise", "1"], ["--noise is 1"]),
    ],
)
def test_bad_usage_exits_2_and_names_it(run, arguments, parts):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    for part in parts:
        assert part in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["reorganize", "--dataset", "iemocap"], ["raw/IEMOCAP_full_release", "pipeline standin --dataset iemocap"]),
        (["preprocess"], ["data/iemocap", "pipeline reorganize --dataset iemocap"]),
        (["stats"], ["data/iemocap", "pipeline reorganize"]),
        (["train", "--model", "mesm", "--top-p", "0.5"], ["data/iemocap", "pipeline reorganize"]),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(run, arguments, parts):
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    for part in parts:
        assert part in err
    assert "Traceback" not in err


def test_a_missing_run_is_named(run):
    for arguments in (["evaluate", "--run", "runs/none"], ["predict", "--run", "runs/none", "film.mp4"]):
        status, _, err = run(*arguments)
        assert status == 2
        assert "runs/none" in err


@pytest.mark.parametrize(
    ("text", "part"),
    [("train: [1, 2]\nmodel: {name: mesm}", "mappings"), ("model: hello", "mappings"), ("model: {}", "with a name"),
     ("model: {name: mesm}\nextra: {}", "extra"), ("1: 2", "unknown sections")],
)  # fmt: skip
def test_a_bad_model_file_is_bad_usage(run, tmp_path, text, part):
    (tmp_path / "own.yaml").write_text(text)
    status, _, err = run("train", "--config", "own.yaml")
    assert status == 2
    assert part in err


def test_ctrl_c_says_that_finished_work_is_kept(run, monkeypatch):
    def interrupted(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_command", lambda name: Command(interrupted, (StatsSettings,), "stats"))
    status, _, err = run("stats")
    assert status == 130
    assert "kept" in err


def test_a_file_that_may_not_be_read_is_one_line(run, monkeypatch):
    def refused(settings):
        raise PermissionError(13, "Permission denied", "runs/first/settings.yaml")

    monkeypatch.setattr(cli, "load_command", lambda name: Command(refused, (StatsSettings,), "stats"))
    status, _, err = run("stats")
    assert (status, err) == (1, "error: runs/first/settings.yaml: Permission denied; change its permissions\n")


def test_json_is_json(run):
    status, out, _ = run("flops", "--model", "fe2e", "--set", "text_encoder=tiny", "--json")
    assert status == 0
    assert json.loads(out)["parameters"] > 1_000_000


def test_a_two_phase_model_is_trained_end_to_end_by_a_flag(run, toy_corpus, tmp_path):
    sizes = ("text_encoder=tiny", "tower_width=4", "size=4", "epochs=1", "batch_size=8")
    flags = [part for size in sizes for part in ("--set", size)]
    towers = ("train", "--model", "lf-lstm", "--frontend", "towers", "--data", toy_corpus, "--out", "first")
    status, out, _ = run(*towers, "--device", "cpu", *flags, "--json")
    assert status == 0
    assert json.loads(out)
    assert models.load(tmp_path / "first").config.frontend == "towers"


def test_a_frontend_that_a_model_does_not_have_is_bad_usage(run):
    for command in ("train", "flops"):
        status, _, err = run(command, "--model", "mult", "--frontend", "tower")
        assert status == 2
        assert "frontend" in err

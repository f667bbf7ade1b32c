"""`python -m benchmarks` as it is typed: its commands, their help, their exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import __main__ as command_line

ROOT = Path(__file__).parents[2]
COMMANDS = ["bench", "bench-data", "bench-fusion", "bench-gpu", "selection", "films", "words", "who-speaks", "scale"]


@pytest.fixture
def run(monkeypatch, capsys):
    """A call of the command line: (exit status, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            command_line.main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return call


def test_from_the_root_it_lists_its_commands():
    command = [sys.executable, "-m", "benchmarks", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert [name for name in listed if name in COMMANDS] == COMMANDS
    assert "python -m benchmarks" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_of_the_command(command):
    found = CliRunner().invoke(command_line.app, [command, "--help"])
    assert found.exit_code == 0
    assert f"Example: python -m benchmarks {command}" in " ".join(found.output.split())


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (["bench", "--batch", "8,many"], 2, ["--batch is '8,many'", "whole numbers"]),
        (["bench", "--parts", "speed"], 2, ["part is 'speed'", "known: models, attention"]),
        (["bench", "--repeats", "0"], 2, ["--repeats"]),
        (["bench", "--out", "s3://results"], 2, ["mount"]),
        (["scale", "--utterances", "10,many"], 2, ["--utterances is '10,many'", "whole numbers"]),
        (["scale", "--layouts", "many"], 2, ["'many'", "known: few, one each"]),
        (["selection", "--modes", "hard"], 2, ["hard", "straight_through"]),
        (["films", "--run", "runs/nowhere"], 2, ["runs/nowhere"]),
        (["words", "--sentences", "nowhere"], 1, ["nowhere has no sentences", "pocketsphinx-testdata"]),
        (["selection", "--set", "attention_gradient=soft"], 2, ["give --modes"]),
    ],
)
def test_bad_usage_is_named(run, arguments, status, parts):
    found, _, error = run(*arguments)
    assert found == status
    assert all(part in error for part in parts), error


def test_what_cannot_be_written_is_a_failure(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, error = run("bench-gpu", "--not-measured", "--out", tmp_path / "file")
    assert status == 1
    assert "cannot write" in error


def test_json_is_the_result(run, tmp_path):
    status, out, _ = run("bench-gpu", "--not-measured", "--out", tmp_path, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["problems"] == []
    assert found["files"] == [str(tmp_path / "gpu.json"), str(tmp_path / "gpu.md")]
    assert {row["not_measured"] for row in found["rows"]} == {"no CUDA device at hand"}

"""Thousands of small files with random damage: each is an answer or one sentence, within bounds of time and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KINDS = ("json", "yaml", "parquet", "safetensors", "pickle", "csv", "srt")
PROGRAM = Path(__file__).with_name("mutations.py")


def read_damaged(count):
    """Counts of answers and errors by kind, from a process of its own: a library that crashes takes it along."""
    root = PROGRAM.parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(count)], capture_output=True, text=True, env=environment, check=False
    )
    last = done.stderr.splitlines()[-1:] if done.stderr else []
    assert done.returncode == 0, f"exit status {done.returncode}; at {last}\n{done.stdout[-6000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def check(found, count):
    assert set(found) == set(KINDS)
    for kind, (answers, errors) in found.items():
        assert answers + errors >= count, kind
        # Damage in the words of a subtitle is no damage of its form, and most bytes of weights are no header's.
        assert errors > count * (0 if kind == "srt" else 0.05), f"{kind}: {answers} answers, {errors} errors"


def test_damaged_files_of_each_kind():
    check(read_damaged(150), 150)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_six_thousand_damaged_files_of_each_kind():
    check(read_damaged(6000), 6000)

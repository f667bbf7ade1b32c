"""CONTRIBUTING.md says how to add a corpus, a model, a metric, a setting and a command: a copy does what it says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = ("A corpus", "A model", "A metric", "A setting", "A command")
BLOCK = re.compile(
    r"`([\w/]+\.(?:py|yaml))`(?:,\s(?:added|changed)\slines)?:\n|```(python|yaml|diff)\n(.*?)```", re.DOTALL
)


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)[1]


def apply(text, copy):
    """Write the whole files of a section, and change the lines of its `diff` blocks, each of which stands once."""
    path = None
    for found in BLOCK.finditer(text):
        if found[1]:
            path = copy / found[1]
        elif found[2] == "diff":
            lines = found[3].splitlines()
            old, new = ("\n".join(line[1:] for line in lines if line[:1] in {" ", sign}) + "\n" for sign in "-+")
            content = path.read_text(encoding="utf-8")
            assert content.count(old) == 1, f"{path.relative_to(copy)} has {content.count(old)} times:\n{old}"
            path.write_text(content.replace(old, new), encoding="utf-8")
        else:
            assert not path.exists(), f"{path.relative_to(copy)} is there already"
            path.write_text(found[3], encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The packages and tests with all sections applied."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("pipeline", "models", "data_tools", "configs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for title in SECTIONS:
        apply(section(title), folder)
    return folder


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_does_what_it_says(copy, title):
    checks = re.search(r"Check it:\n\n```\n(.*?)```", section(title), re.DOTALL)[1].splitlines()
    environment = os.environ | {"PYTHONPATH": str(copy)}
    assert checks
    for line in checks:
        program, *arguments = shlex.split(line)
        if arguments[:2] == ["-m", "pytest"]:
            arguments += ["-p", "no:cacheprovider"]
        command = [sys.executable, *(["-m", "pipeline"] if program == "pipeline" else []), *arguments]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"

"""The ffmpeg that writes videos is the packaged one, unless the user names another that is new enough."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.media.write import FFMPEG_VARIABLE, ffmpeg_exe, write_video

PACKAGED = Path(imageio_ffmpeg.__file__).parent / "binaries"


@pytest.fixture(autouse=True)
def no_program_is_named(monkeypatch):
    monkeypatch.delenv(FFMPEG_VARIABLE, raising=False)


def script(path, answer, status=0):
    """An executable that prints `answer`, whatever it is asked."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_program_on_the_path_is_not_taken(tmp_path, monkeypatch):
    there = script(tmp_path / "bin" / "ffmpeg", "ffmpeg version 5.1.9")
    monkeypatch.setenv("PATH", f"{there.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(there))
    assert shutil.which("ffmpeg") == str(there)
    assert Path(ffmpeg_exe()).parent == PACKAGED
    write_video(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.uint8)] * 3, (16, 16), 25)
    assert (tmp_path / "a.mp4").stat().st_size > 0


def test_the_packaged_program_is_found_without_a_path(tmp_path):
    code = "from data_tools.media.write import ffmpeg_exe; print(ffmpeg_exe())"
    environment = {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert Path(said.stdout.strip()).parent == PACKAGED


def test_a_wheel_without_its_program_is_named(tmp_path, monkeypatch):
    (tmp_path / "binaries").mkdir()
    monkeypatch.setattr("data_tools.media.write.files", lambda _: tmp_path)
    monkeypatch.setattr("data_tools.media.write._packaged_ffmpeg", _uncached())
    with pytest.raises(DataError, match="imageio-ffmpeg"):
        ffmpeg_exe()


def _uncached():
    from data_tools.media.write import _packaged_ffmpeg

    return _packaged_ffmpeg.__wrapped__


@pytest.mark.parametrize(
    "version", ["6.0", "6.1.1-3ubuntu5", "7.0.2-static", "n8.0", "9.0.2", "N-118193-g5f38c82536", "2024-11-07-git-50a"]
)
def test_the_program_that_is_named_is_taken(tmp_path, monkeypatch, version):
    named = script(tmp_path / "my ffmpeg", f"ffmpeg version {version} Copyright (c) 2000-2026")
    monkeypatch.setenv(FFMPEG_VARIABLE, str(named))
    assert ffmpeg_exe() == str(named)


def test_the_program_that_is_named_writes_the_video(tmp_path, monkeypatch):
    real = ffmpeg_exe()
    named = tmp_path / "other"
    named.write_text(f'#!/bin/sh\necho used >> "{tmp_path}/log"\nexec "{real}" "$@"\n', encoding="utf-8")
    named.chmod(0o755)
    monkeypatch.setenv(FFMPEG_VARIABLE, str(named))
    for _ in range(2):
        write_video(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.uint8)] * 3, (16, 16), 25)
    # Asked for its version once, then started for each video.
    assert (tmp_path / "log").read_text(encoding="utf-8").split() == ["used"] * 3


@pytest.mark.parametrize("version", ["5.1.9-0+deb12u1", "4.4.2", "n5.1.2", "0.11"])
def test_an_old_program_is_refused(tmp_path, monkeypatch, version):
    monkeypatch.setenv(FFMPEG_VARIABLE, str(script(tmp_path / "old", f"ffmpeg version {version} Copyright")))
    with pytest.raises(DataError, match=r"EMOTION_PIPELINE_FFMPEG is .*old.*version 6\.0 or later"):
        ffmpeg_exe()


def test_a_program_that_is_missing_not_executable_or_not_ffmpeg_is_refused(tmp_path, monkeypatch):
    (tmp_path / "plain").write_text("no program", encoding="utf-8")
    (tmp_path / "garbage").write_bytes(b"\x7fELF, it says")
    (tmp_path / "garbage").chmod(0o755)
    cases = {
        "missing": "cannot be run",
        "plain": "cannot be run",
        "garbage": "cannot be run",
        ".": "cannot be run",
        script(tmp_path / "cat", "meow").name: "not ffmpeg",
        script(tmp_path / "failing", "ffmpeg version 8.0", status=1).name: "not ffmpeg",
    }
    for name, why in cases.items():
        monkeypatch.setenv(FFMPEG_VARIABLE, str(tmp_path / name))
        with pytest.raises(DataError) as refused:
            ffmpeg_exe()
        said = str(refused.value)
        assert said.startswith(FFMPEG_VARIABLE)
        assert why in said, said
        assert "\n" not in said

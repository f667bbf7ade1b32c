"""Small stand-in releases, made once for all tests of this folder that read one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_tools.sequences.numba_cache import ensure_numba_cache
from data_tools.standin.release import write_standin

ensure_numba_cache()  # some tests import librosa themselves


@dataclass(frozen=True)
class MadeStandin:
    folder: Path
    summary: dict[str, Any]
    tracked: list[tuple[int, str, str]]


def _make(dataset: str, out: Path) -> MadeStandin:
    tracked = []

    def track(items, total, label, unit):
        for item in items:
            tracked.append((total, label, unit))
            yield item

    summary = write_standin(dataset, out, utterances=12, seed=1, workers=1, track=track)
    return MadeStandin(Path(summary["folder"]), summary, tracked)


@pytest.fixture(scope="session")
def standin_iemocap(tmp_path_factory):
    """12 utterances of the six classes in 10 dialogues, two a session. Not to be changed."""
    return _make("iemocap", tmp_path_factory.mktemp("standin_iemocap"))


@pytest.fixture(scope="session")
def standin_mosei(tmp_path_factory):
    """12 labelled segments in 6 videos. Not to be changed."""
    return _make("mosei", tmp_path_factory.mktemp("standin_mosei"))

"""The examples in docs/corpora are run as they stand, and its names and limits are those that are built in."""

import re
from pathlib import Path

import pytest

from data_tools.corpora import tables
from data_tools.corpora.folder import table as folder_table
from data_tools.corpora.folder.files import SOUND_SUFFIXES, VIDEO_SUFFIXES
from data_tools.corpora.folder.values import MAX_SENTIMENT
from data_tools.corpora.readers import read_release
from data_tools.speech.transcript import BESIDE_SUFFIXES
from data_tools.splits import SPLIT_WORDS

DOCS = Path(__file__).parents[2] / "docs" / "corpora"


def block(page, language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    return found


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_the_example_of_a_table(tmp_path):
    touch(tmp_path, "anna.mp4", "day 2/ben.mov", "day 2/ben.wav")
    (tmp_path / "labels.csv").write_text(block("folder.md", "csv"), encoding="utf-8")
    release = read_release("folder", tmp_path, [])
    assert release.rejects == []
    assert release.emotions == ("angry", "happy", "sad", "surprised")
    assert [(u.utterance_id, u.start_s, u.end_s, u.fold) for u in release.utterances] == [
        ("anna_1", 12.5, 15.0, "train"),
        ("anna_2", 3723.25, 3727.0, "train"),
        ("day 2__ben_1", 0.0, float("inf"), "test"),
    ]
    assert release.utterances[2].source_audio == "day 2/ben.wav"


@pytest.mark.parametrize(
    "names",
    [
        [name for names in folder_table.FIELDS.values() for name in names],
        [name for names in folder_table.OTHER_NAMES.values() for name in names],
        list(SPLIT_WORDS),
        BESIDE_SUFFIXES,
        VIDEO_SUFFIXES,
        SOUND_SUFFIXES,
        tables.TABLE_SUFFIXES,
        [
            f"{tables.MAX_BYTES // 2**20} MiB",
            f"{tables.MAX_CELLS // 10**6} million cells",
            f"{tables.MAX_CELL_CHARACTERS:,} characters",
            f"{folder_table.MAX_EMOTIONS} emotions",
            f"{folder_table.MAX_NAME_CHARACTERS} characters",
            f"-{MAX_SENTIMENT} to {MAX_SENTIMENT}",
        ],
    ],
)
def test_names_and_limits_of_the_page(names):
    page = " ".join((DOCS / "folder.md").read_text(encoding="utf-8").split())
    assert [name for name in names if name not in page] == []

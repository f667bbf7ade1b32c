"""Counts of a small manifest, by hand."""

import json

import pytest

from data_tools.errors import DataError
from data_tools.manifest import Clip, write_manifest
from pipeline.stats import format_stats, stats


def clip(name, split, seconds, text, labels, sentiment=None):
    return Clip(
        name,
        name[0],
        name[0].upper(),
        "1",
        split,
        1.0,
        1.0 + seconds,
        text,
        "c",
        "w",
        labels,
        sentiment,
        "v",
        "a",
        25.0,
    )


@pytest.fixture
def data(tmp_path):
    clips = [
        clip("a_0", "train", 2.0, "one two three", {"ang": 1.0, "sad": 0.0}, -1.0),
        clip("a_1", "train", 4.0, "[LAUGHTER] one", {"ang": 1.0, "sad": 1.0}, 0.0),
        clip("b_0", "train", 3.0, "", {"ang": 0.0, "sad": 0.0}, 2.0),
        clip("c_0", "test", 1.5, "well  then", {"ang": 0.0, "sad": 1.0}),
    ]
    write_manifest(tmp_path, clips, ["ang", "sad"])
    return tmp_path


def test_counts_by_hand(data):
    found = stats(data)
    train, valid, test, everything = (found["splits"][name] for name in ("train", "valid", "test", "all"))
    assert found["emotions"] == ["ang", "sad"]
    assert (train["utterances"], train["words"], train["seconds"]) == (3, 4, 9.0)
    assert (train["mean_words"], train["mean_seconds"]) == (1.333, 3.0)
    assert (train["speakers"], train["dialogues"]) == (2, 2)
    assert train["labels"]["ang"] == {
        "utterances": 2, "words": 4, "seconds": 6.0, "mean_words": 2.0, "mean_seconds": 3.0,
    }  # fmt: skip
    assert train["labels"]["sad"]["utterances"] == 1
    assert train["labels"]["no_label"]["utterances"] == 1
    assert train["sentiment"] == {"negative": 1, "zero": 1, "positive": 1}
    assert (valid["utterances"], valid["mean_words"], valid["labels"]["ang"]["mean_seconds"]) == (0, None, None)
    assert (test["labels"]["sad"]["words"], test["sentiment"]) == (2, None)
    assert (everything["utterances"], everything["words"], everything["seconds"]) == (4, 6, 10.5)
    json.dumps(found, allow_nan=False)


def test_the_table_shows_every_split(data):
    lines = format_stats(stats(data)).splitlines()
    assert lines[1].split() == ["train", "all", "3", "4", "9.0", "1.3", "3.0"]
    assert lines[2].split() == ["ang", "2", "4", "6.0", "2.0", "3.0"]
    assert any(line.startswith("valid  all") for line in lines)
    assert "train: 2 speakers, 2 dialogues, 1 negative, 1 zero, 1 positive" in lines


def test_no_manifest_names_the_command(tmp_path):
    with pytest.raises(DataError, match="pipeline reorganize"):
        stats(tmp_path)

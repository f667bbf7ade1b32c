"""Counts of a small manifest, by hand."""

import json

import pytest

from data_tools.errors import DataError
from data_tools.manifest import write_manifest
from data_tools.records import Clip
from data_tools.splits import SPLITS
from pipeline.stats import format_stats, stats


def clip(name, split, seconds, text, labels, sentiment=None, no_face_share=None):
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
        no_face_share,
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
    assert {name: counts["words"] for name, counts in train["sentiment"].items()} == {
        "negative": 3, "zero": 1, "positive": 0,
    }  # fmt: skip
    assert (valid["utterances"], valid["mean_words"], valid["labels"]["ang"]["mean_seconds"]) == (0, None, None)
    assert (test["labels"]["sad"]["words"], test["sentiment"]) == (2, None)
    assert (everything["utterances"], everything["words"], everything["seconds"]) == (4, 6, 10.5)
    json.dumps(found, allow_nan=False)


def test_the_table_shows_every_split(data):
    lines = format_stats(stats(data)).splitlines()
    assert lines[1].split() == ["train", "all", "3", "4", "9.0", "1.3", "3.0"]
    assert lines[2].split() == ["ang", "2", "4", "6.0", "2.0", "3.0"]
    assert any(line.startswith("valid  all") for line in lines)
    assert "train: 2 speakers, 2 dialogues" in lines
    table = lines[lines.index(next(line for line in lines if line.startswith("as in the papers' tables"))) + 1 :]
    assert [line.split() for line in table] == [
        ["label", "words", "seconds", "train", "valid", "test"],
        ["ang", "2.00", "3.00", "2", "0", "0"],
        ["sad", "1.50", "2.75", "1", "0", "1"],
        ["no_label", "0.00", "3.00", "1", "0", "0"],
        ["negative", "3.00", "2.00", "1", "0", "0"],
        ["zero", "1.00", "4.00", "1", "0", "0"],
        ["positive", "0.00", "3.00", "1", "0", "0"],
        ["all", "1.50", "2.62", "3", "0", "1"],
    ]


def test_no_manifest_names_the_command(tmp_path):
    with pytest.raises(DataError, match="pipeline reorganize"):
        stats(tmp_path)


def test_sentiment_alone_has_its_own_rows(tmp_path):
    shares = [0.25, 1.0, 0.25, None]
    clips = [
        clip(f"a_{i}", "train", 2.0, "so", {}, value, share)
        for i, (value, share) in enumerate(zip([-0.5, 0.0, 3.0, 0.2], shares, strict=True))
    ]
    write_manifest(tmp_path, clips, [])
    found = stats(tmp_path)
    assert {name: row["train"] for name, row in found["table"].items()} == {
        "negative": 1, "zero": 1, "positive": 2, "all": 4,
    }  # fmt: skip
    train = found["splits"]["train"]
    assert (train["no_face_share"], train["without_face"]) == (0.5, 1)
    text = format_stats(found)
    assert "train: 1 speakers, 1 dialogues, 50.0% of an utterance's frames without a face on average, 1 " in text
    assert "no_label" not in text


PAPER_TABLE_1 = """Anger 15.96 4.51 757 112 234
Excited 16.79 4.78 736 92 213
Frustrated 17.14 4.71 1298 180 371
Happiness 13.58 4.34 398 62 135
Neutral 13.08 3.90 1214 173 321
Sadness 14.82 5.50 759 118 207"""


@pytest.fixture
def six(tmp_path):
    """As many clips of each class and split as the MESM paper's Table 1 says, of 2 s and 3 words; one sad too few."""
    emotions = ["ang", "exc", "fru", "hap", "neu", "sad"]
    clips = []
    for emotion, line in zip(emotions, PAPER_TABLE_1.splitlines(), strict=True):
        for split, count in zip(SPLITS, line.split()[3:], strict=True):
            labels = {name: float(name == emotion) for name in emotions}
            clips += [clip(f"{emotion}_{split}_{i}", split, 2.0, "a b c", labels) for i in range(int(count))]
    write_manifest(tmp_path, clips[:-1], emotions)
    facts = {
        "dataset": "iemocap",
        "split": "lists:IEMOCAP",
        "listed_ids": dict(zip(SPLITS, (5162, 737, 1481), strict=True)),
    }
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    return tmp_path


def test_the_authors_lists_stand_beside_the_papers_table(six):
    found = stats(six)
    assert "MESM paper" in found["published"]["name"]
    lines = format_stats(found).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("beside"))
    rows = {line.split()[0]: line.replace("|", " ").split()[1:] for line in lines[start + 2 :]}
    for emotion, line in zip(found["emotions"], PAPER_TABLE_1.splitlines(), strict=True):
        _, words, seconds, *counts = line.split()
        here = [str(int(count) - (emotion == "sad" and place == 2)) for place, count in enumerate(counts)]
        assert rows[emotion][:6] == [
            "3.00", words, f"{3 - float(words):+.2f}", "2.00", seconds, f"{2 - float(seconds):+.2f}"
        ]  # fmt: skip
        assert rows[emotion][6::3] == here
        assert rows[emotion][7::3] == counts
        assert rows[emotion][8::3] == ["-1" if here[place] != counts[place] else "0" for place in range(3)]
    assert rows["all"][6:] == ["5162", "5162", "0", "737", "737", "0", "1480", "1481", "-1"]


@pytest.mark.parametrize(
    "change", [{"listed_ids": {"train": 5162, "valid": 737, "test": 1480}}, {"listed_ids": {}}, {"dataset": "mosei"}]
)
def test_other_lists_or_data_stand_alone(six, change):
    path = six / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert stats(six)["published"] is None


def test_merged_labels_are_not_set_beside_single_ones(six):
    path = six / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"merged_labels": {"exc": "hap"}}))
    assert sorted(stats(six)["published"]["table"]) == ["all", "ang", "exc", "fru", "neu", "sad"]


def test_a_stand_in_is_named_and_a_damaged_file_too(six):
    path = six / "dataset.json"
    path.write_text(json.dumps({"standin": True}))
    assert "stand-in data, made by a program" in format_stats(stats(six))
    for content in ("{", "[]"):
        path.write_text(content)
        with pytest.raises(DataError, match="dataset.json"):
            stats(six)

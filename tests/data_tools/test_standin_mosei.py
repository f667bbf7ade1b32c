"""The stand-in CMU-MOSEI against the real release's layout, odd ids, transcripts and annotator tables."""

import csv
import itertools
from fractions import Fraction
from pathlib import Path

import av
import pandas as pd
import pytest
import soundfile

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
LABEL_FILES = (
    "5000_batch_raw.csv",
    "Batch_2980374_batch_results.csv",
    "extreme_sentiment_results.csv",
    "mosi_pom_output.csv",
    "mturk_extra_v2.csv",
    "pom_extra_sqa_mono_results.csv",
)


@pytest.fixture(scope="module")
def release(standin_mosei):
    return standin_mosei.folder


def transcripts(release: Path) -> dict[str, list[tuple[int, float, float, str]]]:
    found = {}
    for path in (release / "Raw" / "Transcript" / "Segmented" / "Combined").iterdir():
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines():
            video, clip, start, end, text = line.split("___", 4) if "__" not in path.stem else _split(line, path.stem)
            assert video == path.stem
            rows.append((int(clip), float(start), float(end), text))
        found[path.stem] = rows
    return found


def _split(line: str, stem: str) -> list[str]:
    assert line.startswith(f"{stem}___")
    return [stem, *line[len(stem) + 3 :].split("___", 3)]


def annotations(release: Path) -> pd.DataFrame:
    tables = []
    for name in LABEL_FILES:
        table = pd.read_csv(release / "Raw" / "Labels" / name, dtype=str, keep_default_na=False)
        tables.append(table.assign(file=name))
    return pd.concat(tables)


def test_each_video_has_its_sound_and_transcript(release):
    raw = release / "Raw"
    videos = {path.stem: path for path in (raw / "Videos" / "Full" / "Combined").glob("*.mp4")}
    assert set(videos) == set(transcripts(release))
    assert set(videos) == {path.stem for path in (raw / "Audio" / "Full" / "WAV_16000").glob("*.wav")}
    sizes, rates = set(), set()
    for name, path in videos.items():
        info = soundfile.info(str(raw / "Audio" / "Full" / "WAV_16000" / f"{name}.wav"))
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        with av.open(f"file:{path}") as container:
            video = container.streams.video[0]
            assert len(container.streams.audio) == 1
            assert float(video.duration * video.time_base) == pytest.approx(info.duration, abs=0.1)
            sizes.add((video.width, video.height))
            rates.add(video.average_rate)
    assert len(sizes) == 6
    assert rates == {Fraction(24), Fraction(25), Fraction(30), Fraction(30000, 1001)}


def test_ids_have_the_odd_shapes_of_real_ones(release):
    ids = list(transcripts(release))
    assert any(name.isdigit() for name in ids)
    assert any(name.startswith("-") for name in ids)
    assert any("__" in name for name in ids)
    assert any("_" in name and "__" not in name for name in ids)
    assert all(name.isdigit() or len(name) == 11 for name in ids)
    assert not any(name.endswith("_") for name in ids)


def test_segments_overlap_start_below_zero_and_hold_the_separator(release):
    found = transcripts(release)
    pairs = [(a, b) for rows in found.values() for a, b in itertools.pairwise(rows)]
    assert sum(b[1] < a[2] for a, b in pairs) > 0.3 * len(pairs)
    starts = [row[1] for rows in found.values() for row in rows]
    assert -0.5 < min(starts) < 0
    assert any("___" in row[3] for rows in found.values() for row in rows)
    assert all(row[2] > row[1] and row[3].strip() for rows in found.values() for row in rows)
    assert all(row[0] == number for rows in found.values() for number, row in enumerate(rows))


def test_annotator_tables_are_like_the_crowd_working_site(release):
    table = annotations(release)
    header = (release / "Raw" / "Labels" / "mturk_extra_v2.csv").read_text().splitlines()[0].split(",")
    positions = {15: "WorkerId", 27: "Input.VIDEO_ID", 28: "Input.CLIP", 29: "Answer.anger", 30: "Answer.disgust"}
    positions |= {31: "Answer.fear", 33: "Answer.happiness", 34: "Answer.sadness", 38: "Answer.sentiment"}
    positions |= {39: "Answer.surprise"}
    assert {place: header[place] for place in positions} == positions
    prefixed = table["file"] == "pom_extra_sqa_mono_results.csv"
    assert prefixed.any()
    assert table[prefixed]["Input.VIDEO_ID"].str.contains("/").all()
    assert not table[~prefixed]["Input.VIDEO_ID"].str.contains("/").any()
    assert set(table["file"]) == set(LABEL_FILES)
    for emotion in EMOTIONS:
        assert set(table[f"Answer.{emotion}"]) <= set("0123")
    assert set(table["Answer.sentiment"]) <= {str(value) for value in range(-3, 4)}
    assert (table["HITId"] != "").all()
    assert (table["WorkerId"] != "").all()


def test_three_annotators_a_clip_agree_with_the_truth_table(release):
    table = annotations(release)
    ids = table["Input.VIDEO_ID"].str.split("/").str[-1] + "_" + table["Input.CLIP"]
    assert set(ids.value_counts()) == {3}
    truth = {row["utterance_id"]: row["label"] for row in csv.DictReader((release / "STANDIN.csv").open())}
    assert set(truth) == set(ids)
    for name, rows in table.groupby(ids):
        present = [emotion for emotion in EMOTIONS if rows[f"Answer.{emotion}"].astype(int).sum() > 0]
        assert "+".join(present) == truth[name].replace("none", "")
    counts = [0 if label == "none" else label.count("+") + 1 for label in truth.values()]
    assert {0, 1, 2} == set(counts)


def test_some_clips_have_words_but_no_labels(release):
    clips = {f"{name}_{row[0]}" for name, rows in transcripts(release).items() for row in rows}
    table = annotations(release)
    labelled = set(table["Input.VIDEO_ID"].str.split("/").str[-1] + "_" + table["Input.CLIP"])
    assert labelled < clips
    assert len(clips - labelled) == len(transcripts(release)) // 2

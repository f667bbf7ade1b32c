"""`predict` in segments: a film with a face and speech at known times, its transcript, films that lack something."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch

import pipeline
import pipeline.timeline.answers as answers_module
import pipeline.timeline.files as files_module
import pipeline.timeline.plan as plan_module
import pipeline.timeline.tensors as tensors_module
from data_tools.errors import DataError
from data_tools.faces.detector import FaceDetector
from data_tools.files import write_text
from data_tools.media.audio import read_audio, write_wav
from data_tools.media.cut import Cut, cut_video
from data_tools.media.source import probe
from data_tools.media.write import write_video
from data_tools.speech.segments import Segment
from data_tools.speech.transcript import read_transcript
from pipeline.clip_tensors import FaceSettings, MelSettings, extract_features
from pipeline.predict import format_predictions, predict
from pipeline.progress import Reporter
from pipeline.settings import ConfigError
from pipeline.timeline.files import subtitles
from pipeline.timeline.tensors import Extractor

QUIET = Reporter(quiet=True)
ROOT = Path(__file__).parents[2]
SEGMENT_KEYS = ["start_s", "end_s", "text", "scores", "predicted", "absent", "no_face_share", "words", "present"]
SRT = """1
00:00:00,950 --> 00:00:03,017
Word0, <b>and</b> word0!

2
00:00:04,500 --> 00:00:07,123
word1 -> word2 & 1 < 2

3
00:00:06,000 --> 00:00:08,000
word1

4
00:10:00,000 --> 00:10:02,000
Of another film.
"""


def portraits(count, fps=10):
    portrait = cv2.resize(skimage.data.astronaut()[:240, 100:460], (180, 120))
    return (np.roll(portrait, 10 * i // (fps * 3), axis=1) for i in range(count))


@pytest.fixture(scope="module")
def film(tmp_path_factory, speech_maker):
    """(folder with film.mkv, talk.wav and film.srt, times of its sentences, its length in seconds)."""
    folder = tmp_path_factory.mktemp("films of mine")
    samples, times = speech_maker([1.0, 2.0, 3.0, 1.5, 7.0])
    write_wav(folder / "talk.wav", samples, 16_000)
    length_s = len(samples) / 16_000
    write_video(folder / "film.mkv", portraits(round(10 * length_s)), (180, 120), 10, audio=folder / "talk.wav")
    (folder / "film.srt").write_text(SRT, encoding="utf-8")
    return folder, times, length_s


@pytest.fixture(scope="module")
def answer(film, trained):
    """The answer for the film, cut by speech; not to be changed."""
    return predict(trained[0], [film[0] / "film.mkv"], None, "cpu", QUIET)


def check_schema(entry, emotions):
    assert entry["error"] is None
    json.dumps(entry, allow_nan=False)
    starts = [(segment["start_s"], segment["end_s"]) for segment in entry["segments"]]
    assert starts == sorted(starts)
    for segment in entry["segments"]:
        assert list(segment) == SEGMENT_KEYS
        assert 0 <= segment["start_s"] < segment["end_s"]
        assert set(segment["scores"]) == set(emotions)
        assert all(0 <= score <= 1 for score in segment["scores"].values())
        assert set(segment["predicted"]) <= set(emotions)
        assert segment["no_face_share"] is None or 0 <= segment["no_face_share"] <= 1
    seconds = np.array([end_s - start_s for start_s, end_s in starts])
    for name, score in entry["summary"]["scores"].items():
        each = np.array([segment["scores"][name] for segment in entry["segments"]])
        assert score == pytest.approx((each * seconds).sum() / seconds.sum(), abs=1e-6)
    assert entry["scores"] == entry["summary"]["scores"]
    assert entry["predicted"] == entry["summary"]["predicted"]
    assert entry["summary"]["scored_s"] == pytest.approx(seconds.sum(), abs=1e-2)


def test_a_film_is_cut_where_people_speak(film, answer):
    _, times, length_s = film
    (entry,) = answer["files"]
    check_schema(entry, ["ang", "hap", "sad"])
    assert entry["cut_by"] == "speech"
    assert entry["summary"]["duration_s"] == pytest.approx(length_s, abs=0.2)
    assert len(entry["segments"]) == len(times)
    for segment, (start_s, end_s) in zip(entry["segments"], times, strict=True):
        assert (segment["start_s"], segment["end_s"]) == pytest.approx((start_s, end_s), abs=0.25)
        assert segment["no_face_share"] == 0
        assert segment["text"] == ""
        assert segment["absent"] == ["no words: no transcript was given"]
    assert entry["absent"] == ["no words: no transcript was given"]
    thresholds = answer["thresholds"]
    expected = [name for name, score in entry["scores"].items() if score >= thresholds[name]]
    assert entry["predicted"] == expected


def test_people_get_a_line_a_segment(answer):
    text = format_predictions(answer)
    (entry,) = answer["files"]
    for segment in entry["segments"]:
        seconds = round(segment["start_s"], 1)
        assert f"0:{seconds:04.1f} - " in text
    assert "all segments, weighed by their seconds" in text
    assert "no words: no transcript was given" in text


def test_scores_agree_with_those_of_clips_cut_at_the_cues(film, run, tmp_path):
    folder, _, _ = film
    (entry,) = predict(run, [folder / "film.mkv"], str(folder / "film.srt"), "cpu", QUIET)["files"]
    check_schema(entry, ["ang", "hap", "sad"])
    assert entry["cut_by"] == "transcript"
    # To the millisecond, with overlaps.
    assert [(segment["start_s"], segment["end_s"]) for segment in entry["segments"]] == [
        (0.95, 3.017),
        (4.5, 7.123),
        (6.0, 8.0),
    ]
    assert [segment["text"] for segment in entry["segments"]] == [
        "Word0, and word0!",
        "word1 -> word2 & 1 < 2",
        "word1",
    ]
    assert entry["absent"] == ["1 of 4 cues lie outside of the film or have no length"]
    for number, segment in enumerate(entry["segments"]):
        start_s, end_s = segment["start_s"], segment["end_s"]
        write_wav(tmp_path / "cut.wav", read_audio(folder / "film.mkv", 16_000, start_s, end_s), 16_000)
        clip = tmp_path / f"{number}.mp4"
        (outcome,) = cut_video(folder / "film.mkv", [Cut(start_s, end_s, clip, sound=tmp_path / "cut.wav")], crf=1)
        assert outcome.failure is None
        (alone,) = predict(run, [clip], segment["text"], "cpu", QUIET, segments="whole")["files"]
        assert segment["absent"] == alone["absent"]
        assert segment["no_face_share"] == alone["segments"][0]["no_face_share"]
        for name, score in alone["scores"].items():
            assert segment["scores"][name] == pytest.approx(score, abs=0.02)


def test_tensors_are_those_of_clips(film, tmp_path):
    """As `preprocess` makes them of lossless clips, but for the wav's 16 bits."""
    folder, _, _ = film
    film_path = folder / "film.mkv"
    segments = [Segment(4.5, 7.123), Segment(0.95, 3.017), Segment(6.0, 8.0)]
    faces, mel = FaceSettings(min_face_px=30), MelSettings()
    extractor = Extractor(FaceDetector(min_face_px=30), faces, mel)
    found = dict(extractor.each(film_path, probe(film_path), segments))
    assert sorted(found) == [0, 1, 2]
    cuts = [Cut(part.start_s, part.end_s, tmp_path / f"{n}.mp4") for n, part in enumerate(segments)]
    cut_video(film_path, cuts, crf=0)
    for number, cut in enumerate(cuts):
        wav = tmp_path / f"{number}.wav"
        write_wav(wav, read_audio(film_path, 16_000, cut.start_s, cut.end_s), 16_000)
        expected = extract_features(cut.out, wav, extractor.detector, faces, mel)
        features = found[number].features
        torch.testing.assert_close(features.face_time_s, expected.face_time_s, atol=2e-3, rtol=0)
        for name in ("faces", "face_box", "face_score", "face_landmarks"):
            torch.testing.assert_close(getattr(features, name), getattr(expected, name), rtol=0, atol=1e-3)
        assert features.logmel.shape == expected.logmel.shape
        assert (features.logmel - expected.logmel).abs().float().mean() < 0.02


def test_batches_change_nothing(film, run, answer, monkeypatch):
    folder, _, _ = film
    monkeypatch.setattr(answers_module, "MAX_STEPS", 1)
    again = predict(run, [folder / "film.mkv"], None, "cpu", QUIET)["files"][0]
    for one, other in zip(again["segments"], answer["files"][0]["segments"], strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
    assert [one["start_s"] for one in again["segments"]] == [one["start_s"] for one in answer["files"][0]["segments"]]


def test_the_longest_segment_is_a_setting(film, run):
    folder, _, _ = film
    (entry,) = predict(run, [folder / "talk.wav"], None, "cpu", QUIET, segments="speech", max_segment_s=1.0)["files"]
    check_schema(entry, ["ang", "hap", "sad"])
    assert len(entry["segments"]) > 4
    assert all(segment["end_s"] - segment["start_s"] <= 1.001 for segment in entry["segments"])
    assert entry["absent"][0] == "no picture: the file has no such stream"
    assert {segment["no_face_share"] for segment in entry["segments"]} == {None}


def test_short_files_and_words_without_times_stay_whole(film, run, tmp_path):
    folder, _, _ = film
    write_wav(tmp_path / "short.wav", read_audio(folder / "talk.wav", 16_000, 0, 6), 16_000)
    (short,) = predict(run, [tmp_path / "short.wav"], None, "cpu", QUIET)["files"]
    (told,) = predict(run, [folder / "talk.wav"], "word0 and word0", "cpu", QUIET)["files"]
    for entry, end_s, text in ((short, 6.0, ""), (told, film[2], "word0 and word0")):
        check_schema(entry, ["ang", "hap", "sad"])
        assert entry["cut_by"] == "whole"
        (segment,) = entry["segments"]
        assert (segment["start_s"], segment["text"]) == (0.0, text)
        assert segment["end_s"] == pytest.approx(end_s, abs=1e-3)
        assert segment["scores"] == entry["scores"]
        assert segment["absent"] == entry["absent"]


def test_what_needs_times_refuses_words_without(film, run, tmp_path):
    folder, _, _ = film
    (tmp_path / "words.txt").write_text("word0", encoding="utf-8")
    for segments, transcript in (
        ("transcript", None),
        ("transcript", "just words"),
        ("transcript", str(tmp_path / "words.txt")),
        ("speech", "just words"),
    ):
        with pytest.raises(ConfigError, match=f"--segments {segments} .*times"):
            predict(run, [folder / "film.mkv"], transcript, "cpu", QUIET, segments=segments)


def test_words_with_times_are_given_to_utterances_of_speech(film, run):
    folder, times, _ = film
    path = str(folder / "film.srt")
    (entry,) = predict(run, [folder / "film.mkv"], path, "cpu", QUIET, segments="speech")["files"]
    assert len(entry["segments"]) == len(times)
    assert entry["segments"][0]["text"] == "Word0, and word0!"


def test_a_film_without_speech_is_cut_by_time(run, tmp_path):
    write_wav(tmp_path / "silence.wav", np.zeros(16_000 * 22, np.float32), 16_000)
    write_video(tmp_path / "silent.mkv", portraits(220), (180, 120), 10, audio=tmp_path / "silence.wav")
    write_video(tmp_path / "mute.mkv", portraits(220), (180, 120), 10)
    result = predict(
        run, [tmp_path / f"{name}" for name in ("silent.mkv", "mute.mkv", "silence.wav")], None, "cpu", QUIET
    )
    silent, mute, sound = result["files"]
    for entry in (silent, mute):
        check_schema(entry, ["ang", "hap", "sad"])
        assert entry["cut_by"] == "time"
        assert [(part["start_s"], part["end_s"]) for part in entry["segments"]] == [
            (0.0, pytest.approx(11, abs=0.1)),
            (pytest.approx(11, abs=0.1), pytest.approx(22, abs=0.2)),
        ]
        assert any("no speech" in reason for reason in entry["absent"])
    assert "no sound: the file has no such stream" in mute["absent"]
    assert any("dBFS" in reason for reason in silent["absent"])
    assert "no speech was found" in sound["error"]
    assert "--segments whole" in sound["error"]


def test_a_transcript_of_another_film_is_an_error(film, run, tmp_path):
    folder, _, _ = film
    (tmp_path / "other.srt").write_text("1\n01:00:00,000 --> 01:00:01,000\nHello.\n", encoding="utf-8")
    (entry,) = predict(run, [folder / "film.mkv"], str(tmp_path / "other.srt"), "cpu", QUIET)["files"]
    assert "no cue of the transcript lies in" in entry["error"]
    many = "".join(f"00:00:00,{number:03} --> 00:00:23,500\nwords {number}\n\n" for number in range(8))
    (tmp_path / "other.srt").write_text(many, encoding="utf-8")
    (entry,) = predict(run, [folder / "film.mkv"], str(tmp_path / "other.srt"), "cpu", QUIET)["files"]
    assert "last 188 s in all" in entry["error"]


def test_segments_before_the_damage_have_their_pictures(film, run, tmp_path):
    folder, _, _ = film
    content = bytearray((folder / "film.mkv").read_bytes())
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    (entry,) = predict(run, [tmp_path / "cut.mkv"], str(folder / "film.srt"), "cpu", QUIET)["files"]
    assert entry["error"] is None
    assert entry["segments"][0]["no_face_share"] == 0


def read_out(folder, name):
    """Times and words of each file of `--out`, as other programs read them."""
    entry = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with (folder / f"{name}.segments.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return entry, rows, *(read_transcript(folder / f"{name}{ending}") for ending in (".srt", ".vtt"))


def test_files_of_a_film_are_read_again(film, run, tmp_path):
    folder, _, _ = film
    out = tmp_path / "an out folder"
    result = predict(run, [folder / "film.mkv"], str(folder / "film.srt"), "cpu", QUIET, out=out)
    (answer,) = result["files"]
    written = [
        "film.eaf",
        "film.html",
        "film.json",
        "film.page.mp4",
        "film.segments.csv",
        "film.srt",
        "film.vtt",
    ]
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == written
    assert sorted(answer["written"]) == [str(out / name) for name in written]
    entry, rows, srt, vtt = read_out(out, "film")
    for key in ("scores", "predicted", "absent", "segments", "summary"):
        assert entry[key] == answer[key]
    assert entry["thresholds"] == result["thresholds"]
    assert len(rows) == len(srt) == len(vtt) == 3
    for segment, row, first, second in zip(answer["segments"], rows, srt, vtt, strict=True):
        for cue in (first, second):
            assert (cue.start_s, cue.end_s) == pytest.approx((segment["start_s"], segment["end_s"]), abs=1e-9)
            words, _, emotions = cue.text.rpartition(" [")
            assert words == segment["text"].replace("-->", "->")
            named = [part.split() for part in emotions.rstrip("]").split(", ")]
            if segment["predicted"]:
                assert {name: float(score) for name, score in named} == pytest.approx(
                    {name: segment["scores"][name] for name in segment["predicted"]}, abs=6e-4
                )
            else:
                assert named == [["none"]]
        assert (float(row["start_s"]), float(row["end_s"])) == (segment["start_s"], segment["end_s"])
        assert row["text"] == segment["text"]
        assert row["predicted"].split() == segment["predicted"]
        assert {name: float(row[f"score_{name}"]) for name in segment["scores"]} == segment["scores"]
        assert float(row["no_face_share"]) == segment["no_face_share"]


def test_hostile_words_stay_words():
    said = 'A --> B & <v x> "q"\n\n00:00:01.000 --> 00:00:02.000\nfake'
    part = {"start_s": 3661.0014, "end_s": 3662.0, "text": said, "scores": {"hap": 0.5}, "predicted": []}
    vtt = subtitles([part], "multi-label", ".vtt")
    assert vtt.splitlines()[2] == "01:01:01.001 --> 01:01:02.000"
    assert vtt.count("-->") == 1
    assert "&lt;v x&gt;" in vtt
    srt = subtitles([part], "multi-label", ".srt")
    assert srt.count("-->") == 1
    part["scores"] = {"sentiment": -0.25}
    assert subtitles([part], "sentiment", ".vtt").splitlines()[-1] == "[sentiment -0.250]"


def test_two_films_of_one_name_have_files_of_their_own(film, run, tmp_path):
    folder, _, _ = film
    for place, end_s in (("a", 2), ("b", 3), ("c", 4)):
        write_wav(tmp_path / place / "Film.wav", read_audio(folder / "talk.wav", 16_000, 0, end_s), 16_000)
    files = [tmp_path / place / "Film.wav" for place in "ab"]
    predict(run, files, None, "cpu", QUIET, out=tmp_path / "out")
    predict(run, [tmp_path / "c" / "Film.wav"], None, "cpu", QUIET, out=tmp_path / "out")
    for name, end_s, place in (("Film", 2, "a"), ("Film-2", 3, "b"), ("Film-3", 4, "c")):
        entry, rows, *_ = read_out(tmp_path / "out", name)
        assert entry["summary"]["duration_s"] == end_s
        assert Path(entry["source"]) == (tmp_path / place / "Film.wav").resolve()
        assert len(rows) == 1


def test_what_is_done_is_not_done_again(film, run, tmp_path, monkeypatch):
    folder, _, _ = film
    first = predict(run, [folder / "film.mkv"], None, "cpu", QUIET, out=tmp_path)
    scored = []
    module = sys.modules["pipeline.predict"]
    monkeypatch.setattr(module, "predict_file", lambda *given: scored.append(given) or iter(()))
    again = predict(run, [folder / "film.mkv"], None, "cpu", QUIET, out=tmp_path)
    assert again == first
    for change in ({"max_segment_s": 3.0}, {"segments": "whole"}):
        with pytest.raises(AssertionError):
            predict(run, [folder / "film.mkv"], None, "cpu", QUIET, out=tmp_path, **change)
    (tmp_path / "film.vtt").unlink()
    with pytest.raises(AssertionError):
        predict(run, [folder / "film.mkv"], None, "cpu", QUIET, out=tmp_path)
    assert len(scored) == 3


def test_an_error_leaves_no_files_and_an_unwritable_folder_is_named(film, run, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    (entry,) = predict(run, [tmp_path / "bad.mp4"], None, "cpu", QUIET, out=tmp_path / "out")["files"]
    assert "bad.mp4" in entry["error"]
    assert entry["written"] == []
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock"] == []
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(DataError, match="cannot write"):
        predict(run, [film[0] / "film.mkv"], None, "cpu", QUIET, out=tmp_path / "file" / "out")


def test_the_python_function_takes_the_same(film, run):
    result = pipeline.predict(run=run, files=[film[0] / "talk.wav"], segments="speech", max_segment_s=5, quiet=True)
    assert result["files"][0]["cut_by"] == "speech"
    with pytest.raises(ConfigError, match="segments is 'sentences'"):
        pipeline.predict(run=run, files=[film[0] / "talk.wav"], segments="sentences", quiet=True)


def test_speech_before_the_damage_of_a_sound_is_found(film, run, monkeypatch):
    folder, times, _ = film
    real = plan_module.read_intervals

    def breaks(path, intervals):
        yield next(real(path, [(0.0, 9.0)]))
        raise DataError("the sound is damaged here")

    monkeypatch.setattr(plan_module, "read_intervals", breaks)
    (entry,) = predict(run, [folder / "film.mkv"], None, "cpu", QUIET)["files"]
    assert entry["error"] is None
    assert len(entry["segments"]) == sum(end_s < 9 for _, end_s in times)
    assert "nothing was looked for after 9 s: the sound is damaged here" in entry["absent"]

    def broken(path, intervals):
        raise DataError("nothing can be decoded")
        yield

    monkeypatch.setattr(plan_module, "read_intervals", broken)
    video, sound = predict(run, [folder / "film.mkv", folder / "talk.wav"], None, "cpu", QUIET)["files"]
    assert video["cut_by"] == "time"
    assert any("nothing can be decoded" in reason for reason in video["absent"])
    assert "nothing can be decoded" in sound["error"]


def test_a_sound_that_breaks_off_while_segments_are_scored_leaves_the_pictures(film, run, monkeypatch):
    folder = film[0]
    real = tensors_module.read_intervals

    def breaks(path, intervals):
        yield from real(path, intervals[:2])
        raise DataError("the sound is damaged here")

    monkeypatch.setattr(tensors_module, "read_intervals", breaks)
    (entry,) = predict(run, [folder / "film.mkv"], None, "cpu", QUIET)["files"]
    lacks_sound = ["no sound: the sound is damaged here" in segment["absent"] for segment in entry["segments"]]
    assert lacks_sound == [False, False, True, True]


def test_names_and_words_of_any_bytes(film, run, tmp_path):
    name = tmp_path / os.fsdecode(b"caf\xe9 \xf0\x9f\x8e\xac.wav")
    try:
        shutil.copy(film[0] / "talk.wav", name)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    words = tmp_path / "words.json"
    words.write_text(r'[{"text": "half \ud83d of it", "start": 1.0, "end": 2.5}]', encoding="utf-8")
    for _ in range(2):  # the second time as a finished one
        (entry,) = predict(run, [name], str(words), "cpu", QUIET, out=tmp_path / "out")["files"]
        assert entry["segments"][0]["text"] == "half ? of it"
    made = [path for path in (tmp_path / "out").iterdir() if path.name != ".lock"]
    assert len(made) == 7
    (written,) = (path for path in made if path.suffix == ".json")
    assert json.loads(written.read_text(encoding="utf-8"))["segments"] == entry["segments"]


def test_a_film_that_is_gone_is_an_error_and_keeps_its_files(film, run, tmp_path):
    write_wav(tmp_path / "a.wav", read_audio(film[0] / "talk.wav", 16_000, 0, 2), 16_000)
    predict(run, [tmp_path / "a.wav"], None, "cpu", QUIET, out=tmp_path / "out")
    (tmp_path / "a.wav").unlink()
    (entry,) = predict(run, [tmp_path / "a.wav"], None, "cpu", QUIET, out=tmp_path / "out")["files"]
    assert "no media file" in entry["error"]
    assert (tmp_path / "out" / "a.json").is_file()


def test_other_files_are_not_written_over(film, run, tmp_path):
    """Such as the film's own subtitles, where the folder is that of the film."""
    write_wav(tmp_path / "a.wav", read_audio(film[0] / "talk.wav", 16_000, 0, 2), 16_000)
    taken = [("a.json", '{"mine": 1}'), ("a.json", "[1, 2"), ("a.json", "[1]"), ("a.srt", SRT), ("a.segments.csv", "")]
    for number, (name, content) in enumerate(taken):
        out = tmp_path / f"out{number}"
        out.mkdir()
        (out / name).write_text(content, encoding="utf-8")
        (entry,) = predict(run, [tmp_path / "a.wav"], None, "cpu", QUIET, out=out)["files"]
        assert (out / name).read_text(encoding="utf-8") == content
        assert str(out / "a-2.json") in entry["written"]


def test_a_film_that_was_stopped_while_it_was_written_keeps_its_name(film, run, tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", read_audio(film[0] / "talk.wav", 16_000, 0, 2), 16_000)
    calls = []

    def stops(path, text):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write_text(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(files_module, "write_text", stops)
        with pytest.raises(KeyboardInterrupt):
            predict(run, [tmp_path / "a.wav"], None, "cpu", QUIET, out=tmp_path / "out")
    (entry,) = predict(run, [tmp_path / "a.wav"], None, "cpu", QUIET, out=tmp_path / "out")["files"]
    assert str(tmp_path / "out" / "a.json") in entry["written"]
    assert all(Path(path).is_file() for path in entry["written"])


PEAK = """
import sys
import pipeline
from data_tools.processes import resident_peak
(entry,) = pipeline.predict(run=sys.argv[1], files=[sys.argv[2]], quiet=True)["files"]
print(len(entry["segments"]), resident_peak())
"""


@pytest.mark.slow
def test_half_an_hour_takes_no_more_memory_than_a_minute(run, speech_maker, tmp_path):
    """Half an hour of pictures and sound, 110 MB as float32 samples and some GB as pictures."""
    minute = speech_maker([0.5, *[0.7, 1.5, 0.6, 2.0] * 5])[0][: 16_000 * 60]
    found = {}
    for minutes in (1, 30):
        write_wav(tmp_path / "sound.wav", np.tile(minute, minutes), 16_000)
        film = tmp_path / f"{minutes}.mkv"
        write_video(film, portraits(240 * minutes, fps=4), (180, 120), 4, audio=tmp_path / "sound.wav")
        done = subprocess.run(
            [sys.executable, "-c", PEAK, run, film], check=True, capture_output=True, text=True, cwd=ROOT
        )
        found[minutes] = [int(word) for word in done.stdout.split()]
    assert found[30][0] == pytest.approx(30 * found[1][0], rel=0.1)
    assert found[30][1] < 1.15 * found[1][1]

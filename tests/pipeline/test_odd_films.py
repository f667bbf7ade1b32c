"""`predict` on films that have hardly anything in them, or have lost something in the middle, and on very long ones."""

import cv2
import numpy as np
import skimage.data

from data_tools.media.audio import write_wav
from data_tools.media.source import MAX_DURATION_S
from data_tools.media.write import write_video
from pipeline.predict import predict
from pipeline.progress import Reporter

QUIET = Reporter(quiet=True)
SIZE = (180, 120)


def portraits(count):
    portrait = cv2.resize(skimage.data.astronaut()[:240, 100:460], SIZE)
    return (np.roll(portrait, number // 3, axis=1) for number in range(count))


def answer(run, path, transcript=None):
    (entry,) = predict(run, [path], transcript, "cpu", QUIET, asr="none")["files"]
    return entry


def test_a_film_of_one_frame_is_an_utterance(run, tmp_path, speech_maker):
    samples, _ = speech_maker([0.2, 0.3])
    write_wav(tmp_path / "talk.wav", samples)
    write_video(tmp_path / "mute.mp4", portraits(1), SIZE, 25)
    write_video(tmp_path / "heard.mkv", portraits(1), SIZE, 25, audio=tmp_path / "talk.wav")
    for name, lack in (("mute.mp4", "no sound: the file has no such stream"), ("heard.mkv", "no picture after 0.50 s")):
        entry = answer(run, tmp_path / name)
        assert entry["error"] is None
        assert (entry["cut_by"], len(entry["segments"])) == ("whole", 1)
        assert entry["segments"][0]["no_face_share"] == 0
        assert any(lack in reason for reason in entry["absent"])


def test_music_is_no_speech(run, tmp_path):
    """A tune of three voices with overtones and a beat, over a film: it is cut by time, not into utterances."""
    seconds = np.arange(16_000 * 24) / 16_000
    notes = 220 * 2 ** (np.array([0, 4, 7, 12, 7, 4, 5, 9])[(seconds / 0.4).astype(int) % 8] / 12)
    fades = np.exp(-3 * (seconds % 0.4))
    tune = sum(fades * np.sin(2 * np.pi * notes * over * seconds) / over for over in (1, 1.5, 2, 3))
    beat = (seconds % 0.8 < 0.05) * np.random.default_rng(0).normal(0, 0.5, len(seconds))
    write_wav(tmp_path / "tune.wav", (0.15 * (tune + beat)).astype(np.float32))
    write_video(tmp_path / "film.mkv", portraits(240), SIZE, 10, audio=tmp_path / "tune.wav")
    entry = answer(run, tmp_path / "film.mkv")
    assert entry["cut_by"] == "time"
    assert any("nobody speaks" in reason for reason in entry["absent"])


def test_damage_in_the_middle_costs_the_middle(run, tmp_path, speech_maker):
    """Three seconds' worth of bytes overwritten: the utterances before and after them keep picture and sound."""
    samples, times = speech_maker([1.0, *[1.5] * 8])
    write_wav(tmp_path / "talk.wav", samples)
    write_video(tmp_path / "film.mkv", portraits(len(samples) // 1600), SIZE, 10, audio=tmp_path / "talk.wav")
    whole = answer(run, tmp_path / "film.mkv")
    content = bytearray((tmp_path / "film.mkv").read_bytes())
    length_s = len(samples) / 16_000
    first, last = (round(len(content) * (0.5 + shift_s / length_s)) for shift_s in (-1.5, 1.5))
    content[first:last] = np.random.default_rng(0).bytes(last - first)
    (tmp_path / "film.mkv").write_bytes(content)
    entry = answer(run, tmp_path / "film.mkv")
    assert entry["error"] is None

    def of(found, start_s):
        return [s for s in found["segments"] if abs(s["start_s"] - start_s) < 0.3]

    for start_s, _ in (times[0], times[-1]):
        (before,), (after,) = of(whole, start_s), of(entry, start_s)
        assert after["no_face_share"] == before["no_face_share"] == 0
        assert after["absent"] == before["absent"]


def test_the_end_of_four_hours_is_reached(run, tmp_path):
    """A picture a minute; and a second more than the limit is refused by what the header says."""
    for name, count in (("film.mkv", 240), ("longer.mkv", 242)):
        write_video(tmp_path / name, portraits(count), SIZE, 1 / 60)
    cue = "1\n03:58:50,000 --> 03:59:30,000\nword0\n"
    (tmp_path / "film.srt").write_text(cue, encoding="utf-8")
    entry = answer(run, tmp_path / "film.mkv", str(tmp_path / "film.srt"))
    assert entry["error"] is None
    (segment,) = entry["segments"]
    assert (segment["start_s"], segment["end_s"]) == (14_330.0, 14_370.0)
    assert segment["no_face_share"] == 0
    longer = answer(run, tmp_path / "longer.mkv", str(tmp_path / "film.srt"))
    assert f"the limit is {MAX_DURATION_S:.0f} s" in longer["error"]

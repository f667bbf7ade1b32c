"""One clock for picture and sound: a film whose every frame shows its number and whose pitch tells the second."""

import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools import mel
from data_tools.clips import make_clips
from data_tools.errors import DataError
from data_tools.faces.crop import crop_faces
from data_tools.faces.detector import Candidates
from data_tools.media.audio import audio_duration_s, read_audio, write_wav
from data_tools.media.cut import Cut, cut_video
from data_tools.media.frames import read_frames
from data_tools.media.write import ffmpeg_exe, write_video
from data_tools.receipts import ClipSettings, Dialogue
from data_tools.records import Utterance
from pipeline.clip_tensors import FaceSettings, MelSettings, extract_features

FPS = 25
FRAME_S = 1 / FPS
LENGTH_S = 12.0
RATE_HZ = 16_000
# The pitch at second t is LOW_HZ + RISE_HZ * t.
LOW_HZ, RISE_HZ = 300.0, 400.0
SOUND_SLACK_S = 0.025
PICTURE_SLACK_S = FRAME_S + 0.001
WINDOW_S = 0.04

VP8 = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "16", "-b:v", "2M"]
# Container -> how the film is put into it.
CODECS = {
    "mp4": ["-c:v", "copy", "-c:a", "aac"],
    "mov": ["-c:v", "copy", "-c:a", "aac"],
    "mkv": ["-c:v", "copy", "-c:a", "flac"],
    "webm": ["-c:v", "copy", "-c:a", "libopus"],
    # Without an encoder's delay, which these two cannot tell a player to skip: picture and sound would both move.
    "ts": ["-c:v", "copy", "-c:a", "s302m", "-strict", "-2", "-ar", "48000", "-ac", "2"],
    "flv": ["-c:v", "copy", "-c:a", "pcm_s16le", "-ar", "44100"],
    "avi": ["-c:v", "mpeg4", "-q:v", "2", "-c:a", "pcm_s16le"],
}


def picture(number):
    """Nine black or white squares in the middle of (96, 160): the bits of the number. A crop of the centre has them."""
    frame = np.full((96, 160, 3), 128, np.uint8)
    for bit in range(9):
        row, column = divmod(bit, 3)
        frame[row * 32 : row * 32 + 32, 32 + column * 32 : 64 + column * 32] = 255 if number >> bit & 1 else 0
    return frame


def second_of_picture(frame):
    """The second that a picture shows, (H, W, 3) with the nine squares filling its middle square."""
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    at = [round((k + 0.5) * side / 3) for k in range(3)]
    bits = [frame[top + at[bit // 3], left + at[bit % 3]].mean() > 128 for bit in range(9)]
    return sum(int(bit) << place for place, bit in enumerate(bits)) / FPS


def pitch_film(seconds):
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.5 * np.sin(2 * np.pi * (LOW_HZ * t + RISE_HZ * t**2 / 2))).astype(np.float32)


def second_of_sound(samples, at_s):
    """The second that one hears at `at_s`; NaN in silence."""
    middle, half = round(at_s * RATE_HZ), round(WINDOW_S * RATE_HZ / 2)
    piece = samples[max(0, middle - half) : middle + half]
    if len(piece) < half or np.abs(piece).max() < 0.01:
        return math.nan
    power = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1 << 15))
    return float((power.argmax() * RATE_HZ / (1 << 15) - LOW_HZ) / RISE_HZ)


def run_ffmpeg(*arguments):
    command = [ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """12 s, 25 frames a second, without loss, in a Matroska file: a frame in four can be decoded alone."""
    folder = tmp_path_factory.mktemp("film")
    write_wav(folder / "a.wav", pitch_film(LENGTH_S))
    write_video(folder / "picture.mp4", (picture(n) for n in range(round(LENGTH_S * FPS))), (160, 96), FPS)
    options = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "10", "-g", "25", "-bf", "2", "-c:a", "flac"]
    run_ffmpeg("-i", folder / "picture.mp4", "-i", folder / "a.wav", *options, folder / "film.mkv")
    # Encoded here once; the tests copy it.
    run_ffmpeg("-i", folder / "film.mkv", "-an", *VP8, folder / "film.webm")
    return folder / "film.mkv"


def inputs(film, kind, picture_late_s=0.0, sound_late_s=0.0):
    """Options that take the picture of the film, coded for this container, and its sound."""
    picture_film = film.with_suffix(".webm") if kind == "webm" else film
    files = ["-itsoffset", picture_late_s, "-i", picture_film, "-itsoffset", sound_late_s, "-i", film]
    return [*files, "-map", "0:v", "-map", "1:a"]


def check_picture(found, expected_s, what):
    """found: (seconds on the clock, second shown). expected_s: of the clock -> the second that should show."""
    assert found, what
    for at_s, shown_s in found:
        assert abs(shown_s - expected_s(at_s)) <= PICTURE_SLACK_S, (what, at_s, shown_s, expected_s(at_s))


def check_sound(samples, expected_s, at, what):
    """expected_s: of the clock -> the second that should be heard, NaN for silence."""
    for at_s in at:
        heard_s, wanted_s = second_of_sound(samples, at_s), expected_s(at_s)
        if math.isnan(wanted_s):
            assert math.isnan(heard_s), (what, at_s, heard_s)
        else:
            assert abs(heard_s - wanted_s) <= SOUND_SLACK_S, (what, at_s, heard_s, wanted_s)


def check_every_way(path, tmp_path, shown_s, heard_s, at=(0.6, 3.1, 5.0, 8.5, 9.5, 10.5), whole=True):
    """Ask every way of reading for the same seconds: frames, crops, sound, clips of intervals and of the whole file."""
    frames = list(read_frames(path, 500))
    check_picture([(at_s, second_of_picture(frame)) for at_s, frame in frames], shown_s, "frames")
    crops = crop_faces([frame for _, frame in frames], NoFaces()).crops
    check_picture(
        [(at_s, second_of_picture(crop)) for (at_s, _), crop in zip(frames, crops, strict=True)], shown_s, "crops"
    )
    check_sound(read_audio(path), heard_s, at, "sound")
    check_sample(path, shown_s, heard_s, at)
    assert abs(audio_duration_s(path) - len(read_audio(path)) / RATE_HZ) < 0.01
    for middle_s in at:
        if not math.isnan(heard_s(middle_s)):
            piece = read_audio(path, start_s=middle_s - 0.1, end_s=middle_s + 0.1)
            assert abs(second_of_sound(piece, 0.1) - heard_s(middle_s)) <= SOUND_SLACK_S
    intervals = [(2.03, 3.57), (8.1, 9.9)] + ([(0.0, math.inf)] if whole else [])
    for (start_s, _), clip in zip(intervals, cut(path, tmp_path, intervals), strict=True):
        check_clip(clip, start_s, shown_s, heard_s, at)


def check_sample(path, shown_s, heard_s, at):
    """The tensors that `preprocess` stores, `predict` reads and `extract` starts from."""
    sample = extract_features(path, path, NoFaces(), FaceSettings(), MelSettings())
    found = zip(sample.face_time_s.tolist(), sample.faces.numpy(), strict=True)
    check_picture([(at_s, second_of_picture(crop)) for at_s, crop in found], shown_s, "sample")
    plain = mel.log_mel(torch.from_numpy(pitch_film(LENGTH_S)), MelSettings().n_fft)
    for at_s in at:
        if not math.isnan(heard_s(at_s)):
            row, wanted = (round(t * RATE_HZ / mel.HOP_SAMPLES) for t in (at_s, heard_s(at_s)))
            # Three bands are a tenth of a second or less from 3 s on.
            assert abs(int(sample.logmel[row].argmax()) - int(plain[wanted].argmax())) <= 3


def check_clip(clip, start_s, shown_s, heard_s, at):
    """The clip as this project reads it, and as ffmpeg alone does."""
    found = [(start_s + at_s, second_of_picture(frame)) for at_s, frame in read_frames(clip, 500)]
    check_picture(found, shown_s, f"frames of a clip from {start_s} s")
    wav = read_audio(clip.with_suffix(".wav"))
    end_s = len(wav) / RATE_HZ
    inside = [t - start_s for t in at if 0.1 < t - start_s < end_s - 0.1]
    for samples in (wav, read_audio(clip), decoded_by_ffmpeg(clip)):
        check_sound(samples, lambda at_s: heard_s(at_s + start_s), inside, f"sound of a clip from {start_s} s")


def decoded_by_ffmpeg(path):
    command = [ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-i", str(path), "-af", "aresample=async=1:first_pts=0"]
    command += ["-ar", str(RATE_HZ), "-ac", "1", "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32)


class NoFaces:
    """Detector that finds nobody: the crop is the middle of the picture then."""

    def detect(self, frames):
        return [Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2))) for _ in frames]


def utterances_of(path, intervals, **more):
    return tuple(
        Utterance(
            f"u{number}", "d", "s", "", start_s, end_s, "", {"happy": 1.0}, None, path.name, path.name,
            audio_is_cut=False, **more,
        )
        for number, (start_s, end_s) in enumerate(intervals)
    )  # fmt: skip


def outcome_of(path, tmp_path, intervals, **more):
    dialogue = Dialogue(
        path.parent, tmp_path / f"data-{path.stem}", utterances_of(path, intervals, **more), ClipSettings(18, 0.1, 60.0)
    )
    return dialogue, make_clips(dialogue)


def cut(path, tmp_path, intervals, **more):
    dialogue, result = outcome_of(path, tmp_path, intervals, **more)
    assert not result.rejects
    return [dialogue.clip(utterance) for utterance in dialogue.utterances]


def same(at_s):
    return at_s


@pytest.mark.parametrize("kind", CODECS)
def test_a_plain_film(film, tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    run_ffmpeg(*inputs(film, kind), *CODECS[kind], path)
    check_every_way(path, tmp_path, same, same)


@pytest.mark.parametrize("kind", ["mp4", "webm", "ts"])
def test_a_hole_in_the_sound_is_silent(film, tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    run_ffmpeg(*inputs(film, kind), "-af", "aselect='not(between(t,4,6))'", *CODECS[kind], path)
    check_every_way(path, tmp_path, same, lambda at_s: math.nan if 4.1 < at_s < 5.9 else at_s)


@pytest.mark.parametrize(("kind", "factor"), [("mp4", 1.02), ("mkv", 1.02), ("mkv", 0.98), ("ts", 0.98)])
def test_a_clock_that_drifts_is_followed(film, tmp_path, kind, factor):
    path = tmp_path / f"a.{kind}"
    run_ffmpeg("-i", film, *CODECS[kind], "-bsf:a", f"setts=ts=TS*{factor}", path)

    # Sound that is played slower is lower too.
    def heard_s(at_s):
        return ((LOW_HZ + RISE_HZ * at_s / factor) / factor - LOW_HZ) / RISE_HZ

    check_every_way(path, tmp_path, same, heard_s, at=(3.1, 5.0, 8.5, 9.5))


@pytest.mark.parametrize(("kind", "late_s"), [("mp4", 0.32), ("mov", 1.01), ("mkv", 0.32), ("ts", 1.01), ("flv", 0.32)])
def test_a_picture_that_begins_late(film, tmp_path, kind, late_s):
    path = tmp_path / f"a.{kind}"
    run_ffmpeg(*inputs(film, kind, picture_late_s=late_s), *CODECS[kind], path)
    check_every_way(path, tmp_path, lambda at_s: at_s - late_s, same)
    ((first_s, _), *_) = read_frames(path, 500)
    assert first_s == pytest.approx(late_s, abs=FRAME_S)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_sound_that_begins_late(film, tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    run_ffmpeg(*inputs(film, kind, sound_late_s=0.7), *CODECS[kind], path)
    check_every_way(path, tmp_path, same, lambda at_s: math.nan if at_s < 0.69 else at_s - 0.7)


@pytest.mark.parametrize("kind", ["mp4", "mov"])
def test_an_edit_list_that_skips_the_beginning(film, tmp_path, kind):
    run_ffmpeg("-i", film, *CODECS[kind], tmp_path / f"whole.{kind}")
    path = tmp_path / f"a.{kind}"
    run_ffmpeg("-ss", 1.3, "-i", tmp_path / f"whole.{kind}", "-c", "copy", path)
    # Copied packets begin with the group's first picture; the edit list hides those before 1.3 s.
    check_every_way(path, tmp_path, lambda at_s: at_s + 1.3, lambda at_s: at_s + 1.3, at=(0.6, 3.1, 8.5, 9.5))


def test_streams_that_begin_before_zero(film, tmp_path):
    path = tmp_path / "a.mp4"
    run_ffmpeg("-itsoffset", -0.5, "-i", film, *CODECS["mp4"], "-avoid_negative_ts", "disabled", path)
    # The edit list hides what lies before zero.
    check_every_way(path, tmp_path, lambda at_s: at_s + 0.5, lambda at_s: at_s + 0.5, at=(0.6, 3.1, 8.5))


@pytest.mark.parametrize("second_begins_s", [0, 5, 40])
def test_recordings_that_were_glued_together_are_joined(film, tmp_path, second_begins_s):
    """The second one's clock begins anew, within the first one's, or far ahead of it."""
    for number, start_s in enumerate((0, 6)):
        part = tmp_path / f"p{number}.ts"
        run_ffmpeg("-ss", start_s, "-i", film, "-t", 6, *CODECS["ts"], "-c:v", "libx264", "-g", "25",
                   "-output_ts_offset", number * second_begins_s, part)  # fmt: skip
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join((tmp_path / f"p{number}.ts").read_bytes() for number in range(2)))

    frames = list(read_frames(path, 500))
    assert len(frames) == 24
    check_picture([(at_s, second_of_picture(frame)) for at_s, frame in frames], same, "frames")
    samples = read_audio(path)
    assert len(samples) / RATE_HZ == pytest.approx(LENGTH_S, abs=0.1)
    for at_s in (1.0, 5.0, 7.0, 11.0):
        assert second_of_sound(samples, at_s) == pytest.approx(at_s, abs=FRAME_S + 0.02)
    (clip,) = cut(path, tmp_path, [(7.0, 9.0)])
    check_clip(clip, 7.0, same, same, [8.0])


def test_of_two_streams_the_default_one_is_taken(film, tmp_path):
    path = tmp_path / "a.mkv"
    write_wav(tmp_path / "other.wav", 0.5 * np.sin(np.arange(RATE_HZ * 12) * 0.1).astype(np.float32))
    write_video(tmp_path / "other.mp4", (picture(0) for _ in range(300)), (160, 96), FPS)
    inputs = ["-i", tmp_path / "other.mp4", "-i", tmp_path / "other.wav", "-i", film]
    maps = ["-map", "0:v", "-map", "2:v", "-map", "1:a", "-map", "2:a"]
    flags = ["-disposition:v:0", "0", "-disposition:v:1", "default", "-disposition:a:0", "0"]
    flags += ["-disposition:a:1", "default"]
    run_ffmpeg(*inputs, *maps, "-c:v", "copy", "-c:a", "flac", *flags, path)
    check_every_way(path, tmp_path, same, same)
    # A number says otherwise.
    hz = 0.1 * RATE_HZ / (2 * np.pi)
    for stream, expected_s in ((0, (hz - LOW_HZ) / RISE_HZ), (1, 3.0)):
        assert second_of_sound(read_audio(path, stream=stream), 3.0) == pytest.approx(expected_s, abs=0.02)
        (clip,) = cut(path, tmp_path / str(stream), [(2.0, 4.0)], audio_stream=stream)
        heard_s = second_of_sound(read_audio(clip.with_suffix(".wav")), 1.0)
        assert heard_s == pytest.approx(expected_s, abs=0.02)
    with pytest.raises(DataError, match="no audio stream 2 that can be decoded: its audio streams are 0 to 1"):
        read_audio(path, stream=2)
    _, result = outcome_of(path, tmp_path / "none", [(2.0, 4.0)], audio_stream=2)
    assert [reject.reason for reject in result.rejects] == ["video:unreadable"]


def test_a_named_interval_without_a_picture_is_rejected(film, tmp_path):
    path = tmp_path / "a.mkv"
    run_ffmpeg("-itsoffset", 1.01, "-i", film, "-i", film, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    (outcome,) = cut_video(path, [Cut(0.0, 3.0, tmp_path / "c.mp4")], 18)
    assert outcome.failure == "interval:outside"
    assert "no picture until 1.01 s" in outcome.detail


def test_much_more_picture_than_sound_is_noted(film, tmp_path):
    path = Path(tmp_path / "a.mp4")
    run_ffmpeg("-i", film, "-t", 7, "-i", film, "-map", "0:v", "-map", "1:a", *CODECS["mp4"], path)
    _, result = outcome_of(path, tmp_path, [(0.0, math.inf)])
    assert not result.rejects
    (note,) = result.notes
    assert note.startswith("a.mp4: its pictures last 12.00 s, its sound 7.0")


def test_a_header_that_states_another_length_is_noted(film, tmp_path):
    path = tmp_path / "a.mkv"
    run_ffmpeg(*inputs(film, "mkv"), *CODECS["mkv"], path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    _, result = outcome_of(path, tmp_path, [(0.0, math.inf)])
    assert not result.rejects
    (note,) = result.notes
    assert note.startswith("a.mkv: its header states 12.00 s, it holds ")
    assert float(note.split()[-2]) == pytest.approx(8.0, abs=1.5)

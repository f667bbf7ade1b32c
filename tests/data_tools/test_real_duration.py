"""Intervals are held against what a file really holds, in pictures and in sound, whatever its header claims."""

import math
import struct
import subprocess

import numpy as np
import pytest

from data_tools.clips import make_clips
from data_tools.media.audio import audio_duration_s, read_audio, write_wav
from data_tools.media.frames import read_frames
from data_tools.media.source import probe
from data_tools.media.write import ffmpeg_exe, write_video
from data_tools.receipts import ClipSettings, Dialogue
from data_tools.records import Utterance

FPS = 25
RATE = 16_000


def pictures(seconds):
    grain = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return (np.roll(grain, 3 * i, axis=1) for i in range(round(seconds * FPS)))


def sound(seconds):
    return np.random.default_rng(1).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def cut(root, intervals, video="v.mp4", audio="a.wav", **more):
    """Reasons, details and manifest ends of the intervals, cut out of `video` and `audio` below `root`."""
    utterances = tuple(
        Utterance(f"u{i}", "d", "s", "1", start_s, end_s, "so", {"ang": 1.0}, None, video, audio, **more)
        for i, (start_s, end_s) in enumerate(intervals)
    )
    dialogue = Dialogue(root, root / "out", utterances, ClipSettings(18, 0.1, 600.0))
    result = make_clips(dialogue)
    rejects = {reject.utterance_id: reject for reject in result.rejects}
    ends = {made.utterance_id: made.end_s for made in result.made}
    files = sorted(path.name for path in dialogue.folder.iterdir() if path.suffix in (".mp4", ".wav"))
    assert files == sorted(f"{name}{suffix}" for name in ends for suffix in (".mp4", ".wav"))
    assert len(rejects) + len(ends) == len(utterances)
    names = [u.utterance_id for u in utterances]
    reasons = [rejects[name].reason if name in rejects else None for name in names]
    return reasons, [rejects[name].detail if name in rejects else "" for name in names], [ends.get(n) for n in names]


def lying_wav(path, seconds, claimed_bytes):
    write_wav(path, sound(seconds))
    data = bytearray(path.read_bytes())
    at = data.find(b"data") + 4
    data[at : at + 4] = struct.pack("<I", claimed_bytes)
    data[4:8] = struct.pack("<I", min(claimed_bytes + 36, 2**32 - 1))
    path.write_bytes(data)


def lying_mkv(path, seconds):
    """Each picture lasts 2 s, says the header; then the last one would, too."""
    write_video(path, pictures(seconds), (64, 48), FPS)
    data = bytearray(path.read_bytes())
    at = data.find(b"\x23\xe3\x83") + 3  # DefaultDuration, in nanoseconds
    size = data[at] & 0x7F
    assert int.from_bytes(data[at + 1 : at + 1 + size]) == 10**9 // FPS
    data[at + 1 : at + 1 + size] = (2 * 10**9).to_bytes(size)
    path.write_bytes(data)
    assert probe(path).fps == 0.5


def lying_mp4(path, seconds):
    """The last picture lasts 100 s, says the header, and with it the file."""
    write_video(path, pictures(seconds), (64, 48), FPS)
    data = bytearray(path.read_bytes())
    at = data.find(b"stts") - 4
    size, count, each = struct.unpack(">I12xI", data[at : at + 20])[0], *struct.unpack(">II", data[at + 16 : at + 24])
    table = struct.pack(">I4sIIIIII", 32, b"stts", 0, 2, count - 1, each, 1, each * FPS * 100)
    data[at : at + size] = table
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        start = data.find(kind) - 4
        data[start : start + 4] = struct.pack(">I", struct.unpack(">I", data[start : start + 4])[0] + len(table) - size)
    for kind, offset, value in (
        (b"elst", 8, 100_000),
        (b"mvhd", 16, 100_000),
        (b"tkhd", 20, 100_000),
        (b"mdhd", 16, 100 * FPS * each),
    ):
        start = data.find(kind) + 4 + offset
        data[start : start + 4] = struct.pack(">I", value)
    path.write_bytes(data)
    assert probe(path).duration_s == pytest.approx(100)


@pytest.mark.parametrize("claimed_bytes", [10 * 3 * RATE * 2, 2**31, 2**32 - 1])
def test_a_wav_that_claims_more_than_it_holds(tmp_path, claimed_bytes):
    lying_wav(tmp_path / "a.wav", 3, claimed_bytes)
    write_video(tmp_path / "v.mp4", pictures(6), (64, 48), FPS)
    assert audio_duration_s(tmp_path / "a.wav") == 3.0
    reasons, details, _ = cut(tmp_path, [(1, 2), (2, 3), (2, 4), (4, 5)])
    assert reasons == [None, None, "interval:outside", "interval:outside"]
    assert "sound, which lasts 3.00 s" in details[2]


def test_a_sentence_wav_that_claims_to_fit_its_label(tmp_path):
    """IEMOCAP's sentence wavs are taken whole; one that was cut off has another length than its label."""
    write_wav(tmp_path / "a.wav", sound(3))
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[: 44 + RATE * 2])
    write_video(tmp_path / "v.mp4", pictures(4), (64, 48), FPS)
    reasons, details, _ = cut(tmp_path, [(0.5, 3.5)], audio_is_cut=True)
    assert reasons == ["audio:length"]
    assert "lasts 1.00 s, the label's interval 3.00 s" in details[0]


@pytest.mark.parametrize(("name", "make"), [("v.mkv", lying_mkv), ("v.mp4", lying_mp4)])
def test_a_video_whose_header_claims_more_than_it_holds(tmp_path, name, make):
    make(tmp_path / name, 2)
    write_wav(tmp_path / "a.wav", sound(10))
    reasons, details, ends = cut(tmp_path, [(0.5, 1.5), (1.5, 2.4), (1.5, 2.6), (1.5, 3.9), (5, 6)], name)
    assert reasons == [None, None, *["interval:outside"] * 3]
    assert "pictures up to 2.00 s" in details[2]
    assert ends[:2] == [1.5, pytest.approx(2.0, abs=0.01)]


def test_a_video_cut_off_behind_its_header(tmp_path):
    """The index is at the front, as on web sites: it still counts every picture."""
    write_video(tmp_path / "first.mp4", pictures(4), (64, 48), FPS)
    command = [ffmpeg_exe(), "-v", "error", "-i", tmp_path / "first.mp4", "-c", "copy", "-movflags", "+faststart"]
    subprocess.run([*command, tmp_path / "v.mp4"], check=True)
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "v.mp4").write_bytes(data[: len(data) * 6 // 10])
    assert probe(tmp_path / "v.mp4").duration_s == pytest.approx(4)
    write_wav(tmp_path / "a.wav", sound(4))
    reasons, _, _ = cut(tmp_path, [(0.5, 1.5), (2.5, 3.5), (3, 4)])
    assert reasons == [None, "video:damaged", "video:damaged"]


def test_sound_shorter_than_the_picture_and_the_other_way_round(tmp_path):
    for video_s, audio_s, what in ((6, 3, "the sound, which lasts 3.00 s"), (3, 6, "has pictures up to 3.00 s")):
        root = tmp_path / what[:9]
        write_video(root / "v.mp4", pictures(video_s), (64, 48), FPS)
        write_wav(root / "a.wav", sound(audio_s))
        reasons, details, ends = cut(root, [(1, 2), (2, 3.4), (2, 3.6), (4, 5)])
        assert reasons == [None, None, "interval:outside", "interval:outside"]
        assert what in details[2]
        assert what in details[3]
        assert ends[0] == 2.0
        assert len(read_audio(root / "out/clips/d/u0.wav")) == RATE
        assert len(list(read_frames(root / "out/clips/d/u0.mp4", 1))) == FPS


def test_sound_within_a_video_is_measured_by_decoding_it(tmp_path):
    """The track of an mp4 that ends before its pictures do."""
    write_wav(tmp_path / "a.wav", sound(2))
    write_video(tmp_path / "v.mp4", pictures(6), (64, 48), FPS, audio=tmp_path / "a.wav")
    assert probe(tmp_path / "v.mp4").duration_s == pytest.approx(6, abs=0.1)
    reasons, details, _ = cut(tmp_path, [(0.5, 1.5), (3, 4)], audio="v.mp4")
    assert reasons == [None, "interval:outside"]
    assert "the sound, which lasts 2.0" in details[1]


@pytest.mark.parametrize("whole", [True, False])
def test_a_clip_taken_whole_that_lost_most_of_its_pictures_or_sound(tmp_path, whole):
    """Of a file that is one utterance nobody says how long it is: its two tracks say it of each other."""
    lengths = {"same": (2, 2), "tail": (2, 2.9), "no pictures": (1, 4), "no sound": (4, 1)}
    found = {}
    for name, (video_s, audio_s) in lengths.items():
        root = tmp_path / name
        write_wav(root / "a.wav", sound(audio_s))
        write_video(root / "v.mp4", pictures(video_s), (64, 48), FPS, audio=root / "a.wav")
        (found[name],), (detail,), _ = cut(root, [(0.0, math.inf)], audio="v.mp4", audio_is_cut=whole)
        if found[name]:
            assert f"pictures last {video_s}.00 s, its sound {audio_s}.0" in detail
    assert found == {"same": None, "tail": None, "no pictures": "clip:length", "no sound": "clip:length"}

"""Files that pose as media: nothing but the file itself is opened, nothing waits, and memory stays small."""

import ctypes
import os
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.media.audio import audio_duration_s, read_audio, seekable_sound, write_wav
from data_tools.media.cut import Cut, cut_video
from data_tools.media.frames import read_frames
from data_tools.media.plain import PlainPass, transcode
from data_tools.media.source import has_audio, probe
from data_tools.media.write import ffmpeg_exe, write_video

GREEN, RED = (0, 200, 0), (200, 0, 0)


def plain(colour, count=10):
    return [np.full((64, 64, 3), colour, np.uint8)] * count


def ffmpeg(*arguments):
    subprocess.run([ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


def box(kind, *parts):
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind, *parts):
    return box(kind, bytes(4), *parts)


def words(*values):
    return struct.pack(f">{len(values)}I", *values)


UNITY = words(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def mp4(samples=10, size=(64, 64), seconds=1, codec=b"mp4v", dref=None, tables=b"", edits=0):
    """One video track as its header describes it; there are no pictures."""
    dref = dref or box(b"url ", words(1))
    width, height = size
    entry = struct.pack(">6xH16xHHII4xH32xHh", 1, width, height, 0x480000, 0x480000, 1, 24, -1)
    counts = [
        full(b"stts", words(1, samples, max(1, seconds * 1000 // samples))),
        full(b"stsc", words(1, 1, samples, 1)),
    ]
    counts += [full(b"stsz", words(1, samples)), full(b"stco", words(1, 100))]
    stbl = box(b"stbl", full(b"stsd", words(1), box(codec, entry)), *counts, tables)
    minf = box(b"minf", full(b"vmhd", bytes(8)), box(b"dinf", full(b"dref", words(1), dref)), stbl)
    mdia = [full(b"mdhd", words(0, 0, 1000, seconds * 1000), bytes(4)), full(b"hdlr", words(0), b"vide", bytes(13))]
    tkhd = box(b"tkhd", words(3, 0, 0, 1, 0, seconds * 1000), bytes(16), UNITY, words(width << 16, height << 16))
    elst = box(b"edts", full(b"elst", words(edits, *[seconds, 0, 0x10000] * edits))) if edits else b""
    mvhd = full(b"mvhd", words(0, 0, 1000, seconds * 1000, 0x10000), bytes(12), UNITY, bytes(24), words(2))
    moov = box(b"moov", mvhd, box(b"trak", tkhd, elst, box(b"mdia", *mdia, minf)))
    return box(b"ftyp", b"isom", bytes(4)) + moov + box(b"mdat", bytes(1000))


def wav(rate=16_000, channels=1, frames=100, riff=b"RIFF", data_size=None):
    data = bytes(2 * channels * frames)
    form = struct.pack("<HHIIHH", 1, channels, rate, min(rate * 2 * channels, 2**32 - 1), 2 * channels, 16)
    large = b"ds64" + struct.pack("<IQQQI", 28, 2**41, 2**41, 2**40, 0) if riff == b"RF64" else b""
    chunks = large + b"fmt " + struct.pack("<I", 16) + form
    size = len(data) if data_size is None else data_size
    return riff + struct.pack("<I", 2**32 - 1) + b"WAVE" + chunks + b"data" + struct.pack("<I", size) + data


class Watch:
    """Whether anybody opens a file, as the kernel tells it (inotify)."""

    def __init__(self, path):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._libc.inotify_add_watch(self._queue, os.fsencode(path), 0x20) >= 0  # IN_OPEN

    def was_opened(self):
        try:
            return bool(os.read(self._queue, 4096))
        except BlockingIOError:
            return False

    def close(self):
        os.close(self._queue)


@pytest.fixture
def canary(tmp_path):
    """A red video with sound that nothing may open."""
    write_wav(tmp_path / "tone.wav", np.full(16_000, 0.25, np.float32))
    write_video(tmp_path / "canary.mp4", plain(RED), (64, 64), 25, audio=tmp_path / "tone.wav")
    watch = Watch(tmp_path / "canary.mp4")
    yield watch
    watch.close()


@pytest.fixture
def server():
    """A place on this machine that nothing may call."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def was_called(server):
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def readers(path):
    """Every way in which a file is read here."""
    out = path.parent / "out"
    return {
        "probe": lambda: probe(path),
        "has_audio": lambda: has_audio(path),
        "read_frames": lambda: list(read_frames(path, 40)),
        "read_audio": lambda: read_audio(path),
        "interval": lambda: read_audio(path, 16_000, 0.1, 0.2),
        "audio_duration_s": lambda: audio_duration_s(path),
        "seekable_sound": lambda: seekable_sound(path, out / "t.wav").__enter__(),
        "transcode": lambda: transcode([PlainPass(path, out / "t.mp4")], crf=30),
        "sound of write_video": lambda: write_video(out / "w.mp4", plain(GREEN), (64, 64), 25, audio=path),
    }


def refused_by_all(path):
    """The messages of all readers; each one must refuse `path`."""
    said = {}
    for name, reader in readers(path).items():
        with pytest.raises(DataError) as caught:
            reader()
            pytest.fail(f"{name} reads {path.name}")
        said[name] = str(caught.value)
    (outcome,) = cut_video(path, [Cut(0.0, 0.2, path.parent / "out" / "c.mp4")], crf=30)
    assert outcome.failure == "video:unreadable"
    assert not [left for left in path.parent.glob("out/*") if left.is_file()]
    return said | {"cut_video": outcome.detail}


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
DASH = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet
mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet>
</Period></MPD>"""
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
# What poses, the options with which ffmpeg would go where it points (None: this build of ffmpeg can't).
PLAYLISTS = {
    "hls.mp4": (HLS, "-f hls -allowed_extensions ALL -extension_picky 0"),
    "hls.m3u8": (HLS, "-extension_picky 0"),
    "list.avi": ("ffconcat version 1.0\nfile '{}'\n", "-f concat -safe 0"),
    "dash.mp4": (DASH, None),
    "asx.asf": ('<asx version="3.0"><entry><ref href="{}"/></entry></asx>', None),
    "smil.mp4": ('<smil><body><video src="{}"/></body></smil>', None),
    "redirect.mov": ("RTSPtext\n{}\n", None),
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_lead_nowhere(tmp_path, canary, server, name):
    form, options = PLAYLISTS[name]
    address = f"http://127.0.0.1:{server.getsockname()[1]}/canary.mp4"
    for target in ("canary.mp4", f"file:{tmp_path / 'canary.mp4'}", address):
        (tmp_path / name).write_text(form.format(target))
        said = refused_by_all(tmp_path / name)
        assert all(name in words for words in said.values()), said
        assert "expected one of aac, " in said["read_frames"]
        assert not canary.was_opened()
        assert not was_called(server)
    if options:  # the file is a working one: without the closed lists ffmpeg opens what it names
        (tmp_path / name).write_text(form.format("canary.mp4"))
        ffmpeg(*options.split(), "-i", tmp_path / name, "-frames:v", 1, tmp_path / "got.png")
        assert canary.was_opened()


def test_streaming_descriptions_and_picture_patterns_are_refused(tmp_path, canary):
    (tmp_path / "live.mp4").write_text(SDP.format(50_000))
    ffmpeg("-i", tmp_path / "canary.mp4", "-frames:v", 1, tmp_path / "shot1.png")
    (tmp_path / "shot%d.png").write_bytes((tmp_path / "shot1.png").read_bytes())
    assert canary.was_opened()
    shot = Watch(tmp_path / "shot1.png")
    refused_by_all(tmp_path / "live.mp4")
    refused_by_all(tmp_path / "shot%d.png")
    assert not shot.was_opened()
    shot.close()


@pytest.mark.parametrize(
    "name",
    [
        "concat:canary.mp4|canary.mp4",
        "subfile,,start,0,end,0,,:canary.mp4",
        "movie=canary.mp4",
        "cache:canary.mp4",
        "async:canary.mp4",
        "fd:",
        "data:text,x",
        "%d.mp4",
        "|id",
        "-i",
        "pipe:0",
        "two\nlines 'a' \"b\" $(id).mp4",
    ],
)
def test_names_with_a_meaning_are_only_names(tmp_path, canary, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("mine.mp4").touch()
    write_video(tmp_path / "mine.mp4", plain(GREEN), (64, 64), 25, audio=tmp_path / "tone.wav")
    (tmp_path / "mine.mp4").rename(tmp_path / name)
    path = Path(name)
    frames = [frame for _, frame in read_frames(path, 40)]
    assert len(frames) == 10
    assert np.abs(np.asarray(frames).mean(axis=(0, 1, 2)) - GREEN).max() < 10
    assert len(read_audio(path)) > 10_000
    transcode([PlainPass(path, tmp_path / "t.mp4", sound=True)], crf=30)
    (outcome,) = cut_video(path, [Cut(0.0, 0.2, tmp_path / "c.mp4")], crf=30)
    assert outcome.failure is None
    assert not canary.was_opened()


def test_a_name_that_is_not_utf_8(tmp_path):
    path = tmp_path / "a\udcff.mp4"
    write_wav(tmp_path / "s.wav", np.full(16_000, 0.25, np.float32))
    write_video(tmp_path / "a.mp4", plain(GREEN), (64, 64), 25, audio=tmp_path / "s.wav")
    (tmp_path / "a.mp4").rename(path)
    assert len(list(read_frames(path, 40))) == 10
    assert len(read_audio(path)) > 10_000
    assert cut_video(path, [Cut(0.0, 0.2, tmp_path / "c.mp4")], crf=30)[0].failure is None


def alias_of(path):
    """A QuickTime data reference of the old kind: an absolute path that the samples are to be read from."""
    text = os.fsencode(path)
    text += bytes(len(text) % 2)
    before = bytes(10) + bytes(1) + bytes(27) + bytes(12) + bytes(1) + bytes(63) + bytes(16) + bytes(4) + bytes(16)
    return box(b"alis", bytes(4), before, struct.pack(">HH", 2, len(text)), text, struct.pack(">HH", 0xFFFF, 0))


def test_samples_in_another_file_are_not_fetched(tmp_path, canary):
    (tmp_path / "film.mov").write_bytes(mp4(dref=alias_of(tmp_path / "canary.mp4")))
    for reader in readers(tmp_path / "film.mov").values():
        with suppress(DataError):  # the header alone is in order
            reader()
    assert not canary.was_opened()
    told = ["-enable_drefs", "1", "-use_absolute_path", "1", "-i", tmp_path / "film.mov", "-f", "null", "-"]
    subprocess.run([ffmpeg_exe(), "-v", "error", *told], check=False, capture_output=True)
    assert canary.was_opened()


def elements(data):
    """(id, content) of the EBML elements in `data`, which all state their length."""
    at = 0
    while at < len(data):
        id_length = 9 - data[at].bit_length()
        kind, at = data[at : at + id_length], at + id_length
        length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
        yield kind, data[at + length : at + length + size]
        at += length + size


def element(kind, content):
    return kind + (len(content) | 1 << 56).to_bytes(8) + content


def test_linked_segments_are_not_followed(tmp_path, canary):
    write_video(tmp_path / "a.mkv", plain(GREEN), (64, 64), 25)
    head, segment = elements((tmp_path / "a.mkv").read_bytes())
    link = element(b"\x3e\xb9\x23", b"n" * 16) + element(b"\x3e\x83\xbb", b"canary.mp4")  # NextUID, NextFilename
    parts = dict(elements(segment[1]))
    info, tracks, cluster = parts[b"\x15\x49\xa9\x66"], parts[b"\x16\x54\xae\x6b"], parts[b"\x1f\x43\xb6\x75"]
    linked = element(b"\x15\x49\xa9\x66", info + link) + element(b"\x16\x54\xae\x6b", tracks)
    linked += element(b"\x1f\x43\xb6\x75", cluster)
    (tmp_path / "b.mkv").write_bytes(element(*head) + element(segment[0], linked))
    frames = np.asarray([frame for _, frame in read_frames(tmp_path / "b.mkv", 40)])
    assert len(frames) == 10
    assert np.abs(frames.mean(axis=(0, 1, 2)) - GREEN).max() < 10
    assert not canary.was_opened()


def test_pipes_devices_folders_sockets_and_circles_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    os.mkfifo("pipe.mp4")
    Path("folder.mp4").mkdir()
    Path("zero.mp4").symlink_to("/dev/zero")
    Path("circle.mp4").symlink_to("circle.mp4")
    Path("gone.mp4").symlink_to("nowhere.mp4")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.mp4")
        for name in ("pipe.mp4", "folder.mp4", "zero.mp4", "socket.mp4"):
            said = refused_by_all(tmp_path / name)
            assert "expected a media file" in said["read_audio"]
    for name in ("circle.mp4", "gone.mp4", "never.mp4", f"{'x' * 300}.mp4"):
        refused_by_all(tmp_path / name)


def test_a_link_to_a_video_is_a_video(tmp_path):
    write_video(tmp_path / "a.mp4", plain(GREEN), (64, 64), 25)
    (tmp_path / "b.mp4").symlink_to("a.mp4")
    assert len(list(read_frames(tmp_path / "b.mp4", 40))) == 10


HEADERS = {
    "largest.mp4": (mp4(size=(65535, 65535), codec=b"raw "), "without a single frame"),  # ffmpeg's own limit
    "large.mp4": (mp4(size=(16_000, 64), codec=b"raw "), "16000x64 pixels; the limit is 8192 a side"),
    "area.mp4": (mp4(size=(8192, 2050), codec=b"raw "), "8192x2050 pixels; the limit is .* 16777216 in all"),
    "long.mp4": (mp4(seconds=1_000_000), "lasts 1000000 s; the limit is 14400 s"),
    "many.mp4": (mp4(samples=80_000_000), "counts 80000000 samples; the limit is 8000000"),
    "most.mp4": (mp4(samples=2**32 - 1), "counts 4294967295 samples"),
    "shifts.mp4": (mp4(tables=full(b"ctts", words(2, 2**31, 0, 2**31, 0))), "counts 4294967296 samples"),
    "edits.mp4": (mp4(samples=4000, edits=4000), "counts 16000000 samples"),
    "fragment.mp4": (
        mp4() + box(b"moof", full(b"traf", full(b"trun", words(2**32 - 1))).replace(bytes(4), b"", 1)),
        "counts 4294967305 samples",
    ),
    "packed.mov": (box(b"ftyp", b"qt  ") + box(b"moov", box(b"cmov", bytes(99))), "packed header"),
    "codec.mov": (mp4(codec=b"zzzz"), "no video stream that can be decoded"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_absurd_headers_of_videos(tmp_path, name):
    content, cause = HEADERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=cause):
        list(read_frames(tmp_path / name, 500))
    refused = cut_video(tmp_path / name, [Cut(0.0, 0.5, tmp_path / "c.mp4")], crf=30)
    assert refused[0].failure == ("video:damaged" if name == "largest.mp4" else "video:unreadable")


SOUNDS = {
    "slow.wav": (wav(rate=1), "1 samples a second; expected 4000 to 192000"),
    "fast.wav": (wav(rate=10_000_000), "10000000 samples a second"),
    "wide.wav": (wav(channels=255), "255 channels; the limit is 64"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_absurd_headers_of_sounds(tmp_path, name):
    content, cause = SOUNDS[name]
    (tmp_path / name).write_bytes(content)
    for reader in ("read_audio", "interval", "audio_duration_s", "seekable_sound"):
        with pytest.raises(DataError, match=cause):
            readers(tmp_path / name)[reader]()


def test_counts_of_sounds_that_are_not_there(tmp_path):
    """The headers say 2 ** 25, 2 ** 31 and 2 ** 40 samples; the files have 0.5 s."""
    (tmp_path / "a.wav").write_bytes(wav(frames=8000, data_size=2**32 - 2))
    (tmp_path / "b.wav").write_bytes(wav(frames=8000, riff=b"RF64", data_size=2**32 - 1))
    write_wav(tmp_path / "s.wav", np.full(8000, 0.1, np.float32))
    ffmpeg("-i", tmp_path / "s.wav", tmp_path / "c.flac")
    flac = bytearray((tmp_path / "c.flac").read_bytes())
    flac[22:26] = words(2**25)  # the lower 32 bits of the number of samples
    (tmp_path / "c.flac").write_bytes(flac)
    for name in ("a.wav", "b.wav", "c.flac"):
        assert len(read_audio(tmp_path / name)) == 8000, name
        assert audio_duration_s(tmp_path / name) == 0.5, name


def test_what_cannot_be_told_from_the_header_is_found_while_decoding(tmp_path):
    write_wav(tmp_path / "s.wav", np.full(16_000, 0.1, np.float32))
    still = ["-f", "lavfi", "-i", "color=s=64x64:r=25:d=1"]
    ffmpeg("-f", "lavfi", "-i", "color=s=64x64:r=4000:d=1", "-c:v", "mpeg4", "-q:v", 31, tmp_path / "dense.mkv")
    # Written as a live stream, so that no header states a duration.
    live = ["-c:v", "mpeg4", "-live", "1"]
    ffmpeg(*still, *live, "-bsf:v", "setts=ts=if(gt(N\\,9)\\,TS+200000000\\,TS)", tmp_path / "gap.mkv")
    ffmpeg(*still, "-itsoffset", 20_000, "-i", tmp_path / "s.wav", *live, "-c:a", "flac", tmp_path / "late.mkv")
    for name, size in (("small.ts", "64x64"), ("big.ts", "4112x4096")):
        ffmpeg("-f", "lavfi", "-i", f"color=s={size}:r=25:d=0.2", "-c:v", "libx264", tmp_path / name)
    grown = (tmp_path / "small.ts").read_bytes() + (tmp_path / "big.ts").read_bytes()
    (tmp_path / "grown.ts").write_bytes(grown)
    assert probe(tmp_path / "gap.mkv").duration_s == 0.0
    for name, cause in [
        ("dense.mkv", r"pictures up to 0\..* s; the limit is 300 a second"),
        ("gap.mkv", "has a picture at 8000000 s; the limit is 14400 s"),
    ]:
        with pytest.raises(DataError, match=cause):
            list(read_frames(tmp_path / name, 40))
        first, last = cut_video(
            tmp_path / name, [Cut(0.0, 0.04, tmp_path / "1.mp4"), Cut(0.0, 9.0, tmp_path / "2.mp4")], crf=30
        )
        assert (first.failure, last.failure) == (None, "video:unreadable")
        assert not (tmp_path / "2.mp4").exists()
    shapes = {frame.shape for _, frame in read_frames(tmp_path / "grown.ts", 40)}
    assert shapes == {(64, 64, 3)}
    (outcome,) = cut_video(tmp_path / "grown.ts", [Cut(0.0, 0.4, tmp_path / "3.mp4")], crf=30)
    assert outcome.failure == "video:damaged"
    with pytest.raises(DataError, match="s of sound or more; the limits are 14400 s"):
        read_audio(tmp_path / "late.mkv")
    with (
        pytest.raises(DataError, match="s of sound or more"),
        seekable_sound(tmp_path / "late.mkv", tmp_path / "t.wav"),
    ):
        pass
    assert not (tmp_path / "t.wav").exists()


def test_files_as_cameras_and_editors_write_them_pass(tmp_path):
    """Uncompressed sound counts every moment as a sample; fragments, edits and a clock of 1000 a second are usual."""
    long = ["-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono", "-t", 180]
    ffmpeg(*long, "-c:a", "pcm_s16le", tmp_path / "camera.mov")
    assert audio_duration_s(tmp_path / "camera.mov") == pytest.approx(180)
    write_video(tmp_path / "a.mp4", plain(GREEN, 50), (64, 64), 25)
    ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", "-movflags", "frag_keyframe+empty_moov", tmp_path / "fragments.mp4")
    ffmpeg("-ss", 0.5, "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "edits.mp4")
    ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", "-live", 1, tmp_path / "recorder.mkv")
    assert [len(list(read_frames(tmp_path / f"{name}", 40))) for name in ("fragments.mp4", "recorder.mkv")] == [50, 50]
    assert len(list(read_frames(tmp_path / "edits.mp4", 40))) == pytest.approx(38, abs=13)
    assert probe(tmp_path / "recorder.mkv").fps == 25


MEASURE = """
import sys
from contextlib import suppress
from pathlib import Path
from data_tools.errors import DataError
from data_tools.media.audio import audio_duration_s, read_audio
from data_tools.media.frames import read_frames

def peak_mb():
    # Of this program alone: getrusage also counts what the process held before it became this program.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

for path in map(Path, sys.argv[2:]):  # the first one is harmless: it loads what is loaded on demand
    for reader in (lambda p: list(read_frames(p, 10**6)), read_audio, audio_duration_s):
        try:
            reader(path)
        except DataError:
            pass
    before = peak_mb() if path == Path(sys.argv[2]) else before
print(peak_mb() - before)
"""


def test_memory_stays_small_whatever_the_file_says(tmp_path):
    write_wav(tmp_path / "s.wav", np.full(160_000, 0.1, np.float32))
    write_video(tmp_path / "good.mp4", plain(GREEN, 25), (64, 64), 25, audio=tmp_path / "s.wav")
    files = {name: content for name, (content, _) in {**HEADERS, **SOUNDS}.items()}
    files |= {"a.wav": wav(data_size=2**32 - 2), "b.wav": wav(riff=b"RF64"), "c.wav": wav(channels=64, frames=100_000)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    ffmpeg("-f", "lavfi", "-i", "color=s=8000x5000:d=0.1", "-c:v", "png", tmp_path / "bomb.avi")
    assert (tmp_path / "bomb.avi").stat().st_size < 10**6
    names = ["good.mp4", "bomb.avi", *files]
    child = subprocess.run(
        [sys.executable, "-c", MEASURE, "first", *(tmp_path / name for name in names)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    # The largest count would take 2.8 GB. One picture of 8000 x 5000 is what opening may decode before it is refused.
    assert float(child.stdout) < 8000 * 5000 * 3 / 1e6 + 60

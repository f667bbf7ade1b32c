"""The page of a film and the film beside it, without a browser; test_browser.py looks at it in one."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.media.audio import read_audio, write_wav
from data_tools.media.playable import write_playable
from data_tools.media.source import probe
from data_tools.media.write import write_video
from pipeline.predict import predict
from pipeline.progress import Reporter
from pipeline.timeline.answers import Prediction
from pipeline.timeline.page import clock, write_film_page

QUIET = Reporter(quiet=True)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \u2028 ]]>"


def colours(count):
    frame = np.zeros((48, 64, 3), np.uint8)
    return (frame + np.uint8(5 * number) for number in range(count))


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder with tone.wav, played.mp4 (H.264 and AAC), old.avi (MPEG-4 and PCM) and kept.mkv (H.264 and AAC)."""
    folder = tmp_path_factory.mktemp("media")
    write_wav(folder / "tone.wav", np.sin(np.arange(32_000) / 5).astype(np.float32) / 4, 16_000)
    for name, codec in (("played.mp4", "libx264"), ("old.avi", "mpeg4"), ("kept.mkv", "libx264")):
        write_video(folder / name, colours(20), (64, 48), 10, codec, audio=folder / "tone.wav")
    return folder


def test_what_browsers_play_is_linked_and_the_rest_made_anew(media, tmp_path):
    for name, expected, is_link in (
        ("played.mp4", "x.mp4", True),
        ("tone.wav", "x.wav", True),
        ("old.avi", "x.mp4", False),
        ("kept.mkv", "x.mp4", False),
    ):
        source, out = media / name, tmp_path / name
        out.mkdir()
        made = write_playable(source, out, "x")
        assert [path.name for path in out.iterdir()] == [made.name] == [expected]
        assert made.samefile(source) == is_link
        about, was = probe(made), probe(source)
        assert about.duration_s == pytest.approx(2, abs=0.15)
        assert (about.width, about.height) == (was.width, was.height)
        assert about.video_codec in ("", "h264")
        # The same sound, whatever it was encoded with.
        sound, expected_sound = read_audio(made)[:30_000], read_audio(media / "tone.wav")[:30_000]
        assert np.corrcoef(np.abs(np.fft.rfft(sound)), np.abs(np.fft.rfft(expected_sound)))[0, 1] > 0.95


def test_packets_that_browsers_play_are_copied(media, tmp_path):
    from data_tools.media.source import open_media

    def packets(path):
        with open_media(path) as container:
            return [packet.size for packet in container.demux(video=0) if packet.size]

    assert packets(write_playable(media / "kept.mkv", tmp_path, "x")) == packets(media / "kept.mkv")


def test_a_link_keeps_the_permissions_of_the_film_and_may_be_made_twice(media, tmp_path):
    source = tmp_path / "mine.wav"
    source.write_bytes((media / "tone.wav").read_bytes())
    source.chmod(0o600)
    (tmp_path / "out").mkdir()
    for _ in range(2):
        made = write_playable(source, tmp_path / "out", "x")
    assert source.stat().st_mode & 0o777 == 0o600
    assert made.samefile(source)
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_film_in_the_folder_itself_is_not_written_again(media):
    before = sorted(media.iterdir())
    assert write_playable(media / "played.mp4", media, "x") == media / "played.mp4"
    assert sorted(media.iterdir()) == before


def test_without_links_it_is_a_copy_and_a_broken_film_is_an_error(media, tmp_path, monkeypatch):
    def refuses(*paths):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuses)
    made = write_playable(media / "tone.wav", tmp_path, "x")
    assert not made.samefile(media / "tone.wav")
    assert made.read_bytes() == (media / "tone.wav").read_bytes()
    (tmp_path / "bad.avi").write_bytes(b"RIFF nothing")
    with pytest.raises(DataError, match=r"bad\.avi"):
        write_playable(tmp_path / "bad.avi", tmp_path, "y")


def segment(start_s, end_s, text="", predicted=(), **scores):
    return {
        "start_s": start_s,
        "end_s": end_s,
        "text": text,
        "scores": scores,
        "predicted": list(predicted),
        "absent": ["no words: no transcript was given"],
        "no_face_share": None,
    }


def write(
    folder,
    segments,
    task="multi-label",
    thresholds=None,
    name="film.mp4",
    playable=None,
    length_s=20.0,
    cut_by="speech",
):
    names = list(segments[0]["scores"])
    scores = {each: float(np.mean([part["scores"][each] for part in segments])) for each in names}
    prediction = Prediction(
        name,
        scores,
        [],
        ["no words: no transcript was given"],
        cut_by=cut_by,
        segments=segments,
        summary={"duration_s": length_s, "thresholds": thresholds or {}},
        faces=[None] * len(segments),
    )
    about = {"run": "runs/a", "task": task, "notice": "A STAND-IN"}
    write_film_page(folder / "film.html", name, playable, "no film", about, prediction)
    return (folder / "film.html").read_text(encoding="utf-8")


def test_hostile_words_and_names_stay_text(tmp_path):
    text = write(
        tmp_path,
        [segment(0, 2, HOSTILE, [HOSTILE], **{HOSTILE: 0.9})],
        name=HOSTILE,
        playable=Path("out") / 'a"b <i>\udcff:%.mp4',
    )
    # Two elements are the page's own: the data and the script.
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    assert 'src="./a%22b%20%3Ci%3E%FF%3A%25.mp4"' in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["names"] == [HOSTILE]


def test_gaps_totals_and_the_notice_are_shown(tmp_path):
    parts = [segment(2.0, 4.0, "one", ["hap"], hap=0.8, sad=0.1), segment(4.5, 9.0, "two", [], hap=0.2, sad=0.3)]
    text = write(tmp_path, parts, thresholds={"hap": 0.5, "sad": 0.4})
    gaps = re.findall(r'<li class="gap">(.*?)</li>', text)
    # Half a second between the two is no line.
    assert gaps == ["0:00.0 · 2.0 s: nobody speaks", "0:09.0 · 11.0 s: nobody speaks"]
    assert "A STAND-IN" in text
    assert "<td>0.500</td>" in text
    assert "no words: no transcript was given" in text
    assert "The film cannot be played here: no film" in text


def test_a_sentiment_has_an_axis_around_zero(tmp_path):
    text = write(tmp_path, [segment(0, 20, "all of it", sentiment=-2.4)], task="sentiment")
    (data,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["range"] == [-3, 3]
    assert "sentiment -2.400" in text
    assert "threshold" not in text.split("<main>")[1].split('<script type="application/json"')[0]


@pytest.mark.parametrize("cut_by", ["whole", "transcript", "words", "speech", "time"])
def test_every_way_to_cut_a_film_is_said(tmp_path, cut_by):
    assert "20.0 s: " not in write(tmp_path, [segment(0, 20, "all", hap=0.5)], cut_by=cut_by)


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00.0"), (59.96, "1:00.0"), (3723.44, "1:02:03.4")])
def test_times_for_people(seconds, shown):
    assert clock(seconds) == shown


def test_the_page_lies_beside_its_film(media, run, tmp_path):
    films = [media / "old.avi", media / "tone.wav"]
    first, second = (predict(run, [film], "a few words", "cpu", QUIET, out=tmp_path)["files"][0] for film in films)
    for entry, film in ((first, "old.page.mp4"), (second, "tone.page.wav")):
        assert str(tmp_path / film) in entry["written"]
        (page,) = (Path(path) for path in entry["written"] if path.endswith(".html"))
        text = page.read_text(encoding="utf-8")
        assert f'src="./{film}"' in text
        assert "a few words" in text
    assert "faces" not in first
    (tmp_path / "old.page.mp4").unlink()
    predict(run, films[:1], "a few words", "cpu", QUIET, out=tmp_path)
    assert (tmp_path / "old.page.mp4").is_file()


def test_a_film_that_cannot_be_made_playable_has_a_page_all_the_same(media, run, tmp_path, monkeypatch):
    def refuses(*given):
        raise DataError("ffmpeg has no such encoder")

    monkeypatch.setattr("pipeline.timeline.files.write_playable", refuses)
    (entry,) = predict(run, [media / "old.avi"], None, "cpu", QUIET, out=tmp_path)["files"]
    assert entry["error"] is None
    assert "ffmpeg has no such encoder" in (tmp_path / "old.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir() if ".page" in path.name] == []
    assert predict(run, [media / "old.avi"], None, "cpu", QUIET, out=tmp_path)["files"] == [entry]

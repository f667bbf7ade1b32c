"""One's own videos through stages 1 and 2: real files of seconds, every clip known by its pitch and its grey."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.manifest import read_manifest, read_rejects
from data_tools.media.audio import read_audio, write_wav
from data_tools.media.frames import read_frames
from data_tools.media.source import probe
from data_tools.media.write import write_video
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import ConfigError, load_config
from pipeline.stats import stats

QUIET = Reporter(quiet=True)
RATE = 16_000


def tone(seconds, hertz):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def film(path, greys, sound=None):
    """Half a second of each grey (on average: a flat picture is refused), 10 frames a second, with a wav's sound."""
    halves = np.where(np.arange(64) < 32, -8, 8)[None, :, None]
    frames = [np.broadcast_to(grey + halves, (48, 64, 3)).astype(np.uint8) for grey in greys for _ in range(5)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, (64, 48), 10, audio=sound)


def pitch(path):
    """The strongest frequency, in hertz."""
    samples = read_audio(path)
    return np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples)


def greys(path):
    return [round(float(frame.mean())) for _, frame in read_frames(path, 1)]


def run(root, out, **settings):
    values = load_config("datasets", "folder") | {"root": root, "out": out, "workers": 1} | settings
    return reorganize(ReorganizeSettings.checked(values, "test"), QUIET)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Four films with a table; not to be changed."""
    root = tmp_path_factory.mktemp("own") / "films"
    sounds = tmp_path_factory.mktemp("sounds")
    for hertz in (300, 600, 900):
        write_wav(sounds / f"{hertz}.wav", tone(2.0, hertz))
    film(root / "day 1" / "it's anna.mp4", [40, 80, 120, 160], sounds / "300.wav")
    film(root / "day 2" / "it's anna.mp4", [200, 160, 120, 80], sounds / "600.wav")
    film(root / "-silent.mp4", [100, 100])
    film(root / "recorder.mkv", [60, 60, 140, 140])
    (root / "sound").mkdir()
    (sounds / "900.wav").rename(root / "sound" / "recorder.wav")
    rows = [
        ["video", "start", "end", "text", "label", "sentiment", "speaker", "dialogue", "audio"],
        ["day 1/it's anna", "0.5", "1.5", "Oh, “how” nice!", "happy", "1", "Anna", "talk", ""],
        ["day 2/it's anna", "0:01", "0:02", "No.", "sad", "-1", "Anna", "talk", ""],
        ["day 1/it's anna", "1.5", "2", "And =1+1", "happy|sad", "0", "Anna", "talk", ""],
        ["recorder.mkv", "", "", "", "sad", "", "", "", "sound/recorder.wav"],
        ["recorder.mkv", "0.2", "0.8", "x", "happy", "", "", "", "sound/recorder"],
        ["-silent", "", "", "nobody hears it", "sad", "", "", "", ""],
        ["gone.mp4", "", "", "", "sad", "", "", "", ""],
        ["day 1/it's anna", "1.5", "9", "", "sad", "", "", "", ""],
        ["http://example.org/x.mp4", "", "", "", "sad", "", "", "", ""],
    ]
    with (root / "my table.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    return root


@pytest.fixture(scope="module")
def data(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "own"
    summary = run(films, out, max_reject_share=0.5)
    return out, summary


def test_a_choice_of_faces_in_the_data_sets_file_reaches_preprocess(films, tmp_path):
    run(films, tmp_path / "data", faces={"choice": "largest"}, max_reject_share=1.0)
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["faces"] == {"choice": "largest"}
    summary = preprocess(PreprocessSettings(data=tmp_path / "data", workers=1), QUIET)
    assert "several_faces" not in summary
    with pytest.raises(ConfigError, match="faces.choice"):
        run(films, tmp_path / "other", faces={"choice": "loudest"})


def test_a_table_becomes_clips(data):
    out, summary = data
    assert (summary["kept"], summary["rejected"], summary["found"]) == (5, 4, 9)
    assert summary["without_words"] == 1
    assert summary["emotions"] == ["happy", "sad"]
    table = read_manifest(out).set_index("utterance_id")
    # By hand from the table: utterance -> its greys, frame by frame, and its pitch.
    expected = {
        "day 1__it's anna_1": ([80] * 5 + [120] * 5, 300),
        "day 1__it's anna_2": ([160] * 5, 300),
        "day 2__it's anna_1": ([120] * 5 + [80] * 5, 600),
        "recorder_1": ([60] * 10 + [140] * 10, 900),
        "recorder_2": ([60] * 6, 900),
    }
    assert set(table.index) == set(expected)
    for name, (frames, hertz) in expected.items():
        row = table.loc[name]
        found = greys(out / row["clip"])
        assert len(found) == len(frames)
        np.testing.assert_allclose(found, frames, atol=3)
        assert pitch(out / row["wav"]) == pytest.approx(hertz, abs=3)
        assert probe(out / row["clip"]).has_audio
    assert table["end_s"].tolist() == pytest.approx([1.5, 2.0, 2.0, 2.0, 0.8])
    assert table["label_happy"].tolist() == [1, 1, 0, 0, 1]
    assert table["sentiment"].fillna(9).tolist() == [1, 0, -1, 9, 9]
    assert table["text"].tolist() == ["Oh, “how” nice!", "And =1+1", "No.", "", "x"]
    assert table["dialogue_id"].tolist() == ["talk", "talk", "talk", "recorder", "recorder"]


def test_what_cannot_be_used_has_a_reason(data):
    out, _ = data
    found = {reject.utterance_id: reject for reject in read_rejects(out)}
    assert {name: reject.reason for name, reject in found.items()} == {
        "-silent_1": "no_audio",
        "gone_1": "no_video",
        "day 1__it's anna_3": "interval:outside",
        "my table.csv line 10": "path:outside",
    }
    assert "-silent.mp4 has no sound track" in found["-silent_1"].detail
    assert found["gone_1"].detail == "line 8: there is no file 'gone.mp4' below the folder"


def test_stage_2_and_stats(data):
    out, _ = data
    summary = preprocess(PreprocessSettings(data=out, workers=1), QUIET)
    assert (summary["utterances"], summary["rejected"]) == (5, 0)
    sample = next(s for s in UtteranceDataset(out) if s.id == "recorder_1")
    assert sample.faces.shape == (0, 3, 48, 48)  # nobody is in the picture
    assert sample.chunks.shape == (5, 1, 128, 32)  # of 400 ms
    assert sample.labels.tolist() == [0.0, 1.0]
    counts = stats(out)["splits"]["all"]
    assert (counts["utterances"], counts["labels"]["happy"]["utterances"]) == (5, 3)
    assert counts["labels"]["sad"]["words"] == 3  # "And =1+1", "No."
    assert counts["seconds"] == pytest.approx(1 + 0.5 + 1 + 2 + 0.6)


def shell(command):
    words = [sys.executable, "-m", "pipeline.cli", *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_command_as_the_docs_have_it(films, tmp_path):
    command = ["reorganize", "--dataset", "folder", "--root", films, "--out", tmp_path / "out", "--workers", "1",
               "--set", "max_reject_share=0.5", "--set", "reader={table: my table.csv}", "--json"]  # fmt: skip
    done = shell(command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 5
    assert "5 utterances kept + 4 rejected = 9" in done.stderr
    assert "1 of the 5 kept have no words" in done.stderr
    done = shell(command[:-5])
    assert done.returncode == 1
    # The two that the table alone shows; the folder is not touched then.
    assert "2 of 9 utterances (22%) are broken" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_file_a_clip(tmp_path):
    root = tmp_path / "clips"
    write_wav(tmp_path / "a.wav", tone(1.0, 440))
    for number, folder in enumerate(["train/joy", "train/anger", "dev/joy", "test/anger"]):
        film(root / folder / f"clip {number}.mp4", [50, 150], tmp_path / "a.wav")
    (root / "train/joy/clip 0.txt").write_text("Hooray!")
    film(root / "test/joy/silent.mp4", [10, 10])
    film(root / "test/joy/dubbed.mp4", [10, 10])
    write_wav(root / "test/joy/dubbed.wav", tone(1.0, 880))
    out = tmp_path / "data"
    summary = run(root, out, split="release")
    assert (summary["kept"], summary["reasons"], summary["without_words"]) == (5, {"no_audio": 1}, 4)
    table = read_manifest(out).set_index("utterance_id")
    assert table["split"].to_dict() == {
        "train__joy__clip 0": "train", "train__anger__clip 1": "train", "dev__joy__clip 2": "valid",
        "test__anger__clip 3": "test", "test__joy__dubbed": "test",
    }  # fmt: skip
    assert table["text"]["train__joy__clip 0"] == "Hooray!"
    assert table["label_joy"]["dev__joy__clip 2"] == 1
    assert pitch(out / table["wav"]["test__joy__dubbed"]) == pytest.approx(880, abs=3)
    np.testing.assert_allclose(greys(out / table["clip"]["test__anger__clip 3"]), [50] * 5 + [150] * 5, atol=3)


def test_sentiment_alone(films, tmp_path):
    root = tmp_path / "films"
    root.mkdir()
    for number in range(3):
        (root / f"{number}.mp4").symlink_to(films / "day 1" / "it's anna.mp4")
    rows = [{"video": str(number), "start": 0, "end": 1, "sentiment": number - 1} for number in range(3)]
    (root / "t.json").write_text(json.dumps(rows))
    summary = run(root, tmp_path / "out", split="random:utterance")
    assert (summary["kept"], summary["emotions"]) == (3, [])
    assert read_manifest(tmp_path / "out")["sentiment"].tolist() == [-1, 0, 1]


def test_another_folder_s_videos_are_not_replaced(films, tmp_path):
    content = '{"dataset": "folder", "source": "holidays"}'
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(
        DataError, match="holds the videos of a folder 'holidays', not of 'films'; choose another --out"
    ):
        run(films, tmp_path, max_reject_share=0.5)
    assert (tmp_path / "dataset.json").read_text() == content
    assert not (tmp_path / "clips").exists()


def test_a_playlist_with_the_name_of_a_video_is_not_played(tmp_path):
    root = tmp_path / "films"
    write_wav(tmp_path / "a.wav", tone(1.0, 440))
    film(tmp_path / "secret.mp4", [50, 150], tmp_path / "a.wav")
    root.mkdir()
    (root / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'secret.mp4'}\n#EXT-X-ENDLIST\n")
    (root / "t.csv").write_text("video,label\nlist.mp4,joy\n")
    with pytest.raises(DataError, match="no utterance .* is left"):
        run(root, tmp_path / "out")
    assert [reject.reason for reject in read_rejects(tmp_path / "out")] == ["video:unreadable"]

"""CMU-MOSEI's trees of cut clips through stages 1 and 2: real files of seconds, each known by pitch and grey."""

import csv

import numpy as np
import pytest

from data_tools.dataset import UtteranceDataset
from data_tools.manifest import read_manifest, read_rejects
from data_tools.media.audio import read_audio, write_wav
from data_tools.media.frames import read_frames
from data_tools.media.write import write_video
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config
from pipeline.stats import stats

QUIET = Reporter(quiet=True)
RATE = 16_000


def clip(path, grey, hertz, seconds=1.0, sound=True):
    """A striped picture of one mean grey and a tone."""
    stripes = np.where(np.arange(64) < 32, -8, 8)[None, :, None]
    frames = [np.broadcast_to(grey + stripes, (48, 64, 3)).astype(np.uint8)] * round(10 * seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = path.with_suffix(".tone.wav")
    tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    write_wav(wav, tone.astype(np.float32), RATE)
    write_video(path, frames, (64, 48), 10, audio=wav if sound else None)
    wav.unlink()


def pitch(path):
    samples = read_audio(path)
    return np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples)


def grey(path):
    frames = [frame for _, frame in read_frames(path, 1)]
    return len(frames), round(float(np.mean(frames)))


def run(root, out, dataset, **settings):
    values = load_config("datasets", dataset) | {"root": root, "out": out, "workers": 1} | settings
    return reorganize(ReorganizeSettings.checked(values, "test"), QUIET)


CLIPS = {"-3g5yACwYnA/10": (40, 300, "test"), "-3g5yACwYnA/2": (80, 400, "test"), "0123/0": (120, 500, "train"),
         "PtH_8O__EAY/1": (160, 600, "valid")}  # fmt: skip


@pytest.fixture(scope="module")
def mmsa(tmp_path_factory):
    """Four clips, one without sound, one that is none, one without a row; not to be changed."""
    root = tmp_path_factory.mktemp("mmsa") / "MOSEI"
    for name, (shade, hertz, _) in CLIPS.items():
        clip(root / "Raw" / f"{name}.mp4", shade, hertz)
    clip(root / "Raw" / "0123" / "7.mp4", 60, 700, sound=False)
    clip(root / "Raw" / "0123" / "8.mp4", 60, 700)
    (root / "Raw" / "0123" / "9.mp4").write_bytes(b"not a film")
    rows = [[*name.split("/"), f"Text, {name}", i - 1.5, "", "", "", "", fold] for i, (name, (*_, fold)) in
            enumerate(CLIPS.items())]  # fmt: skip
    rows += [["0123", n, "x", 1, "", "", "", "", "train"] for n in (7, 9)]
    with (root / "label.csv").open("w", newline="", encoding="utf-8-sig") as file:
        header = ["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode"]
        csv.writer(file).writerows([header, *rows])
    return root


def test_sentiment_of_whole_clips_through_both_stages(mmsa, tmp_path):
    out = tmp_path / "out"
    summary = run(mmsa, out, "mosei-sentiment", split="release", max_reject_share=0.5)
    assert summary["reasons"] == {"no_audio": 1, "unlabelled": 1, "video:unreadable": 1}
    table = read_manifest(out).set_index("utterance_id")
    assert list(table.index) == sorted(name.replace("/", "_") for name in CLIPS)
    for i, (name, (shade, hertz, fold)) in enumerate(CLIPS.items()):
        row = table.loc[name.replace("/", "_")]
        assert (row["split"], row["text"], row["sentiment"]) == (fold, f"Text, {name}", i - 1.5)
        assert row["end_s"] == pytest.approx(1.0, abs=0.06)
        count, found = grey(out / row["clip"])
        assert count == 10
        assert found == pytest.approx(shade, abs=3)
        assert pitch(out / row["wav"]) == pytest.approx(hertz, abs=5)
    preprocess(PreprocessSettings(data=out, workers=1), QUIET)
    dataset = UtteranceDataset(out, split="test")
    assert dataset.emotions == []
    sample = dataset[0]
    assert (sample.id, sample.sentiment, tuple(sample.labels.shape)) == ("-3g5yACwYnA_10", -1.5, (0,))
    assert sample.faces.shape == (0, 3, 48, 48)  # grey pictures show nobody
    described = stats(out)["splits"]
    counts = {name: part["utterances"] for name, part in described.items()}
    assert counts == {"train": 1, "valid": 1, "test": 2, "all": 4}
    assert {sign: part["utterances"] for sign, part in described["all"]["sentiment"].items()} == {
        "negative": 2, "zero": 0, "positive": 2}  # fmt: skip


def test_the_releases_own_clips_are_cut_where_the_full_video_is_missing(tmp_path):
    root, out = tmp_path / "Raw", tmp_path / "out"
    for name, seconds in (("-v_0", 1.2), ("-v_1", 5.0)):
        clip(root / "Videos" / "Segmented" / "Combined" / f"{name}.mp4", 90, 450, seconds)
    clip(root / "Videos" / "Full" / "Combined" / "w.mp4", 120, 650, 3.0)
    transcripts = root / "Transcript" / "Segmented" / "Combined"
    transcripts.mkdir(parents=True)
    (transcripts / "-v.txt").write_text("-v___0___100.5___101.5___Hello.\n-v___1___200___201___Far too long.\n")
    (transcripts / "w.txt").write_text("w___0___0.5___2___Hello.\nw___1___528___535___Times of another film.\n")
    (root / "Labels").mkdir()
    answers = ",".join(f"Answer.{name}" for name in ("anger", "disgust", "fear", "happiness", "sadness", "surprise"))
    rows = "".join(f"{video},{clip},0,0,0,1,0,0\n" for video in ("-v", "w") for clip in (0, 1))
    (root / "Labels" / "batch.csv").write_text(f"Input.VIDEO_ID,Input.CLIP,{answers}\n{rows}")
    summary = run(root, out, "mosei", max_reject_share=0.5)
    assert [(r.utterance_id, r.reason) for r in read_rejects(out)] == [
        ("w_1", "interval:outside"), ("-v_1", "clip:length")]  # fmt: skip
    table = read_manifest(out).set_index("utterance_id")
    assert list(table.index) == ["-v_0", "w_0"]
    assert grey(out / table.loc["-v_0", "clip"]) == (12, pytest.approx(90, abs=3))
    assert grey(out / table.loc["w_0", "clip"]) == (15, pytest.approx(120, abs=3))
    assert [pitch(out / wav) for wav in table["wav"]] == pytest.approx([450, 650], abs=5)
    assert any(note.startswith("2 utterances are clips that the release cut itself") for note in summary["notes"])

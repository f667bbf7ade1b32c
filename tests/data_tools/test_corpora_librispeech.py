"""The reader of LibriSpeech on a small tree in the real layout, and from there to a pretrained model."""

import math

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.librispeech import SUBSETS
from data_tools.corpora.readers import read_release
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.manifest import read_manifest
from pipeline.check import check
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.pretrain import PretrainSettings, pretrain
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import ModelSpec, load_config
from pipeline.train import train
from pipeline.training.settings import TrainSettings

QUIET = Reporter(quiet=True)
SPEAKERS = (
    "; ID | SEX | SUBSET | MINUTES | NAME\n14   | F | train-clean-360  | 25.03 | A Reader\n26 | M | dev-clean | 8 | B\n"
)


def write_chapter(root, subset, reader, chapter, words, sound=True):
    """words: of each utterance from 0000 on. sound: flacs of half a second; else empty files."""
    folder = root / subset / str(reader) / str(chapter)
    folder.mkdir(parents=True)
    lines = [f"{reader}-{chapter}-{i:04} {text}\n" for i, text in enumerate(words)]
    (folder / f"{reader}-{chapter}.trans.txt").write_text("".join(lines), encoding="utf-8")
    for i in range(len(words)):
        path = folder / f"{reader}-{chapter}-{i:04}.flac"
        if sound:
            noise = np.random.default_rng([reader, i]).normal(0, 0.1, 8000)
            soundfile.write(path, noise.astype(np.float32), 16_000, subtype="PCM_16")
        else:
            path.touch()
    return folder


@pytest.fixture
def small(tmp_path):
    root = tmp_path / "LibriSpeech"
    write_chapter(root, "train-clean-100", 14, 208, ["CHAPTER ONE", "IT RAINED ALL DAY"], sound=False)
    write_chapter(root, "dev-clean", 26, 495, ["SHE IS BACK"], sound=False)
    (root / "SPEAKERS.TXT").write_text(SPEAKERS)
    return root


def settings_of(root, out, **values):
    values = load_config("datasets", "librispeech") | {"root": root, "out": out, "workers": 1} | values
    return ReorganizeSettings.checked(values, "test")


def test_a_line_is_an_utterance_of_words_and_sound(small):
    release = read_release("librispeech", small.parent, [], modalities="ta")
    assert release.rejects == []
    assert [(u.utterance_id, u.dialogue_id, u.speaker, u.fold, u.text) for u in release.utterances] == [
        ("14-208-0000", "14-208", "14", "train", "CHAPTER ONE"),
        ("14-208-0001", "14-208", "14", "train", "IT RAINED ALL DAY"),
        ("26-495-0000", "26-495", "26", "valid", "SHE IS BACK"),
    ]
    one = release.utterances[0]
    assert (one.source_video, one.source_audio) == ("", "train-clean-100/14/208/14-208-0000.flac")
    assert (one.start_s, one.end_s, one.audio_is_cut, one.labels, one.sentiment) == (0, math.inf, True, {}, None)
    assert release.facts == {"subset": {"train-clean-100": 2, "dev-clean": 1}, "readers": {"F": 1, "M": 1}}
    assert "not there: train-clean-360, train-other-500, dev-other, test-clean, test-other" in release.notes


def test_subsets_can_be_chosen(small):
    release = read_release("librispeech", small, [], {"subsets": ["dev-clean"]}, modalities="a")
    assert [u.utterance_id for u in release.utterances] == ["26-495-0000"]
    with pytest.raises(DataError, match="subsets has dev; expected a list of train-clean-100"):
        read_release("librispeech", small, [], {"subsets": ["dev"]}, modalities="a")


def test_lines_and_sounds_that_have_no_other(small):
    folder = small / "train-clean-100" / "14" / "208"
    (folder / "14-208-0000.flac").unlink()
    (folder / "14-208-0007.flac").touch()
    with (folder / "14-208.trans.txt").open("a") as file:
        file.write("14-208-0001 AGAIN\n\nno id here\n99-1-0000 ANOTHER CHAPTER\n14-208-0008\n")
    (folder / "14-208-0008.flac").touch()
    (small / "dev-clean" / "26" / "495" / "26-495.trans.txt").unlink()
    release = read_release("librispeech", small, [], modalities="ta")
    assert {(r.utterance_id, r.reason) for r in release.rejects} == {
        ("14-208-0000", "no_audio"),
        ("14-208-0007", "no_transcript"),
        ("14-208-0008", "no_words"),
        (None, "transcript:duplicate"),
        (None, "transcript:unreadable"),
        ("26-495-0000", "no_transcript"),
    }
    assert sum(r.reason == "transcript:unreadable" for r in release.rejects) == 3
    assert [u.utterance_id for u in release.utterances] == ["14-208-0001"]


def test_what_cannot_be_read_at_all(small, tmp_path):
    with pytest.raises(DataError, match=r"which has no pictures; give --set modalities=ta"):
        read_release("librispeech", small, [])
    with pytest.raises(DataError, match="it has none, only sentiment"):
        read_release("librispeech", small, ["happy"], modalities="ta")
    for place in (small, small.parent):
        archive = place / "train-clean-360.tar.gz"
        archive.touch()
        with pytest.raises(
            DataError, match=rf"not unpacked, e.g. {archive}; run `tar -xzf {archive} -C {small.parent}`"
        ):
            read_release("librispeech", small, [], modalities="ta")
        archive.unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no librispeech release"):
        read_release("librispeech", tmp_path / "empty", [], modalities="ta")


def test_the_published_counts_of_librispeech_add_up():
    published = settings_of("raw", "out").published
    subsets, split = published.facts["subset"], published.splits[0].utterances
    assert set(subsets) == set(SUBSETS)
    for fold, count in split.items():
        assert sum(subsets[name] for name in SUBSETS if SUBSETS[name] == fold) == count
    assert sum(split.values()) == published.utterances == 292_367
    assert split["train"] == 281_241


@settings(max_examples=40, deadline=None)
@given(lines=st.lists(st.text(max_size=30), max_size=6))
def test_any_transcript_is_read_or_rejected(tmp_path_factory, lines):
    root = tmp_path_factory.mktemp("any") / "LibriSpeech"
    folder = write_chapter(root, "test-other", 5, 6, ["FINE"], sound=False)
    with (folder / "5-6.trans.txt").open("a", encoding="utf-8", errors="replace") as file:
        file.write("\n".join(lines))
    release = read_release("librispeech", root, [], modalities="ta")
    assert "5-6-0000" in {u.utterance_id for u in release.utterances}


def test_from_the_release_to_a_pretrained_model(tmp_path):
    root, data = tmp_path / "raw" / "LibriSpeech", tmp_path / "data"
    for subset, reader, chapter in (("train-clean-100", 14, 208), ("dev-clean", 26, 495), ("test-clean", 61, 70)):
        write_chapter(root, subset, reader, chapter, ["IT RAINED ALL DAY", "AND THE NEXT", "AND THE NEXT"])
    found = check(settings_of(tmp_path / "raw", data))
    assert (found["problems"], found["utterances"]["usable"]) == ([], 9)
    assert found["facts"]["subset"]["dev-clean"] == {"found": 3, "published": 2703}
    summary = reorganize(settings_of(tmp_path / "raw", data), QUIET)
    assert (summary["kept"], summary["rejected"], summary["without_picture"]) == (9, 0, 9)
    assert preprocess(PreprocessSettings(data=data, workers=1), QUIET)["utterances"] == 9
    table = read_manifest(data)
    assert set(table["clip"]) == {""}
    assert table["end_s"].tolist() == pytest.approx([0.5] * 9)
    assert not list(data.glob("clips/**/*.mp4"))
    sample = UtteranceDataset(data, "valid")[0]
    assert (len(sample.faces), len(sample.chunks), sample.text) == (0, 2, "IT RAINED ALL DAY")
    plain = {"epochs": 1, "batch_size": 4, "precision": "32-true", "device": "cpu", "data": data}
    small = {"text_encoder": "tiny", "width": 32, "heads": 2, "feed_forward": 32, "layers": 1}
    result = pretrain(
        TrainSettings(out=tmp_path / "mlm", **plain),
        PretrainSettings(stage="mlm", codewords=8, code_size=8),
        ModelSpec.from_dict({"name": "cmt"} | small),
        QUIET,
    )
    assert math.isfinite(result["valid_loss"])
    assert len(pd.read_csv(tmp_path / "mlm" / "log.csv")) == 1
    with pytest.raises(DataError, match=r"has the label of the task 'sentiment' \(no sentiment\)"):
        train(TrainSettings(**plain), ModelSpec.from_dict({"name": "fe2e", "text_encoder": "tiny"}), QUIET)

"""Utterances without sound or without picture, where the user says that they need none."""

import pandas as pd
import pytest
from acted import write_clip, write_performance, write_sound
from listener import Listener

from data_tools.dataset import UtteranceDataset, collate
from data_tools.manifest import read_manifest, read_rejects
from data_tools.media.source import probe
from pipeline.check import check
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.extract import ExtractSettings, extract
from pipeline.inspect import inspect
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import ConfigError, ModelSpec, load_config
from pipeline.train import train
from pipeline.training.settings import TrainSettings

QUIET = Reporter(quiet=True)


def settings_for(dataset, root, out, modalities, **changes):
    values = load_config("datasets", dataset) | {"root": root, "out": out, "workers": 1, "modalities": modalities}
    return ReorganizeSettings.checked(values | {"split": "random:utterance"} | changes, "test")


def tokenize(texts):
    import torch

    return torch.zeros(len(texts), 1, dtype=torch.int64), torch.ones(len(texts), 1, dtype=torch.bool)


@pytest.fixture(scope="module")
def ravdess(tmp_path_factory):
    """Six performances by six actors: of the first two nothing has a sound. Not to be changed."""
    root = tmp_path_factory.mktemp("absent") / "raw"
    for seed in range(6):
        name = f"01-0{3 + 2 * (seed % 2)}-01-01-01-0{seed + 1}"
        write_performance(root, name, 0.9, seed)
        if seed < 2:
            (root / f"Actor_0{seed + 1}" / f"01-{name}.mp4").unlink()
            (root / f"Actor_0{seed + 1}" / f"03-{name}.wav").unlink()
    return root


@pytest.fixture(scope="module")
def silent(tmp_path_factory, ravdess):
    """(data folder, summary) of all six, of which two have no sound. Not to be changed."""
    out = tmp_path_factory.mktemp("silent") / "data"
    summary = reorganize(settings_for("ravdess", ravdess, out, "v", emotions=["happy", "angry"]), QUIET)
    preprocess(PreprocessSettings(data=out, workers=1), QUIET)
    return out, summary


def test_performances_without_sound_are_utterances_with_a_picture_alone(silent):
    data, summary = silent
    assert (summary["kept"], summary["rejected"]) == (6, 0)
    assert (summary["modalities"], summary["without_sound"], summary["without_picture"]) == ("v", 2, 0)
    table = read_manifest(data).set_index("utterance_id")
    without = table.index[table["wav"] == ""].tolist()
    assert without == ["01-01-03-01-01-01-01", "01-01-05-01-01-01-02"]
    for name, row in table.iterrows():
        assert probe(data / row["clip"]).has_audio == (name not in without)
        assert (data / "clips" / row["dialogue_id"] / f"{name}.wav").is_file() == (name not in without)
        assert row["end_s"] == pytest.approx(0.9, abs=0.11)


def test_an_absent_sound_has_no_chunks_and_the_models_are_told(silent):
    dataset = UtteranceDataset(silent[0])
    samples = [dataset[i] for i in range(6)]
    # By id: of each emotion the first actor has no sound.
    assert [len(sample.chunks) for sample in samples] == [0, 3, 3, 0, 3, 3]
    batch = collate(samples, tokenize)
    assert batch.present("a").tolist() == [False, True, True, False, True, True]
    dataset.waveforms = True
    assert [len(dataset[i].features["w"]) > 0 for i in range(6)] == batch.present("a").tolist()


def test_nothing_is_done_twice(silent, ravdess):
    said, data = Listener(), silent[0]
    before = (data / "utterances.parquet").read_bytes()
    reorganize(settings_for("ravdess", ravdess, data, "v", emotions=["happy", "angry"]), said)
    assert "6 of 6 dialogues are done already and are kept" in said.lines
    assert "2 of the 6 kept have no sound" in said.lines
    summary = preprocess(PreprocessSettings(data=data, workers=1), QUIET)
    assert (summary["utterances"], summary["rejected"]) == (6, 0)
    assert (data / "utterances.parquet").read_bytes() == before


def test_the_stages_after_it_work_on_such_data(silent, ravdess, tmp_path):
    data = silent[0]
    found = check(settings_for("ravdess", ravdess, tmp_path / "none", "v", emotions=["happy", "angry"]))
    assert found["problems"] == []
    inspect(data, (), tmp_path / "page.html", 6, 0, QUIET)
    assert "01-01-03-01-01-01-01" in (tmp_path / "page.html").read_text(encoding="utf-8")
    extract(ExtractSettings(data=data, features="mel", modalities="av", audio="mel", workers=1), QUIET)
    run = tmp_path / "run"
    model = ModelSpec.from_dict({"name": "fe2e", "text_encoder": "tiny", "width": 4, "layers": 1})
    train(TrainSettings(data=data, out=run, epochs=1, batch_size=4, precision="32-true"), model, QUIET)
    assert evaluate(EvaluateSettings(run=run), QUIET)["utterances"] == 1
    assert len(pd.read_parquet(run / "predictions.parquet")) == 2


def test_sound_alone_and_a_video_without_a_track(tmp_path):
    root = tmp_path / "mine"
    write_clip(root / "glad" / "both.mp4", seed=1)
    write_clip(root / "glad" / "mute.mp4", sound=False, seed=2)
    write_sound(root / "sour" / "voice.wav", seed=3)
    write_sound(root / "glad" / "both.wav", seed=4)
    kept = {}
    for modalities in ("a", "v"):
        out = tmp_path / modalities
        reorganize(settings_for("folder", root, out, modalities, max_reject_share=1.0), QUIET)
        table = read_manifest(out)
        kept[modalities] = {
            row.utterance_id: (bool(row.clip), bool(row.wav), row.fps) for row in table.itertuples(index=False)
        }
        assert read_rejects(out) == [] or {r.reason for r in read_rejects(out)} == {"no_audio"}
        assert preprocess(PreprocessSettings(data=out, workers=1), QUIET)["rejected"] == 0
    assert kept == {
        "a": {"glad__both": (True, True, 10.0), "sour__voice": (False, True, 0.0)},
        "v": {"glad__both": (True, True, 10.0), "glad__mute": (True, False, 10.0)},
    }
    seconds = read_manifest(tmp_path / "a").set_index("utterance_id")["end_s"]
    assert seconds["sour__voice"] == pytest.approx(0.6, abs=0.01)


def test_a_blank_modality_that_is_not_needed_is_absent(tmp_path):
    import numpy as np

    from data_tools.media.audio import write_wav

    root = tmp_path / "mine"
    write_clip(root / "glad" / "still.mp4", seed=1)
    write_wav(root / "glad" / "still.wav", np.zeros(9600, np.float32))
    reorganize(settings_for("folder", root, tmp_path / "data", "v"), QUIET)
    assert preprocess(PreprocessSettings(data=tmp_path / "data", workers=1), QUIET)["rejected"] == 0
    sample = UtteranceDataset(tmp_path / "data")[0]
    assert len(sample.chunks) == 0


def test_text_may_be_asked_for(tmp_path):
    root = tmp_path / "mine"
    for name in ("said", "mute"):
        write_clip(root / "glad" / f"{name}.mp4")
    (root / "glad" / "said.txt").write_text("Here I am.", encoding="utf-8")
    reorganize(settings_for("folder", root, tmp_path / "data", "tav", max_reject_share=1.0), QUIET)
    assert [(r.utterance_id, r.reason) for r in read_rejects(tmp_path / "data")] == [("glad__mute", "no_words")]
    for wrong in ("t", "aa", "ax", ""):
        with pytest.raises(ConfigError, match="give letters of tav"):
            settings_for("folder", root, tmp_path / "data", wrong)

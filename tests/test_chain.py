"""The whole chain on a tiny stand-in of each corpus, from the release on disk to a prediction and a page."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import models
from data_tools.dataset import UtteranceDataset, collate
from data_tools.manifest import read_manifest, read_rejects
from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from data_tools.standin.release import write_standin
from data_tools.store import DialogueStore, store_path
from pipeline.counting.model import count_run
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.extract import ExtractSettings, extract
from pipeline.extract_sequences import FreshFeatures, Source
from pipeline.predict import failed, format_predictions, predict, words_said
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.report.report import Run, write_report
from pipeline.run import RunDir
from pipeline.settings import ConfigError, ModelSpec, load_config
from pipeline.stats import stats
from pipeline.train import train
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

QUIET = Reporter(quiet=True)
SMALL = {"text_encoder": "tiny", "width": 8, "layers": 1}
ROOTS = {"iemocap": "IEMOCAP_full_release", "mosei": "CMU_MOSEI"}


class Chain:
    """A folder in which the stages have run: release, data, and a run of each model."""

    def __init__(self, folder, dataset):
        self.folder, self.dataset, self.data = folder, dataset, folder / "data"
        write_standin(dataset, folder / "raw", utterances=24, seed=3, workers=1)
        values = {"root": folder / "raw" / ROOTS[dataset], "out": self.data, "split": "random", "workers": 1}
        self.reorganized = reorganize(
            ReorganizeSettings.checked(load_config("datasets", dataset) | values, "test"), QUIET
        )
        self.preprocessed = preprocess(PreprocessSettings(data=self.data, workers=1), QUIET)
        settings = {
            "data": self.data,
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "monitor": "loss",
            "precision": "32-true",
        }
        self.runs = []
        for name, own in (("fe2e", {}), ("mesm", {"top_p": 0.5})):
            out = folder / "runs" / name
            summary = train(TrainSettings(**settings, out=out), spec({"name": name, **SMALL, **own}), QUIET)
            self.runs.append(Run(name, out, summary))


# CMU-MOSEI from its files to samples is in every run of test_corruption.py too.
@pytest.fixture(scope="module", params=["iemocap", pytest.param("mosei", marks=pytest.mark.slow)])
def chain(request, tmp_path_factory):
    return Chain(tmp_path_factory.mktemp(request.param), request.param)


def test_nothing_is_lost_on_the_way(chain):
    table = read_manifest(chain.data)
    assert len(table) == 24
    assert chain.preprocessed["utterances"] == 24
    assert set(table["split"]) == {"train", "valid", "test"}
    assert {r.reason.split(":")[0] for r in read_rejects(chain.data)} <= {"label", "unlabelled", "no_transcript"}
    for name in table["clip"].tolist() + table["wav"].tolist():
        assert (chain.data / name).stat().st_size > 0


def test_samples_hold_what_the_clips_last(chain):
    data = UtteranceDataset(chain.data)
    assert len(data) == 24
    for i in range(len(data)):
        sample, row = data[i], data.table.iloc[i]
        seconds = row["end_s"] - row["start_s"]
        assert abs(len(sample.faces) - seconds / 0.5) <= 1
        assert abs(len(sample.chunks) - seconds / 0.4) <= 1
        assert sample.text == row["text"]
    scores = torch.cat([data[i].face_scores for i in range(len(data))])
    assert (scores > 0).float().mean() > 0.9


def test_stats_count_what_is_there(chain):
    counted = stats(chain.data)["splits"]
    assert counted["all"]["utterances"] == 24
    assert sum(counted[split]["utterances"] for split in ("train", "valid", "test")) == 24
    table = read_manifest(chain.data)
    assert counted["all"]["seconds"] == pytest.approx((table["end_s"] - table["start_s"]).sum(), abs=0.1)


def test_scores_are_recomputed_by_evaluate(chain):
    for run in chain.runs:
        before = json.loads((run.folder / "metrics.json").read_text())["splits"]["test"]
        again = evaluate(EvaluateSettings(run=run.folder), QUIET)
        assert again == before
        assert "stand-in" in again["notice"]
        predictions = pd.read_parquet(run.folder / "predictions.parquet")
        test = predictions[predictions["split"] == "test"].set_index("utterance_id")
        emotion = UtteranceDataset(chain.data).emotions[0]
        right = (test[f"predicted_{emotion}"] == (test[f"label_{emotion}"] >= 0.5)).mean()
        entry = again["metrics"]["multi_label"]["accuracy"]["per_emotion"][emotion]
        assert entry["value"] == pytest.approx(right)
        assert again["utterances"] == len(test)


def test_predict_sees_what_training_saw(chain):
    """The clip of a test utterance, predicted from its file, gets the score that evaluation gave it."""
    run = chain.runs[1]
    data = UtteranceDataset(chain.data, "test")
    row = data.table.iloc[0]
    answer = predict(run.folder, [chain.data / row["clip"]], row["text"], "cpu", QUIET)
    scores = pd.read_parquet(run.folder / "predictions.parquet").set_index("utterance_id").loc[row["utterance_id"]]
    # The clip's own sound track is AAC, the wav is not: near, not equal.
    for emotion, score in answer["files"][0]["scores"].items():
        assert score == pytest.approx(scores[f"score_{emotion}"], abs=0.05)
    assert answer["files"][0]["absent"] == []
    assert "stand-in" in format_predictions(answer)


def test_predict_says_what_is_absent(chain, tmp_path):
    blank = (np.full((64, 64, 3), 40, np.uint8) for _ in range(20))
    write_video(tmp_path / "blank.mp4", blank, (64, 64), 10)
    write_wav(tmp_path / "sound.wav", np.zeros(8000, np.float32), 16_000)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    write_wav(tmp_path / "empty.wav", np.zeros(0, np.float32), 16_000)
    blank = (np.full((64, 64, 3), 40, np.uint8) for _ in range(20))
    write_video(tmp_path / "mute.mkv", blank, (64, 64), 10, audio=tmp_path / "empty.wav")
    names = ["blank.mp4", "sound.wav", "broken.mp4", "mute.mkv"]
    result = predict(chain.runs[0].folder, [tmp_path / name for name in names], None, "cpu", QUIET)
    blank_answer, sound, broken, mute = result["files"]
    for answer in (blank_answer, sound, mute):
        assert "has nothing that the model reads: " in answer["error"]
        assert all(part in answer["error"] for part in ("no sound: ", "no picture: ", "no words: "))
        assert answer["scores"] == {}
    # The same eyes and ears as those of `preprocess`, which rejects such clips.
    assert "one flat colour" in blank_answer["error"]
    assert "level of -120.0 dBFS" in sound["error"]
    assert "broken.mp4" in broken["error"]
    assert failed(result)
    assert "error" in format_predictions(result)
    short = 0.5 * np.sin(np.arange(16_000) / 20).astype(np.float32)
    write_wav(tmp_path / "short.wav", short, 16_000)
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8)
    write_video(tmp_path / "short.mkv", iter(noise), (64, 64), 10, audio=tmp_path / "short.wav")
    (answer,) = predict(chain.runs[0].folder, [tmp_path / "short.mkv"], "Hello.", "cpu", QUIET)["files"]
    assert [part.split(":")[0] for part in answer["absent"]][:1] == ["no face"]
    with pytest.raises(ConfigError, match="--transcript"):
        predict(chain.runs[0].folder, [tmp_path / name for name in names], "hello", "cpu", QUIET)


def test_a_saved_model_is_the_trained_one(chain):
    data = UtteranceDataset(chain.data, "test")
    model = models.load(chain.runs[1].folder)
    with torch.inference_mode():
        logits = model(collate([data[0], data[1]], models.tokenizer_for(model))).logits
    scores = pd.read_parquet(chain.runs[1].folder / "predictions.parquet").set_index("utterance_id")
    for i in range(2):
        expected = scores.loc[data[i].id, [f"score_{name}" for name in data.emotions]].to_numpy(float)
        np.testing.assert_allclose(logits[i].sigmoid().numpy(), expected, atol=1e-4)


def test_flops_of_a_run_are_those_of_its_log(chain):
    folder = chain.runs[1].folder
    last = pd.read_csv(folder / "log.csv").iloc[-1]
    counted = count_run(folder)["run"]["per_utterance"]
    assert counted["face"] == pytest.approx(last["face.macs"])
    assert counted["mel"] == pytest.approx(last["mel.macs"])


def test_the_page_shows_both_models_and_says_stand_in(chain, tmp_path):
    page = write_report(tmp_path / "report.html", chain.data, chain.runs, command="pipeline demo")
    text = page.read_text()
    assert "stand-in data" in text
    assert text.count("data:image/png;base64,") > 10
    for emotion in UtteranceDataset(chain.data).emotions:
        assert f"<td>{emotion}</td>" in text
    value = chain.runs[1].summary["splits"]["test"]["metrics"]["multi_label"]["accuracy"]["value"]
    assert f"<td>{value:.3f}</td>" in text


def test_the_page_of_another_task(chain, tmp_path):
    """Of one emotion each on IEMOCAP, of sentiment on CMU-MOSEI: training, scores, page."""
    task, protocol = {"iemocap": ("single-label", "single_label"), "mosei": ("sentiment", "sentiment")}[chain.dataset]
    settings = TrainSettings(
        data=chain.data, out=tmp_path / "run", task=task, epochs=1, batch_size=4, precision="32-true"
    )
    summary = train(settings, spec({"name": "mesm", "top_p": 0.5, **SMALL}), QUIET)
    runs = [Run("mesm", tmp_path / "run", summary)]
    text = write_report(tmp_path / "report.html", chain.data, runs, command="pipeline demo").read_text()
    entries = summary["splits"]["test"]["metrics"][protocol]
    assert {"single-label": "weighted_f1", "sentiment": "acc7_away_from_zero"}[task] in entries
    for name, entry in entries.items():
        shown = "undefined" if entry["value"] is None else f"{entry['value']:.3f}"
        assert f"<td>{name}</td><td>{entry['utterances']}</td><td>{shown}</td>" in text
    assert "stand-in data" in text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "a.srt",
            "1\n00:00:01,000 --> 00:00:02,000\nI am\n<i>glad</i>\n\n2\n00:00:03,000 --> 00:00:04,5\n42\n",
            "I am glad 42",
        ),
        ("b.txt", "\ufeffso it\r\nis\r\n", "so it is"),
        ("c.srt", "", ""),
    ],
)
def test_transcripts_are_words_alone(tmp_path, name, content, words):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert words_said(str(tmp_path / name)) == words
    assert words_said("just words.") == "just words."


def test_a_missing_transcript_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.srt"):
        words_said(str(tmp_path / "none.srt"))


def test_a_model_on_extracted_features_goes_the_whole_way(chain, tmp_path):
    made = extract(ExtractSettings(data=chain.data, text_encoder="tiny", workers=1), QUIET)
    assert made["utterances"] == 24
    assert made["sizes"] == {"t": 32, "a": 33, "v": 142}
    values = {"data": chain.data, "epochs": 1, "batch_size": 4, "monitor": "loss", "precision": "32-true"}
    summary = train(
        TrainSettings(**values, out=tmp_path / "mult"),
        spec({"name": "mult", "size": 10, "layers": 1}),
        QUIET,
    )
    test = evaluate(EvaluateSettings(run=tmp_path / "mult"), QUIET)
    assert test == summary["splits"]["test"]
    # A clip as a file has the same features, but for the sound, which is coded in it.
    row = UtteranceDataset(chain.data, "test").table.iloc[0]
    clip, text = chain.data / row["clip"], row["text"]
    answer = predict(tmp_path / "mult", [clip], text, "cpu", QUIET)["files"][0]
    assert answer["error"] is None
    use = RunDir(tmp_path / "mult").facts().features
    data = UtteranceDataset(chain.data, "test", features=use.name)
    use.apply(data)
    stored = DialogueStore(store_path(chain.data, row["dialogue_id"]))[row["utterance_id"]]
    fresh = FreshFeatures(use).make(Source(chain.data / row["wav"], text, stored, 500))
    assert all(torch.equal(fresh[letter], values) for letter, values in data[0].features.items())
    silent = train(
        TrainSettings(**values, out=tmp_path / "tv"),
        spec({"name": "mult", "size": 10, "layers": 1, "modalities": "tv"}),
        QUIET,
    )
    answer = predict(tmp_path / "tv", [clip], text, "cpu", QUIET)["files"][0]
    predictions = pd.read_parquet(f"{silent['run']}/predictions.parquet").set_index("utterance_id")
    for name, score in answer["scores"].items():
        assert score == pytest.approx(predictions.loc[row["utterance_id"], f"score_{name}"], abs=1e-4)

"""One run on several data folders, in the emotions of a label map."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import models
import pipeline
from data_tools.batch import Batch
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import write_json
from data_tools.joined import join
from data_tools.manifest import read_manifest
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.extract import ExtractSettings, extract
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.settings import ConfigError, ModelSpec
from pipeline.train import prepare, train
from pipeline.training.batches import HeldBatches, OrderedBatches, lengths_of, train_loader
from pipeline.training.settings import TrainSettings

QUIET = Reporter(quiet=True)
MODEL = ModelSpec.from_dict({"name": "fe2e", "text_encoder": "tiny", "width": 4, "layers": 1})
SIZES = {"train": 6, "valid": 6, "test": 6}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, two_corpora):
    return two_corpora(tmp_path_factory.mktemp("several"), SIZES, ("session:5", "random"))


def settings_for(folders, out=None, **changes):
    names = {"labels": str(folders[0].parent / "names.yaml")}
    values = {"data": list(folders), "out": out, "epochs": 1, "batch_size": 4, "precision": "32-true", "device": "cpu"}
    return TrainSettings.checked(values | names | changes, "test")


@pytest.fixture(scope="module")
def both(tmp_path_factory, folders):
    """(run folder, what `train` gave back) of one run on both. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "both"
    return run, train(settings_for(folders, run), MODEL, QUIET)


def test_a_run_learns_from_all_folders_what_they_have_in_common(both, folders):
    facts = RunDir(both[0]).facts()
    assert facts.emotions == ["joy", "anger"]
    assert (facts.train_utterances, facts.train_positives) == (8, {"joy": 4, "anger": 4})
    left_out = {"sad": 2, "bored": 2}
    assert facts.without_counterpart == {"train": left_out, "valid": left_out}
    assert [facts.folder, *facts.more_folders] == [folder.as_posix() for folder in folders]
    assert facts.dataset["dataset"] == "toy+elsewhere"
    assert facts.notice is not None  # one of the two is a stand-in
    known = json.loads((both[0] / "splits.json").read_text())["train"]
    assert known == ["train_00", "train_01", "train_03", "train_04"] + [f"b_train_{i:02d}" for i in (0, 1, 3, 4)]


def test_scores_are_of_all_together_and_of_each_folder(both, folders):
    run, summary = both
    place = RunDir(run)
    whole = place.read_own_scores()
    assert (whole["test"]["utterances"], whole["valid"]["utterances"]) == (8, 8)
    assert whole["test"]["split_protocol"] == "session:5 of toy, random of elsewhere"
    assert whole["test"]["labels"]["data"]["elsewhere"] == {"furious": "anger", "glad": "joy"}
    assert summary["splits"]["test"] == whole["test"]
    right = []
    for folder in folders:
        report = place.read_scores(folder)["test"]
        assert (report["utterances"], report["labels"]["map"]) == (4, "names")
        right.append(report["metrics"]["single_label"]["accuracy"]["value"])
    assert whole["test"]["metrics"]["single_label"]["accuracy"]["value"] == pytest.approx(np.mean(right))


def test_evaluating_again_gives_the_same(both, folders, tmp_path):
    before = {path.name: path.read_bytes() for path in both[0].glob("metrics*.json")}
    assert len(before) == 3
    for data in (None, *folders):
        evaluate(EvaluateSettings(run=both[0], data=data, device="cpu"), QUIET)
    assert {path.name: path.read_bytes() for path in both[0].glob("metrics*.json")} == before


def test_a_run_on_one_folder_with_a_map_is_scored_on_another(folders, tmp_path):
    run = tmp_path / "run"
    train(settings_for(folders[:1], run), MODEL, QUIET)
    assert RunDir(run).facts().emotions == ["joy", "grief", "anger"]
    report = evaluate(EvaluateSettings(run=run, data=folders[1], device="cpu"), QUIET)
    assert report["labels"]["emotions"] == ["joy", "anger"]
    table = pd.read_parquet(RunDir(run).predictions(folders[1]))
    # The answer of the run without the one emotion that the data do not have.
    dataset = UtteranceDataset(folders[1], "test")
    model = models.load(run)
    loader = train_loader(dataset, OrderedBatches(6, 6), models.tokenizer_for(model))
    (batch,) = loader
    with torch.no_grad():
        scores = model.eval()(batch).logits[:, [0, 2]].softmax(1).numpy()
    kept = [not name.endswith(("02", "05")) for name in batch.ids]
    np.testing.assert_allclose(table[["score_joy", "score_anger"]].to_numpy(), scores[kept], atol=1e-5)


def test_what_is_passed_on_names_the_map_and_knows_its_data(both, folders, tmp_path):
    pipeline.share(run=both[0], to=str(tmp_path / "shared"), quiet=True)
    card = (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")
    assert "Labels by the map names: joy, anger; left out, without counterpart: 2 with sad, 2 with bored." in card
    report = evaluate(EvaluateSettings(run=tmp_path / "shared", data=folders[1], device="cpu"), QUIET)
    assert report["metrics"] == RunDir(both[0]).read_scores(folders[1])["test"]["metrics"]


def test_a_run_of_features_learns_from_both_and_has_one_scale(folders, tmp_path):
    for folder in folders:
        extract(ExtractSettings(data=folder, features="mel", modalities="av", audio="mel", workers=1), QUIET)
    model = ModelSpec.from_dict({"name": "lf-lstm", "modalities": "av", "size": 4})
    prepared = prepare(settings_for(folders, features="mel"), model)
    scale = prepared.train_split.fit_scale().lists()["mean"]["a"]
    values = torch.cat([steps["a"] for part in prepared.train_split.parts for steps in part.stored_features()])
    np.testing.assert_allclose(scale, values.mean(0), atol=1e-5)
    train(settings_for(folders, tmp_path / "run", features="mel"), model, QUIET)
    assert RunDir(tmp_path / "run").read_own_scores()["test"]["utterances"] == 8


def test_what_explain_shows_has_the_emotions_of_the_map(folders, tmp_path):
    run = tmp_path / "run"
    sparse = ModelSpec.from_dict({"name": "mesm", "text_encoder": "tiny", "width": 4, "layers": 1})
    train(settings_for(folders, run), sparse, QUIET)
    with pytest.raises(ConfigError, match=r"was trained on several data folders .*name one with --data"):
        pipeline.explain(run=run, quiet=True)
    shown = pipeline.explain(run=run, data=folders[1], quiet=True)
    assert set(shown["pictures"]) <= {f"b_test_{i:02d}" for i in range(6)}
    page = Path(shown["page"]).read_text(encoding="utf-8")
    assert "joy" in page
    assert "glad" not in page


def test_joined_data_are_the_parts_one_after_the_other(folders):
    parts = [UtteranceDataset(folders[0], "train"), UtteranceDataset(folders[0], "valid")]
    joined = join(parts)
    expected = [sample for part in parts for sample in (part[i] for i in range(len(part)))]
    assert [sample.id for sample in (joined[i] for i in range(len(joined)))] == [sample.id for sample in expected]
    assert all(torch.equal(joined[i].faces, expected[i].faces) for i in range(len(joined)))
    np.testing.assert_array_equal(lengths_of(joined), np.concatenate([lengths_of(part) for part in parts]))
    again = pickle.loads(pickle.dumps(joined))  # as it travels to the processes that read
    assert again[7].id == joined[7].id
    kept = np.arange(len(joined)) % 3 == 1
    assert joined.only(kept).table["utterance_id"].tolist() == [s.id for s, k in zip(expected, kept, strict=True) if k]
    assert join(parts[:1]) is parts[0]


def test_held_batches_of_joined_data_are_those_of_a_loader(folders):
    joined = join([UtteranceDataset(folders[0], "train"), UtteranceDataset(folders[0], "valid")])
    tokenize = models.tokenizer_for(models.build("fe2e", outputs=3, **MODEL.given))
    order = OrderedBatches(len(joined), 5)
    held = HeldBatches(joined, order, tokenize, torch.device("cpu"))
    for one, other in zip(held, train_loader(joined, order, tokenize), strict=True):
        assert isinstance(one, Batch)
        assert one.ids == other.ids
        assert torch.equal(one.faces, other.faces)
        assert torch.equal(one.labels, other.labels)


def test_folders_that_cannot_be_learned_from_together(folders, tmp_path, corpus_writer):
    with pytest.raises(DataError, match=r"ang, hap, sad, .* furious, glad, bored; give --labels common"):
        prepare(settings_for(folders, labels=None), MODEL)
    again = corpus_writer(tmp_path / "again", SIZES)
    with pytest.raises(
        DataError, match=r"'test_00' is an utterance of .*first and of .*again: it may be in two splits"
    ):
        prepare(settings_for((folders[0], again), labels=None), MODEL)
    other = corpus_writer(tmp_path / "other", SIZES, prefix="c_")
    about = json.loads((other / "store" / "store.json").read_text())
    write_json(other / "store" / "store.json", about | {"settings": {"faces": {"margin_px": 4}, "mel": {}}})
    with pytest.raises(DataError, match=r"other was preprocessed with .*'margin_px': 4"):
        prepare(settings_for((folders[0], other), labels=None), MODEL)
    with pytest.raises(ConfigError, match="names a folder twice"):
        settings_for((folders[0], folders[0]))
    with pytest.raises(ConfigError, match="emotions are those of a label map"):
        settings_for(folders, labels=None, learn_emotions=["joy"])
    with pytest.raises(ConfigError, match=r"emotions has fear, which no utterance can have by the label map 'names'"):
        prepare(settings_for(folders, learn_emotions=["joy", "fear"]), MODEL)
    assert len(read_manifest(folders[0])) == sum(SIZES.values())


def test_emotions_that_one_folder_lacks_can_be_asked_for(folders):
    prepared = prepare(settings_for(folders, learn_emotions=["anger", "grief"]), MODEL)
    assert prepared.train_split.emotions == ["anger", "grief"]
    assert len(prepared.train_split) == 6


def test_sentiments_on_two_scales_are_refused(tmp_path, corpus_writer):
    made = [
        corpus_writer(tmp_path / name, SIZES, emotions=(), sentiment=lambda _, i, end=end: end * (-1) ** i, prefix=name)
        for name, end in (("one", 1.0), ("three", 3.0))
    ]
    with pytest.raises(ConfigError, match=r"on scales of their own \(.*one to 1, .*three to 3\)"):
        prepare(settings_for(made, labels=None), MODEL)

"""The whole chain on small RAVDESS, CREMA-D and MER2025 trees, to scores on people who are in no training utterance."""

import itertools

import pandas as pd
import pytest
from acted import write_display, write_film_clip, write_performance

from data_tools.manifest import read_manifest, read_rejects
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import ModelSpec, load_config
from pipeline.train import train
from pipeline.training.settings import TrainSettings

QUIET = Reporter(quiet=True)
ACTORS, LEFT_OUT = range(1, 6), 5


def write_release(dataset, root):
    """Five actors, each once in two emotions of the task and once in another; returns the two emotions."""
    for seed, (actor, emotion) in enumerate(itertools.product(ACTORS, range(3))):
        if dataset == "ravdess":
            write_performance(root, f"01-0{(3, 5, 4)[emotion]}-01-01-01-0{actor}", 0.9, seed)
        elif dataset == "mer2025":
            write_film_clip(root, f"film_{actor}_{emotion}", ("happy", "angry", "sad")[emotion], 0.9, seed)
        else:
            write_display(root, f"100{actor}_DFA_{('HAP', 'ANG', 'SAD')[emotion]}_XX", 0.9, seed)
    return ["happy", "anger" if dataset == "crema-d" else "angry"]


@pytest.mark.parametrize(("dataset", "first"), [("ravdess", "Actor_01"), ("crema-d", "1001"), ("mer2025", "film_1_0")])
def test_from_an_acted_release_to_scores_on_other_actors(tmp_path, dataset, first):
    data, run = tmp_path / "data", tmp_path / "run"
    emotions = write_release(dataset, tmp_path / "raw" / "release")
    values = load_config("datasets", dataset) | {
        "root": tmp_path / "raw", "out": data, "emotions": emotions, "workers": 1,
    }  # fmt: skip
    summary = reorganize(ReorganizeSettings.checked(values, "test"), QUIET)
    assert (summary["kept"], summary["task"]) == (2 * len(ACTORS), "single-label")
    assert {r.reason for r in read_rejects(data)} == {"label:sad"}
    assert len(read_rejects(data)) == LEFT_OUT
    preprocess(PreprocessSettings(data=data, workers=1), QUIET)
    stores = sorted(path.stem for path in (data / "store").glob("*.safetensors"))
    table = read_manifest(data).set_index("utterance_id")
    assert stores == sorted(set(table["speaker"])) == sorted(set(table["dialogue_id"]))
    assert stores[0] == first
    settings = TrainSettings(data=data, out=run, epochs=1, batch_size=4, precision="32-true")
    model = ModelSpec.from_dict({"name": "fe2e", "text_encoder": "tiny", "width": 8, "layers": 1})
    train(settings, model, QUIET)
    scores = evaluate(EvaluateSettings(run=run), QUIET)
    assert list(scores["metrics"]) == ["single_label"]
    predictions = pd.read_parquet(run / "predictions.parquet")
    tested = set(predictions.loc[predictions["split"] == "test", "utterance_id"])
    assert tested == set(table.index[table["split"] == "test"])
    assert scores["utterances"] == len(tested) == 2
    assert not set(table.loc[sorted(tested), "speaker"]) & set(table.loc[table["split"] == "train", "speaker"])

"""`python -m benchmarks selection` on a toy corpus: trained, broken off, gone on with, measured and written."""

import json
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
import torch
from listener import Listener
from torch.nn import functional as F

import models
from benchmarks.rows import rounded
from benchmarks.selection.page import as_markdown
from benchmarks.selection.sites import kept_sites
from benchmarks.selection.study import SelectionSettings, selection
from data_tools.dataset import UtteranceDataset, collate
from data_tools.store import DialogueStore, store_path, write_dialogue
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError
from pipeline.training.batches import ordered_loader
from pipeline.training.data import load_unseen
from pipeline.training.device import seed_everything
from pipeline.training.losses import MultiLabelBCE

pytestmark = pytest.mark.slow

TINY = {"text_encoder": "tiny", "width": 4, "layers": 1, "epochs": 2, "batch_size": 4, "device": "cpu"}
MODES = ("none", "budget")
FACE = torch.tensor([[16.0, 17.0], [33.0, 17.0], [25.0, 27.0], [17.0, 34.0], [33.0, 34.0]])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, corpus_writer):
    """As the toy corpus, but in the faces of test there are eyes and mouths, in all but one."""
    data = corpus_writer(tmp_path_factory.mktemp("selection") / "toy", {"train": 8, "valid": 6, "test": 5})
    path = store_path(data, "dialogue_test")
    store = DialogueStore(path)
    features = {name: store[name] for name in store.utterance_ids}
    for number, (name, found) in enumerate(features.items()):
        landmarks = FACE.repeat(len(found.faces), 1, 1)
        if number == 1:
            landmarks[0] = float("nan")
        features[name] = replace(found, face_landmarks=landmarks)
    write_dialogue(path, features, "made by a test")
    return data


@pytest.fixture(scope="module")
def studied(tmp_path_factory, corpus):
    """(folder, result, lines): two modes with two seeds, broken off in the third run."""
    out = tmp_path_factory.mktemp("studied") / "out"
    asked = SelectionSettings(data=(corpus,), seeds=2, modes=MODES, out=out, values=TINY)
    with pytest.raises(KeyboardInterrupt):
        selection(asked, Listener(stop_at="run 3 of 4"))
    listener = Listener()
    return out, selection(asked, listener), listener.lines


@pytest.fixture
def rows(studied):
    """Mode -> what was found."""
    (found,) = studied[1]["datasets"]
    return {row["mode"]: row for row in found["modes"]}


def test_finished_runs_are_kept(studied):
    assert [line for line in studied[2] if line.endswith("kept")] == [
        "run 1 of 4: toy/none, seed 0: finished, kept",
        "run 2 of 4: toy/budget, seed 0: finished, kept",
    ]


def test_each_run_has_its_mode(studied):
    for mode in MODES:
        for seed in (0, 1):
            config = models.load(studied[0] / "toy" / mode / f"seed-{seed}").config
            assert (config.attention_gradient, config.top_p, config.width) == (mode, 0.5, 4)


def test_scores_are_those_of_the_runs(studied, rows):
    for mode, row in rows.items():
        values = [
            json.loads((studied[0] / "toy" / mode / f"seed-{seed}" / "metrics.json").read_text())["splits"]["test"][
                "metrics"
            ]["multi_label"]["f1"]["value"]
            for seed in (0, 1)
        ]
        assert row["scores"]["f1"]["values"] == rounded(values)
        assert row["scores"]["f1"]["mean"] == pytest.approx(np.mean(values), abs=1e-6)
        assert row["scores"]["f1"]["spread"] == pytest.approx(np.std(values), abs=1e-6)


def test_a_constant_mask_gives_no_gradient_and_the_others_do(rows):
    for time in ("start", "best"):
        for kind in ("norm", "share"):
            assert rows["none"]["gradient"][time][kind]["values"] == [0.0, 0.0]
            assert min(rows["budget"]["gradient"][time][kind]["values"]) > 0


def test_the_norm_is_that_of_the_training_loss(studied, rows, corpus):
    folder = studied[0] / "toy" / "budget" / "seed-1"
    dataset = load_unseen(RunDir(folder), corpus, "train")
    labels = torch.stack([dataset[i].labels for i in range(len(dataset))])
    model = models.load(folder).train()
    seed_everything(1)
    norms = []
    for batch in ordered_loader(dataset, 4, models.tokenizer_for(model)):
        output = model(batch)
        weights = (len(labels) - labels.sum(0)) / labels.sum(0)
        loss = MultiLabelBCE(weights)(output.logits, batch) + output.losses["budget"]
        layers = [stage.attention for tower in model.towers.values() for stage in tower.stages]
        asked = [
            p for layer in layers for part in (layer.of_map, layer.of_query, layer.score) for p in part.parameters()
        ]
        norms.append(torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, asked)]).norm().item())
    assert rows["budget"]["gradient"]["best"]["norm"]["values"][1] == pytest.approx(median(norms), rel=1e-3)


def test_shares_and_multiply_adds_are_those_of_one_pass_over_test(studied, rows, corpus):
    model = models.load(studied[0] / "toy" / "none" / "seed-0")
    dataset = UtteranceDataset(corpus, "test")
    with torch.inference_mode():
        output = model(collate([dataset[i] for i in range(5)], models.tokenizer_for(model)), keep_maps=True)
    row = rows["none"]
    for name, kept in output.kept.items():
        tower, stage = name.split(".")
        assert row["kept_share"][tower][stage]["values"][0] == pytest.approx(kept.double().mean().item(), rel=1e-5)
    for part in ("face", "mel", "text"):
        # How texts are padded differs between one batch and two.
        expected = output.computed[f"{part}.macs"].item() / 5
        assert row["multiply_adds"][part]["values"][0] == pytest.approx(expected, rel=0.2)
    parts = [row["multiply_adds"][part]["values"][0] for part in ("face", "mel", "text")]
    assert row["multiply_adds"]["all"]["values"][0] == pytest.approx(sum(parts), rel=1e-5)


def test_lift_leaves_faces_without_landmarks_out(studied, rows, corpus):
    model = models.load(studied[0] / "toy" / "none" / "seed-0")
    dataset = UtteranceDataset(corpus, "test")
    counts, active = [0, 0, 0, 0], None
    with torch.inference_mode():
        kept = model(collate([dataset[i] for i in range(5)], models.tokenizer_for(model)), keep_maps=True).kept
    found = [len(dataset[i].faces) for i in range(5)]
    without = found[0]  # the first face of the second utterance
    active = F.max_pool2d(kept["face.1"].float(), 2).bool()
    for face in range(sum(found)):
        for y in range(12):
            for x in range(12):
                centre = torch.tensor([x * 4 + 2.0, y * 4 + 2.0])
                points = [FACE[0], FACE[1], FACE[3], FACE[4], (FACE[3] + FACE[4]) / 2]
                near = min((centre - point).norm() for point in points) <= 0.35 * 17
                if face != without:
                    of_kept, of_active = kept["face.2"][face, y, x], active[face, y, x]
                    counts[0] += int(of_kept and near)
                    counts[1] += int(of_kept)
                    counts[2] += int(of_active and near)
                    counts[3] += int(of_active)
    expected = (counts[0] / counts[1]) / (counts[2] / counts[3])
    assert rows["none"]["lift"]["2"]["trained"]["values"][0] == pytest.approx(expected, rel=1e-5)


def test_the_control_is_the_same_each_time_and_another_than_the_trained_one(studied, rows, corpus):
    again = rounded(kept_sites(RunDir(studied[0] / "toy" / "none" / "seed-0"), corpus)["lift"])
    for stage in ("1", "2", "3"):
        found = rows["none"]["lift"][stage]
        assert again[stage]["drawn_anew"] == found["drawn_anew"]["values"][0]
        assert again[stage]["trained"] == found["trained"]["values"][0]
    assert again["1"]["drawn_anew"] != again["1"]["trained"]


def test_json_and_page_are_written_and_name_the_standin(studied):
    out, result, _ = studied
    assert json.loads((out / "selection.json").read_text(encoding="utf-8")) == result
    assert "per_emotion" not in json.dumps(result)
    page = (out / "selection.md").read_text(encoding="utf-8")
    assert page == as_markdown(result)
    assert STANDIN_NOTICE in page
    assert result["command"] in page
    for mode in MODES:
        f1 = result["datasets"][0]["modes"][MODES.index(mode)]["scores"]["f1"]
        assert f"{f1['mean']:.3f} ± {f1['spread']:.3f}" in page


def test_data_without_a_found_face_is_refused(trained, toy_corpus):
    with pytest.raises(ConfigError, match="no face was found in test"):
        kept_sites(RunDir(trained[0]), toy_corpus)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"values": {"attention_gradient": "soft"}}, "give --modes"),
        ({"values": {"modalities": "ta"}}, "without v there is no face"),
        ({"modes": ("hard",)}, "hard"),
        ({"seeds": 0}, "seeds"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, given, message):
    with pytest.raises(ConfigError, match=message):
        SelectionSettings.checked({"data": (tmp_path,)} | given, "flags")


def test_two_folders_of_one_name_are_refused(corpus, tmp_path):
    asked = SelectionSettings(data=(corpus, corpus), out=tmp_path, values=TINY)
    with pytest.raises(ConfigError, match="their runs would mix"):
        selection(asked, Reporter(quiet=True))

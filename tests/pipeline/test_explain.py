"""`pipeline explain`: what is drawn is what the model computes."""

import base64
import importlib
import json
import re

import cv2
import numpy as np
import pytest
import torch

import models
from data_tools.dataset import UtteranceDataset, collate
from data_tools.errors import DataError
from data_tools.mel import chunks
from pipeline.cli import main
from pipeline.explain import explain, faces_png, highest, mel_png
from pipeline.progress import Reporter
from pipeline.report.chosen import one_of_each
from pipeline.run import RunDir
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError, ModelSpec
from pipeline.tasks.resolve import build_task
from pipeline.train import train
from pipeline.training.settings import TrainSettings

module = importlib.import_module("pipeline.explain")  # `pipeline.explain` is the function


spec = ModelSpec.from_dict

QUIET = Reporter(quiet=True)
SIZES = {"text_encoder": "tiny", "width": 4, "layers": 1}


def make_run(folder, data, **model):
    settings = TrainSettings(data=data, out=folder, epochs=1, batch_size=4, device="cpu")
    train(settings, spec(SIZES | model), QUIET)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy_corpus):
    return make_run(tmp_path_factory.mktemp("runs") / "sparse", toy_corpus, name="mesm", top_p=0.5)


def pixels(picture):
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)


def test_what_is_drawn_are_the_sites_that_the_model_keeps_in_a_batch_of_all(run, toy_corpus, tmp_path, monkeypatch):
    drawn = {"face": [], "mel": []}
    monkeypatch.setattr(module, "faces_png", lambda *seen: drawn["face"].append(seen) or b"\x89PNG")
    monkeypatch.setattr(module, "mel_png", lambda *seen: drawn["mel"].append(seen) or b"\x89PNG")
    explain(run, ["test_01", "test_03"], "test", None, tmp_path, QUIET)

    model = models.load(run)
    dataset = UtteranceDataset(toy_corpus, "test")
    batch = collate(list(dataset), models.tokenizer_for(model))
    with torch.no_grad():
        kept = model.eval()(batch, keep_maps=True).kept
    for order, position in enumerate([1, 3]):
        faces, times_s, face_layers = drawn["face"][order]
        first = int(batch.face_counts[:position].sum())
        assert np.array_equal(faces, dataset[position].faces.permute(0, 2, 3, 1))
        assert times_s == [0.5 * i for i in range(len(faces))]
        for layer, sites in enumerate(face_layers, start=1):
            assert np.array_equal(sites, kept[f"face.{layer}"][first : first + len(faces)])
        sound, mel_layers = drawn["mel"][order]
        first = int(batch.chunk_counts[:position].sum())
        for layer, sites in enumerate(mel_layers, start=1):
            assert np.array_equal(sites, kept[f"mel.{layer}"][first : first + len(sound)])
        assert len(face_layers) == len(mel_layers) == 3


def test_the_page_holds_the_pictures_that_lie_beside_it_and_says_stand_in(run, tmp_path):
    result = explain(run, ["test_00"], "test", None, tmp_path, QUIET)
    text = (tmp_path / "explain.html").read_text(encoding="utf-8")
    inside = [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
    assert result["page"] == str(tmp_path / "explain.html")
    assert result["pictures"] == {"test_00": [str(tmp_path / f"test_00.{part}.png") for part in ("face", "mel")]}
    assert inside == [(tmp_path / f"test_00.{part}.png").read_bytes() for part in ("face", "mel")]
    assert STANDIN_NOTICE in text
    assert all(pixels(picture).std() > 10 for picture in inside)


def test_shares_on_the_page_are_those_of_the_sites(run, toy_corpus, tmp_path):
    explain(run, ["test_01"], "test", None, tmp_path, QUIET)
    model = models.load(run)
    with torch.no_grad():
        kept = model.eval()(
            collate([UtteranceDataset(toy_corpus, "test")[1]], models.tokenizer_for(model)), keep_maps=True
        ).kept
    text = (tmp_path / "explain.html").read_text(encoding="utf-8")
    shown = re.findall(r"<td>(\d+)%</td>", text)
    names = [f"{part}.{layer}" for part in ("face", "mel") for layer in (1, 2, 3)]
    assert [int(share) for share in shown] == [round(100 * kept[name].double().mean().item()) for name in names]


def test_without_ids_one_utterance_of_each_emotion_is_shown(run, tmp_path):
    result = explain(run, [], "test", None, tmp_path, QUIET)
    # In the toy corpus utterance i has emotion i modulo 3; the third has neither face nor sound.
    assert list(result["pictures"]) == ["test_00", "test_01", "test_02"]
    assert result["pictures"]["test_02"] == []
    assert "neither faces nor sound" in (tmp_path / "explain.html").read_text(encoding="utf-8")


def test_one_of_each_stays_inside_the_split(run, toy_corpus):
    task = build_task(RunDir(run).read_settings()[0], RunDir(run).facts())
    dataset = UtteranceDataset(toy_corpus)
    chosen = one_of_each(dataset, task, "valid")
    assert dataset.table["utterance_id"].iloc[chosen].tolist() == ["valid_00", "valid_01", "valid_02"]


def test_an_utterance_of_train_is_marked(run, tmp_path):
    explain(run, ["train_00"], "test", None, tmp_path, QUIET)
    assert "trained on" in (tmp_path / "explain.html").read_text(encoding="utf-8")


def test_an_unknown_id_is_refused_with_near_ones(run, tmp_path):
    with pytest.raises(DataError, match=r"no utterance 'test_0O' in .*did you mean 'test_0\d'"):
        explain(run, ["test_0O"], "test", None, tmp_path, QUIET)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("work was done"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write .*explain.html: Not a directory; name another folder with --out"):
        explain(run, [], "test", None, tmp_path / "file" / "out", QUIET)


def test_a_dense_model_is_refused(toy_corpus, tmp_path):
    dense = make_run(tmp_path / "dense", toy_corpus, name="fe2e")
    with pytest.raises(ConfigError, match="is a run of fe2e, which computes every site; explain needs one of mesm"):
        explain(dense, [], "test", None, None, QUIET)


def test_the_command_writes_into_the_runs_own_folder(run, capsys):
    main(["explain", "--run", str(run), "test_04", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["page"] == str(run / "explain" / "explain.html")


def test_what_was_dropped_is_dark():
    faces = np.full((2, 48, 48, 3), 200, np.uint8)
    everything, nothing = np.ones((2, 6, 6), bool), np.zeros((2, 6, 6), bool)
    light, dark = (pixels(faces_png(faces, [0.0, 0.5], [kept])).mean() for kept in (everything, nothing))
    assert light > dark + 20
    sound = np.random.default_rng(0).normal(size=(2, 1, 128, 32)).astype(np.float32)
    kept = [np.ones((2, 64, 16), bool)]
    assert pixels(mel_png(sound, kept)).mean() > pixels(mel_png(sound, [~kept[0]])).mean() + 1


def test_the_highest_tenth_of_the_sound_is_a_tenth_and_higher_than_the_rest():
    logmel = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    found = chunks(logmel).numpy()
    marked = highest(found)
    bands = np.hstack([found[0, 0], found[1, 0]])[::-1]
    assert abs(marked.sum() - 0.1 * 64 * 128) <= 1
    assert bands[marked].min() > bands[~marked].max()

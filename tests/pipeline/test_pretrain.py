"""The three stages of CMT on a toy corpus with real sound: chained, resumed, refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import models
from data_tools.batch import WAVEFORM
from data_tools.dataset import UtteranceDataset, collate
from data_tools.manifest import read_manifest
from data_tools.media.audio import write_wav
from models.layers.padded import Padded
from pipeline.counting.model import count_model
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.predict import predict
from pipeline.pretrain import HEADS_FILE, PretrainSettings, cluster_states, pretrain
from pipeline.progress import Reporter
from pipeline.settings import ConfigError, ModelSpec
from pipeline.train import train
from pipeline.training.log import TrainLog
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

MODEL = {"name": "cmt", "text_encoder": "tiny", "width": 32, "heads": 2, "feed_forward": 32, "layers": 1}
SMALL = {"codewords": 8, "code_size": 8}


@pytest.fixture(scope="module")
def spoken_corpus(corpus_writer, tmp_path_factory):
    """The toy corpus with a tone and noise of half a second in every clip, but silence in the third of a split."""
    folder = corpus_writer(tmp_path_factory.mktemp("spoken") / "toy", {"train": 8, "valid": 6, "test": 5})
    noise = np.random.default_rng(0)
    for row in read_manifest(folder).itertuples():
        i = int(row.utterance_id[-2:])
        tone = np.sin(np.arange(8000) * 2 * np.pi * (200 + 150 * (i % 3)) / 16_000)
        samples = np.zeros(8000) if i == 2 else 0.3 * tone + noise.normal(0, 0.05, 8000)
        write_wav(folder / row.wav, samples.astype(np.float32))
    return folder


def settings(data, out, **values):
    plain = {"epochs": 2, "batch_size": 4, "learning_rate": 5e-3, "precision": "32-true", "device": "cpu"}
    return TrainSettings(data=data, out=out, **{**plain, **values})


def stage(name, data, out, resume=False, own=SMALL, model=MODEL, **values):
    return pretrain(
        settings(data, out, **values),
        PretrainSettings(stage=name, **own),
        spec(model),
        Reporter(),
        resume,
    )


@pytest.fixture(scope="module")
def mlm(spoken_corpus, tmp_path_factory):
    """A finished first stage: its folder and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "mlm"
    return out, stage("mlm", spoken_corpus, out, epochs=6)


def test_a_sample_has_its_sound_beside_the_rest(spoken_corpus):
    dataset = UtteranceDataset(spoken_corpus, "train")
    assert dataset[0].features == {}
    dataset.waveforms = True
    batch = collate([dataset[0], dataset[1]], models.tokenizer_for("tiny"))
    assert batch.features[WAVEFORM].counts.tolist() == [8000, 8000]
    assert len(batch.faces) > 0
    assert abs(batch.features[WAVEFORM].values[:8000].std() - 1) < 1e-3


def test_codewords_are_the_centres_of_clusters_that_are_there():
    draw = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = middles.repeat(40, 1) + 0.1 * torch.randn(120, 2, generator=draw)
    batches = [points[:70].view(2, 35, 2), points[70:].view(2, 25, 2)]
    states_of = lambda values: Padded(values, torch.ones(values.shape[:2], dtype=torch.bool))  # noqa: E731
    for most in (120, 40):
        centres = cluster_states(states_of, batches, 3, most, seed=0)
        assert torch.cdist(middles, centres).amin(1).max() < 0.1
    assert torch.equal(cluster_states(states_of, batches, 3, 40, 0), cluster_states(states_of, batches, 3, 40, 0))
    with pytest.raises(ConfigError, match="codewords is 121, but the sound of train has 120 states"):
        cluster_states(states_of, batches, 121, 500, 0)


def test_the_loss_falls_and_the_run_folder_says_what_was_done(mlm):
    out, found = mlm
    rows = TrainLog.read(out / "log.csv")
    assert float(rows[-1]["train_loss"]) < 0.8 * float(rows[0]["train_loss"])
    for row in rows:
        assert float(row["train_loss"]) == pytest.approx(float(row["train_text"]) + float(row["train_audio"]))
    # In a line from 5e-3 to 0, which an epoch after the last one would have.
    assert [float(row["learning_rate_rest"]) for row in rows] == pytest.approx([5e-3 * (6 - i) / 6 for i in range(6)])
    assert found["valid_loss"] == min(float(row["valid_loss"]) for row in rows)
    model = models.load(out)
    assert model.config.frontend == "encoders"
    assert load_file(out / HEADS_FILE)["codewords.centres"].shape == (8, 32)
    learnt = sum(value.numel() for value in model.fusion.parameters())
    learnt += sum(value.numel() for name, value in load_file(out / HEADS_FILE).items() if "centres" not in name)
    assert found["learning"] == learnt  # both encoders have the width: there is no projection


def test_the_three_stages_chain(spoken_corpus, mlm, tmp_path):
    first, _ = mlm
    still = {"learning_rate": 1e-12, "batch_size": 8, "model": MODEL | {"dropout": 0.0}}
    second = stage("tapt", spoken_corpus, tmp_path / "tapt", init=first, **still)
    assert second["stage"] == "tapt"
    for file in ("model.safetensors", HEADS_FILE):  # it goes on and does not start anew
        before, after = load_file(first / file), load_file(tmp_path / "tapt" / file)
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6)
    # The weights stand still, so what differs is what was hidden: drawn anew to learn from, the same to compare by.
    one, two = TrainLog.read(tmp_path / "tapt" / "log.csv")
    assert abs(float(one["train_loss"]) - float(two["train_loss"])) > 1e-2
    assert float(one["valid_loss"]) == pytest.approx(float(two["valid_loss"]), rel=1e-5)

    tuning = {"loss_weights": {"orthogonality": 10}, "init": tmp_path / "tapt"}
    tuned_once = settings(spoken_corpus, tmp_path / "run", epochs=1, learning_rate=1e-12, **tuning)
    train(tuned_once, spec(MODEL | {"frontend": "encoders"}), Reporter())
    tuned, pretrained = models.load(tmp_path / "run"), models.load(tmp_path / "tapt")
    assert tuned.head.out_features == 3
    for name, value in pretrained.fusion.state_dict().items():
        torch.testing.assert_close(tuned.fusion.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    rows = TrainLog.read(tmp_path / "run" / "log.csv")
    total = float(rows[0]["train_bce"]) + 10 * float(rows[0]["train_orthogonality"])
    assert float(rows[0]["train_loss"]) == pytest.approx(total)

    report = evaluate(EvaluateSettings(run=tmp_path / "run", split="test", device="cpu"), Reporter())
    assert report["utterances"] == 5
    sound = spoken_corpus / read_manifest(spoken_corpus)["wav"].iloc[0]
    (answer,) = predict(tmp_path / "run", [sound], "word0", "cpu", Reporter())["files"]
    assert set(answer["scores"]) == {"ang", "hap", "sad"}


def test_a_resumed_stage_has_the_weights_of_one_that_was_not_stopped(spoken_corpus, tmp_path, monkeypatch):
    stage("mlm", spoken_corpus, tmp_path / "whole")
    from pipeline.training import driver as module

    real, calls = module.run_epoch, []

    def stopping(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:  # train and valid of epoch 1 are done
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "run_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        stage("mlm", spoken_corpus, tmp_path / "stopped")
    monkeypatch.setattr(module, "run_epoch", real)
    stage("mlm", spoken_corpus, tmp_path / "stopped", resume=True)
    for file in ("model.safetensors", HEADS_FILE):
        whole, stopped = load_file(tmp_path / "whole" / file), load_file(tmp_path / "stopped" / file)
        assert whole.keys() == stopped.keys()
        assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    with pytest.raises(ConfigError, match="model.pretraining: was"):
        stage("mlm", spoken_corpus, tmp_path / "stopped", resume=True, own={"codewords": 9, "code_size": 8})


def test_stages_out_of_order_and_other_models_are_refused(spoken_corpus, mlm, tmp_path):
    with pytest.raises(ConfigError, match="add --set init=FOLDER"):
        stage("tapt", spoken_corpus, tmp_path / "a")
    with pytest.raises(ConfigError, match="stage mlm starts anew; leave init out"):
        stage("mlm", spoken_corpus, tmp_path / "a", init=mlm[0])
    with pytest.raises(ConfigError, match=f"has no {HEADS_FILE}"):
        stage("tapt", spoken_corpus, tmp_path / "a", init=tmp_path)
    own = PretrainSettings(stage="mlm")
    with pytest.raises(ConfigError, match="model is 'mult'; pretraining is defined for cmt"):
        pretrain(settings(spoken_corpus, None), own, spec({"name": "mult"}), Reporter())
    with pytest.raises(ConfigError, match="frontend is 'towers'; pretraining needs encoders"):
        pretrain(settings(spoken_corpus, None), own, spec(MODEL | {"frontend": "towers"}), Reporter())
    with pytest.raises(ConfigError, match="codewords is 500, but the sound of train has"):
        stage("mlm", spoken_corpus, tmp_path / "a", own={})
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".lock"]


def test_the_command_sorts_settings_to_where_they_belong(spoken_corpus, tmp_path, monkeypatch, capsys):
    from pipeline.cli import main

    sizes = [f"--set={key}={value}" for key, value in (MODEL | SMALL).items() if key != "name"]
    plain = ["--set=epochs=1", "--set=batch_size=4", "--device=cpu", "--json", f"--data={spoken_corpus}"]
    argv = ["pipeline", "pretrain", "--model=cmt", "--stage=mlm", f"--out={tmp_path / 'run'}", *plain, *sizes]
    monkeypatch.setattr("sys.argv", argv)
    main()
    found = json.loads(capsys.readouterr().out)
    assert (found["stage"], found["epochs"], found["codewords"]) == ("mlm", 1, 8)


@pytest.mark.parametrize(("size", "layers"), [("base", 2), ("large", 4)])
def test_flops_says_16_8_million_a_layer_and_side(size, layers):
    found = count_model("cmt", {"size": size})
    assert found["fusion_parameters"] == 2 * layers * 16_796_672
    text, audio = 50, 375  # steps of the input, see pipeline/counting/noise.py
    width, pairs = 1024, text**2 + audio**2 + 2 * text * audio
    # Of each step: two attentions' query and output, own and the other side's key and value, the network.
    of_steps = (text + audio) * (4 + 4 + 8) * width**2
    assert found["utterance"]["fusion"] == layers * (of_steps + 2 * width * pairs)


def test_flops_counts_the_encoders_on_sound_and_words():
    found = count_model("cmt", {"frontend": "encoders", "text_encoder": "tiny", "width": 32, "heads": 2})
    assert {"text", "speech", "fusion", "head"} <= set(found["utterance"])
    assert sum(macs for part, macs in found["utterance"].items() if part != "total") == found["utterance"]["total"]
    assert "4.5 s of sound and 20 tokens" in found["input"]

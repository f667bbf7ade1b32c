"""`--config mesm-as-published`: the attention stays as it was drawn, everything else learns."""

import torch

import models
from pipeline import cli
from pipeline.run import RunDir
from pipeline.training.device import seed_everything

TINY = {"text_encoder": "tiny", "width": 4, "layers": 1}


def test_what_was_published_is_a_config_whose_attention_stays_as_it_was_drawn(toy_corpus, tmp_path):
    sizes = [part for key in ("text_encoder", "width", "layers") for part in ("--set", f"{key}={TINY[key]}")]
    flags = ["--data", str(toy_corpus), "--out", str(tmp_path / "run"), "--set", "epochs=1", "--set", "batch_size=4"]
    command = ["train", "--config", "mesm-as-published", "--seed", "3", "--device", "cpu", *flags, *sizes]
    cli.main(command)
    settings, model_settings = RunDir(tmp_path / "run").read_settings()
    assert (settings.batching, settings.precision) == ("random", "32-true")
    trained = models.load(tmp_path / "run")
    assert trained.config.attention_gradient == "none"
    seed_everything(3)
    start = dict(models.build("mesm", **trained.config.model_dump()).named_parameters())
    frozen = set(trained.parameters_without_gradient())
    assert {name for name in start if name.startswith("towers.") and ".attention." in name} == frozen
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, start[name]) is (name in frozen), name
    assert model_settings["name"] == "mesm"

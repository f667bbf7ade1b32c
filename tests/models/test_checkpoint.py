"""Saving and loading: the same answers, plain files only, clear errors."""

import json

import pytest
import torch
from torch import nn

import models
from models import ModelError


@pytest.mark.parametrize("name", ["fe2e", "mesm"])
@pytest.mark.parametrize("modalities", ["tav", "va"])
def test_a_loaded_model_is_the_saved_one(build_small, tiny_batch, tmp_path, name, modalities):
    model = build_small(name, modalities=modalities, outputs=4)
    model(tiny_batch)  # moves the running statistics away from their start
    models.save(model, tmp_path)
    loaded = models.load(tmp_path)
    assert not loaded.training
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert torch.equal(loaded(tiny_batch).logits, model.eval()(tiny_batch).logits)
    tokens, _ = models.tokenizer_for(loaded)(["well, that is wonderful"])
    assert torch.equal(tokens, models.tokenizer_for(model)(["well, that is wonderful"])[0])


def test_the_files_are_plain_and_name_no_path(build_small, tmp_path):
    models.save(build_small("mesm"), tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["model.json", "model.safetensors", "tokenizer/hash_tokenizer.json"]
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["name"] == "mesm"
    assert description["settings"]["top_p"] == 0.5
    assert "_name_or_path" not in description["text_encoder"]


def test_saving_again_replaces_and_gives_the_same_bytes(build_small, tmp_path):
    models.save(build_small("fe2e"), tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    models.save(build_small("fe2e"), tmp_path)
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_what_cannot_be_loaded_is_named(build_small, tmp_path):
    with pytest.raises(ModelError, match="holds no readable model"):
        models.load(tmp_path / "nowhere")
    models.save(build_small("fe2e"), tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**description, "format": 99}))
    with pytest.raises(ModelError, match="format 99"):
        models.load(tmp_path)
    description["settings"]["width"] = 16
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match="don't fit"):
        models.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="holds no readable model"):
        models.load(tmp_path)


def test_what_cannot_be_saved_is_named(build_small, tmp_path):
    with pytest.raises(ModelError, match="cannot save a Linear"):
        models.save(nn.Linear(1, 1), tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match="cannot write the model"):
        models.save(build_small("fe2e"), tmp_path / "file" / "run")

"""Saving and loading: the same answers, plain files only, clear errors."""

import io
import json
import os
import shutil
import stat

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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_every_file_follows_the_umask(build_small, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        models.save(build_small("fe2e"), tmp_path / "new")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {mode}


def test_weights_that_may_not_be_read_say_so(build_small, tmp_path, monkeypatch):
    models.save(build_small("fe2e"), tmp_path)

    def refuse(path, *arguments, **options):
        if path.name == "model.safetensors":
            raise PermissionError(13, "Permission denied")
        return io.open(path, *arguments, **options)  # noqa: UP020 - the one that is replaced

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(ModelError, match="holds no readable model .*Permission denied"):
        models.load(tmp_path)


def _break(folder, change):
    description = json.loads((folder / "model.json").read_text())
    change(description)
    (folder / "model.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("settings"), "model.json has settings = None"),
        (lambda saved: saved.pop("text_encoder"), "model.json has text_encoder = None"),
        (lambda saved: saved.update(name=["fe2e"]), r"model.json has name = \['fe2e'\]"),
        (lambda saved: saved.update(settings=[]), r"model.json has settings = \[\]"),
        (lambda saved: saved["text_encoder"].update(model_type="berd"), "model.json .*model_type is 'berd'"),
        (lambda saved: saved["text_encoder"].pop("model_type"), "model.json .*model_type is None"),
        (lambda saved: saved["text_encoder"].update(hidden_size=33), "model.json .*cannot be built"),
    ],
)
def test_a_damaged_description_is_named(build_small, tmp_path, change, message):
    models.save(build_small("fe2e"), tmp_path)
    _break(tmp_path, change)
    with pytest.raises(ModelError, match=message):
        models.load(tmp_path)


@pytest.mark.parametrize("encoder", ["tiny", "minilm"])
def test_a_missing_or_damaged_tokenizer_is_named(build_small, tmp_path, encoder):
    models.save(build_small("fe2e", text_encoder=encoder), tmp_path)
    for path in (tmp_path / "tokenizer").iterdir():
        path.write_text("{")
    with pytest.raises(ModelError, match="tokenizer holds no readable tokenizer"):
        models.load(tmp_path)
    shutil.rmtree(tmp_path / "tokenizer")
    with pytest.raises(ModelError, match="tokenizer is not there"):
        models.load(tmp_path)


@pytest.mark.parametrize("encoder", ["tiny", "minilm"])
def test_a_tokenizer_is_the_same_bytes_before_and_after_use_and_loading(build_small, tmp_path, encoder):
    def written(model, name):
        models.save(model, tmp_path / name)
        return {path.name: path.read_bytes() for path in (tmp_path / name / "tokenizer").iterdir()}

    model = build_small("fe2e", text_encoder=encoder, modalities="t")
    before = written(model, "one")
    models.tokenizer_for(model)(["some words", "word " * 300])
    assert written(model, "one") == before
    assert written(models.load(tmp_path / "one"), "two") == before


def test_another_tokenizer_s_files_do_not_stay(build_small, tmp_path):
    models.save(build_small("fe2e", modalities="t"), tmp_path)
    models.save(build_small("fe2e", modalities="t", text_encoder="minilm"), tmp_path)
    assert models.tokenizer_for(models.load(tmp_path))(["yes"])[0][0, 0] == 101  # BERT's [CLS]


def test_what_cannot_be_saved_is_named(build_small, tmp_path):
    with pytest.raises(ModelError, match="cannot save a Linear"):
        models.save(nn.Linear(1, 1), tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match="cannot write the model"):
        models.save(build_small("fe2e"), tmp_path / "file" / "run")

"""A run that is passed on: what its folder holds and leaves out, what it answers, and what a stranger's may not do."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import models
from data_tools.errors import DataError
from data_tools.files import folder_lock, write_json
from models.errors import ModelError
from pipeline.cli import main
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.explain import explain
from pipeline.extract_sequences import FreshFeatures
from pipeline.predict import predict
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError, ModelSpec
from pipeline.share import _without_places, format_shared, share
from pipeline.shared_folder import KnownIds, check_shared, id_digest
from pipeline.train import train
from pipeline.training.settings import TrainSettings

QUIET = Reporter(quiet=True)
NEEDED = {
    "shared.json",
    "settings.yaml",
    "data.json",
    "splits.json",
    "thresholds.json",
    "model.json",
    "model.safetensors",
}


def shared_at(run, folder, **changes):
    options = {"public": False, "licence": None, "title": None} | changes
    return share(run, str(folder), reporter=QUIET, **options)


@pytest.fixture(scope="module")
def shared_once(trained, tmp_path_factory):
    """The trained run, shared; not to be changed."""
    folder = tmp_path_factory.mktemp("passed on") / "shared"
    shared_at(trained[0], folder)
    return folder


@pytest.fixture
def shared(shared_once, tmp_path):
    """A copy of the shared run, without the run itself."""
    shutil.copytree(shared_once, tmp_path / "shared")
    return tmp_path / "shared"


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to reach another machine fails, and the test with it."""
    tried = []

    def refuse(*args, **_):
        tried.append(args[:2])
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert tried == []


def changed(path, change):
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


# What is written


def test_a_shared_folder_has_its_files_and_no_others(run, tmp_path):
    result = shared_at(run, tmp_path / "out" / "shared")
    folder = tmp_path / "out" / "shared"
    found = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert found == result["files"]
    assert set(found) == NEEDED | {"metrics.json", "README.md", "tokenizer/hash_tokenizer.json"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["shared"]
    assert result["notice"] == STANDIN_NOTICE
    assert STANDIN_NOTICE in format_shared(result)
    assert f"--run {folder}" in format_shared(result)


def test_places_and_ids_of_this_machine_are_left_out(run, tmp_path, toy_corpus):
    changed(
        run / "data.json", lambda v: v["dataset"].update(notes=["Anna Smith's film was damaged"], root=str(tmp_path))
    )
    ids = [name for names in json.loads((run / "splits.json").read_text()).values() for name in names]
    shared_at(run, tmp_path / "shared")
    for path in (tmp_path / "shared").rglob("*.*"):
        content = path.read_bytes()
        for private in (str(tmp_path), str(toy_corpus), str(Path.home()), "Anna Smith", *ids):
            assert private.encode() not in content, f"{private} in {path.name}"
    hashed = json.loads((tmp_path / "shared" / "splits.json").read_text())
    assert {name for names in hashed.values() for name in names} == {id_digest(name) for name in ids}


def test_a_text_encoder_of_ones_own_leaves_its_weights_and_not_its_place(toy_corpus, tmp_path, no_network):
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as parts
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    own = tmp_path / "my encoder"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "word0", "word1", "and"]
    tokenizer = Tokenizer(parts.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(own)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(own)
    settings = TrainSettings(data=toy_corpus, out=tmp_path / "run", epochs=1, batch_size=4, device="cpu")
    model = {"name": "fe2e", "modalities": "t", "text_encoder": str(own), "width": 4, "layers": 1}
    train(settings, ModelSpec.from_dict(model), QUIET)
    shared_at(tmp_path / "run", tmp_path / "shared")
    before = models.load(tmp_path / "run").state_dict()
    shutil.rmtree(own)
    shutil.rmtree(tmp_path / "run")
    for path in (tmp_path / "shared").rglob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    loaded = models.load(RunDir.existing(tmp_path / "shared").path)
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
    assert models.tokenizer_for(loaded)(["word1 and"])[0].tolist() == [[5, 6]]


def test_texts_that_are_paths_lose_their_folders(tmp_path):
    (tmp_path / "enc").mkdir()
    values = {
        "a": str(tmp_path / "enc"),
        "b": ["~/x/y", "albert/albert-base-v2", 3, None],
        "c": {"d": "../up"},
        "e": "tav",
    }
    expected = {"a": "enc", "b": ["y", "albert/albert-base-v2", 3, None], "c": {"d": "up"}, "e": "tav"}
    assert _without_places(values) == expected


def test_the_model_card_is_read_by_the_hubs_own_library(run, tmp_path):
    scores = json.loads((run / "metrics.json").read_text())["splits"]
    shared_at(run, tmp_path / "shared", licence="cc-by-nc-4.0", title="My model | <b>x</b>")
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.model_name == "My model | <b>x</b>"
    assert {"emotion-recognition", "stand-in"} <= set(card.data.tags)
    found = {(each.dataset_split, each.metric_name): each for each in card.data.eval_results}
    expected = {
        (split, f"{protocol} {name}"): entry["value"]
        for split, report in scores.items()
        for protocol, entries in report["metrics"].items()
        for name, entry in entries.items()
        if entry["value"] is not None
    }
    assert {key: each.metric_value for key, each in found.items()} == pytest.approx(expected, abs=1e-6)
    assert all(each.dataset_type == "toy" and each.dataset_config == "session:5" for each in found.values())
    assert all(STANDIN_NOTICE in each.dataset_name for each in found.values())
    text = card.text
    assert f"**{STANDIN_NOTICE}**" in text
    assert "<b>" not in text
    for heading in (
        "Scores on test",
        "Scores on valid",
        "Thresholds",
        "Data",
        "Licence",
        "Intended use",
        "Limits",
        "Files",
    ):
        assert f"\n## {heading}\n" in text
    assert "chosen on 6 of them: this is no test" in text


def test_without_a_licence_the_card_says_so(run, tmp_path):
    shared_at(run, tmp_path / "shared")
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "not-stated")
    assert "ask who published the model" in card.text


def test_a_folder_is_replaced_as_a_whole_and_nothing_else_is(run, tmp_path):
    place = tmp_path / "shared"
    shared_at(run, place)
    (place / "tokenizer" / "left over.json").write_text("{}", encoding="utf-8")
    with folder_lock(place):
        pass
    shared_at(run, place, title="Again")
    assert json.loads((place / "shared.json").read_text())["title"] == "Again"
    assert not (place / "tokenizer" / "left over.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "shared"]
    (place / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    shared_at(run, tmp_path / "empty")
    for taken in (place, run, tmp_path / "file"):
        with pytest.raises(ConfigError, match="name a new folder with --to"):
            shared_at(run, taken)
    assert (place / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_stopped_share_leaves_what_was_there(run, tmp_path, monkeypatch):
    place = tmp_path / "shared"
    shared_at(run, place, title="First")

    def stops(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.model_card.model_card", stops)
    with pytest.raises(KeyboardInterrupt):
        shared_at(run, place, title="Second")
    assert json.loads((place / "shared.json").read_text())["title"] == "First"
    check_shared(place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "shared"]


def test_what_cannot_be_shared_is_said(run, tmp_path):
    with pytest.raises(ConfigError, match="--public is for the hub"):
        shared_at(run, tmp_path / "shared", public=True)
    with pytest.raises(ConfigError, match="no run at"):
        shared_at(tmp_path / "none", tmp_path / "shared")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="cannot write"):
        shared_at(run, tmp_path / "file" / "shared")
    (run / "thresholds.json").unlink()
    with pytest.raises(ConfigError, match="is not finished"):
        shared_at(run, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_the_command_line(run, tmp_path, capsys):
    place = tmp_path / "shared"
    main(["share", "--run", str(run), "--to", str(place), "--licence", "mit", "--json"])
    assert json.loads(capsys.readouterr().out)["to"] == str(place)
    with pytest.raises(SystemExit) as stopped:
        main(["share", "--run", str(run), "--to", str(place), "--licence", "My own: !"])
    assert stopped.value.code == 2
    assert "licence is 'My own: !'" in capsys.readouterr().err


# What it answers


def test_a_shared_model_answers_as_the_run_does(run, toy_corpus, media_makers, tmp_path, no_network):
    from data_tools.media.audio import write_wav

    write_wav(tmp_path / "a.wav", media_makers[1](2, 0), 16_000)
    expected = predict(run, [tmp_path / "a.wav"], "word0", "cpu", QUIET)
    report = evaluate(EvaluateSettings(run=run, device="cpu"), QUIET)
    shared_at(run, tmp_path / "shared")
    shared_at(tmp_path / "shared", tmp_path / "shared again")
    shutil.rmtree(run)
    for folder in (tmp_path / "shared", tmp_path / "shared again"):
        found = predict(folder, [tmp_path / "a.wav"], "word0", "cpu", QUIET)
        assert {**found, "run": ""} == {**expected, "run": ""}
        again = evaluate(EvaluateSettings(run=folder, device="cpu", data=toy_corpus), QUIET)
        assert again == report
    (name,) = [path.name for path in (tmp_path / "shared").glob("metrics-*.json")]
    assert name.startswith("metrics-toy-")
    page = explain(tmp_path / "shared", ["test_00"], "test", toy_corpus, None, QUIET)["page"]
    assert Path(page).is_file()


def test_data_are_named_and_none_is_looked_for(shared, toy_corpus, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "toy").symlink_to(toy_corpus)  # what data.json calls it
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="is a shared model and comes without data: name a data folder with --data"):
        evaluate(EvaluateSettings(run=shared, device="cpu"), QUIET)
    with pytest.raises(ConfigError, match="comes without data"):
        explain(shared, [], "test", None, None, QUIET)


def test_what_the_model_has_seen_is_no_test(shared, toy_corpus, tmp_path):
    """Known by digests alone."""
    import pandas as pd

    data = tmp_path / "toy"
    shutil.copytree(toy_corpus, data)
    table = pd.read_parquet(data / "utterances.parquet")
    table["split"] = table["split"].replace({"train": "test", "test": "train"})
    table.to_parquet(data / "utterances.parquet")
    with pytest.raises(DataError, match=r"was trained on 8 of the 8 utterances in 'test'"):
        evaluate(EvaluateSettings(run=shared, device="cpu", data=data), QUIET)
    table["split"] = table["split"].replace({"train": "valid", "valid": "test", "test": "train"})
    table.to_parquet(data / "utterances.parquet")
    assert evaluate(EvaluateSettings(run=shared, device="cpu", data=data), QUIET)["tuned_on"] == 6


def test_known_ids_are_a_set_of_them():
    own, strange = KnownIds(["a", "b"], False), KnownIds([id_digest("a"), id_digest("b")], True)
    assert own == {"a", "b"}
    assert own.digests() == strange.digests() == sorted([id_digest("a"), id_digest("b")])
    for ids in (own, strange):
        assert len(ids) == 2
        assert "a" in ids
        assert "c" not in ids
        assert 3 not in ids


def test_training_does_not_go_on_in_a_shared_model(shared, toy_corpus):
    settings = TrainSettings(data=toy_corpus, out=shared, device="cpu")
    with pytest.raises(ConfigError, match="is a shared model, which keeps no state"):
        train(settings, ModelSpec.from_dict({"name": "fe2e", "text_encoder": "tiny"}), QUIET, resume=True)


# A stranger's


@pytest.mark.parametrize("name", sorted(NEEDED - {"shared.json"}))
def test_every_file_is_needed(shared, name):
    (shared / name).unlink()
    with pytest.raises((DataError, ConfigError), match="is not there"):
        RunDir.existing(shared)


@pytest.mark.parametrize("name", [*sorted(NEEDED), "metrics.json", "tokenizer/hash_tokenizer.json", "tokenizer"])
def test_no_link_leads_out(shared, tmp_path, name):
    secret = tmp_path / "secret"
    shutil.move(shared / name, secret)
    (shared / name).symlink_to(secret)
    with pytest.raises(DataError, match="in a shared model nothing leads out of it"):
        RunDir.existing(shared)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(shared):
    (shared / "metrics.json").unlink()
    os.mkfifo(shared / "metrics.json")
    with pytest.raises(DataError, match="is a link or no file"):
        RunDir.existing(shared)


@pytest.mark.parametrize(
    ("name", "size"), [("data.json", 2**26 + 1), ("model.safetensors", 2**33 + 1), ("tokenizer/x.json", 2**26 + 1)]
)
def test_sizes_have_limits(shared, name, size):
    with (shared / name).open("ab") as file:
        file.truncate(size)  # takes no space
    with pytest.raises(DataError, match=f"has {size} bytes, the limit for such a file is"):
        RunDir.existing(shared)


@pytest.mark.parametrize("name", ["/etc/model", "../encoder", "here", "a/b/c", "~", 5, "file:///x"])
def test_features_of_an_encoder_that_is_a_place_are_refused(shared, name, monkeypatch, tmp_path, no_network):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    features = {"name": "default", "sizes": {"t": 8}, "settings": {"text_encoder": name}, "scale": None}
    changed(shared / "data.json", lambda values: values.update(features=features))
    with pytest.raises(DataError, match="a place on this machine"):
        predict(shared, [], None, "cpu", QUIET)


def test_an_encoder_of_the_hub_is_never_fetched(shared, no_network):
    features = {"name": "default", "sizes": {"t": 8}, "settings": {"text_encoder": "attacker/encoder"}, "scale": None}
    changed(shared / "data.json", lambda values: values.update(features=features))
    with pytest.raises(ModelError, match="attacker/encoder"):
        FreshFeatures(RunDir.existing(shared).facts().features)
    # Its model reads no features: nobody asks for their encoder.
    assert predict(shared, [], None, "cpu", QUIET)["files"] == []


def test_code_and_pickles_beside_it_are_not_touched(shared, tmp_path, no_network):
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')"
    for name in ("modeling.py", "tokenizer/tokenization.py", "conftest.py", "__init__.py"):
        (shared / name).write_text(trap, encoding="utf-8")
    for name in ("pytorch_model.bin", "model.pkl"):
        (shared / name).write_bytes(b"c__builtin__\nexec\n(V" + trap.encode() + b"\ntR.")
    changed(shared / "model.json", lambda v: v["text_encoder"].update(auto_map={"AutoModel": "modeling.Model"}))
    models.load(RunDir.existing(shared).path)
    assert not (tmp_path / "ran").exists()


def test_a_format_of_the_future_is_named(shared):
    write_json(shared / "shared.json", {"format": 2})
    with pytest.raises(DataError, match="has format 2, this program reads 1; update"):
        RunDir.existing(shared)


def test_yaml_of_a_stranger_makes_no_objects(shared, tmp_path):
    values = yaml.safe_load((shared / "settings.yaml").read_text(encoding="utf-8"))
    trap = f"!!python/object/apply:os.system ['touch {tmp_path / 'ran'}']"
    (shared / "settings.yaml").write_text(yaml.safe_dump(values) + f"x: {trap}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not readable YAML"):
        RunDir.existing(shared).read_settings()
    assert not (tmp_path / "ran").exists()


def test_help_of_share_needs_no_torch():
    load = "from pipeline.cli import load_command; print(load_command('share').example)"
    code = f"import sys; sys.modules['torch'] = None; {load}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pipeline share" in done.stdout

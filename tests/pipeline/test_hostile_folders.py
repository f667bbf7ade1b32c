"""A run, a data folder or a config that a stranger has made: what it asks for, and what it gets."""

import io
import json
import os
import pickle
import random
import shutil
import socket
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import models
from data_tools.corpora.mmsa.plain_pickle import read_plain_pickle
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import MAX_BYTES, folder_lock, read_json, write_json
from data_tools.manifest import read_manifest, write_manifest
from data_tools.names import for_json, for_terminal
from data_tools.receipts import ClipSettings, Dialogue, Receipts, begin
from data_tools.records import Clip, Utterance
from models.errors import ModelError
from models.layers.text import pretrained
from pipeline.check import COMMAND as CHECK
from pipeline.cli import main
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.import_features import import_features
from pipeline.jobs.run import begin_folder
from pipeline.progress import Reporter
from pipeline.report.pages import Cell, Sheet, Table, markdown
from pipeline.run import RunDir
from pipeline.run_data import dataset_name
from pipeline.settings import ConfigError, read_yaml
from pipeline.stats import format_stats, stats
from pipeline.training.features import FeatureUse
from pipeline.training.log import TrainLog

QUIET = Reporter(quiet=True)


def check_sentence(error, most):
    assert 0 < len(str(error)) < most


CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
raise SystemExit("code of a stranger runs")
"""


@pytest.fixture
def no_network(monkeypatch):
    """Attempts to reach another machine, which all fail."""
    tried = []

    def refuse(*args, **_):
        tried.append(args[:2])
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tried
    assert tried == []


@pytest.fixture
def nobody_answers(monkeypatch):
    """A stdin that says yes to everything, and notes that it was asked."""
    answers = io.StringIO("y\n" * 10)
    monkeypatch.setattr(sys, "stdin", answers)
    yield
    assert answers.tell() == 0, "something asked a question"


def changed(path, change):
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def run_with(build_folder, **settings):
    """A saved model of a tiny encoder."""
    torch.manual_seed(0)
    model = models.build("fe2e", text_encoder="tiny", width=4, layers=1, **settings)
    models.save(model, build_folder)
    return model


# Code


@pytest.mark.usefixtures("nobody_answers", "no_network")
def test_the_code_of_a_tokenizer_is_neither_run_nor_asked_for(tmp_path):
    torch.manual_seed(0)
    models.save(models.build("fe2e", width=4, layers=1, modalities="t", text_encoder="minilm"), tmp_path)
    folder = tmp_path / "tokenizer"
    before = models.tokenizer_for(models.load(tmp_path))(["so good"])[0].tolist()
    (folder / "evil.py").write_text(CODE)
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}))
    changed(folder / "tokenizer_config.json", lambda v: v.update(auto_map={"AutoTokenizer": ["evil.Tok", "evil.Tok"]}))
    changed(tmp_path / "model.json", lambda v: v.pop("tokenizer"))  # a stranger's folder has any checksums
    try:
        tokens = models.tokenizer_for(models.load(tmp_path))(["so good"])[0].tolist()
    except ModelError as error:
        check_sentence(error, 1000)
    else:
        assert tokens == before
    assert not (folder / "ran").exists()


@pytest.mark.usefixtures("nobody_answers", "no_network")
@pytest.mark.parametrize("kind", ["evil", "bert"])
def test_the_code_of_a_text_encoder_is_neither_run_nor_asked_for(tmp_path, kind):
    (tmp_path / "evil.py").write_text(CODE)
    code = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": "evil.Tok"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": code}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": code}))
    with pytest.raises(ModelError, match=f"text_encoder is '{tmp_path}'"):
        pretrained(str(tmp_path), 40)
    assert not (tmp_path / "ran").exists()


# Network


@pytest.mark.parametrize("source", ["text encoder", "speech encoder"])
def test_a_saved_encoder_of_another_kind_fetches_no_backbone(tmp_path, no_network, source):
    run_with(tmp_path)
    backbone = {"model_type": "detr", "use_timm_backbone": False, "backbone": "attacker/repo", "backbone_config": None}
    name = "text_encoder" if source == "text encoder" else "speech_encoder"
    changed(tmp_path / "model.json", lambda values: values.update({name: backbone}))
    if source == "speech encoder":
        with pytest.raises(ModelError, match=r"model_type is 'detr'; read are hubert"):
            models.checkpoint.read_model(tmp_path).speech_encoder()
    else:
        with pytest.raises(ModelError, match=r"model_type is 'detr'; read are albert, bert"):
            models.load(tmp_path)


def test_a_text_encoder_with_a_backbone_is_refused_before_it_is_looked_for(tmp_path, no_network):
    config = {"model_type": "detr", "use_timm_backbone": False, "backbone": "attacker/repo"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"model_type is 'detr'; read are albert, bert"):
        pretrained(str(tmp_path), 40)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "attacker/repo"}))
    with pytest.raises(ModelError, match="an adapter of another model"):
        pretrained(str(tmp_path), 40)


def test_the_features_of_a_saved_run_ask_no_hub_for_their_encoder(no_network):
    from pipeline.extract_sequences import FreshFeatures

    use = FeatureUse("default", {"t": 384, "a": 33, "v": 142}, {"text_encoder": "attacker/repo"}, None)
    with pytest.raises(ModelError, match="text_encoder is 'attacker/repo': no such encoder could be read"):
        FreshFeatures(use)


def test_how_attention_is_computed_is_not_for_the_file_to_say(tmp_path, no_network):
    model = run_with(tmp_path)
    chosen = model.text.config._attn_implementation
    for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        changed(tmp_path / "model.json", lambda v, key=key: v["text_encoder"].update({key: "attacker/kernel"}))
    assert models.load(tmp_path).text.config._attn_implementation == chosen


def test_loading_a_run_needs_no_network(run, no_network):
    assert models.load(run).config.outputs == 3


# Links and names


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def elsewhere(tmp_path):
    """A folder that is none of ours, whose files have names like ours."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("tokenizer.json", "thesis.txt", "d1.safetensors", "a.mp4", ".a.12.tmp.mp4", "receipt.json"):
        (folder / name).write_bytes(b"precious")
    yield folder
    assert {path.read_bytes() for path in folder.iterdir()} == {b"precious"}
    assert len(list(folder.iterdir())) == 6


def test_a_linked_tokenizer_is_not_written_through(tmp_path, elsewhere):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tokenizer").symlink_to(elsewhere)
    with pytest.raises(ModelError, match="tokenizer is a link to another place"):
        run_with(tmp_path / "run")


def test_of_a_tokenizer_s_folder_only_files_of_ours_are_deleted(tmp_path):
    run_with(tmp_path)
    (tmp_path / "tokenizer" / "notes.txt").write_text("mine")
    models.save(models.build("fe2e", text_encoder="minilm", width=4, layers=1), tmp_path)
    names = {path.name for path in (tmp_path / "tokenizer").iterdir()}
    assert "notes.txt" in names
    assert "hash_tokenizer.json" not in names


@pytest.mark.parametrize("name", ["tokenizer", "last", "events", "explain"])
def test_a_run_with_a_linked_folder_is_not_resumed(run, elsewhere, name):
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(elsewhere)
    with pytest.raises(DataError, match=f"{name} is a link to another place"):
        RunDir(run).sweep()


@pytest.mark.parametrize("place", ["store", "features", "features/default"])
def test_a_linked_folder_of_a_data_folder_keeps_its_files(tmp_path, elsewhere, place):
    data = tmp_path / "data"
    (data / place).parent.mkdir(parents=True)
    (data / place).symlink_to(elsewhere)
    summary = data / ("store/store.json" if place == "store" else "features/default/features.json")
    with pytest.raises(DataError, match=r"is a link to another place"):
        begin_folder(data, summary, {"d1"})


def test_an_import_keeps_what_lies_behind_a_link(tmp_path, elsewhere):
    (tmp_path / "data" / "features").mkdir(parents=True)
    (tmp_path / "data" / "features" / "imported").symlink_to(elsewhere)
    values = np.ones((1, 2, 3), np.float32)
    content = {"train": {"id": ["v$_$1"], "audio": values, "regression_labels": [1.0]}}
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="imported is a link to another place"):
        import_features(tmp_path / "file.pkl", tmp_path / "data", QUIET)


def test_clips_behind_a_link_are_neither_written_nor_deleted(tmp_path, elsewhere):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clips").symlink_to(tmp_path)
    place = Utterance("a", "elsewhere", "s", "1", 0.0, 1.0, "", {}, None, "v.mp4", "v.mp4")
    dialogue = Dialogue(tmp_path, tmp_path / "data", (place,), ClipSettings(23, 0.1, 60.0))
    with pytest.raises(DataError, match="clips is a link to another place"):
        begin(dialogue)
    (elsewhere / "receipt.json").write_text(json.dumps({"files": {"a.mp4": 8}}))
    Receipts(tmp_path / "data").clear_others(set(), set())
    (elsewhere / "receipt.json").write_bytes(b"precious")


def test_the_data_folder_itself_may_be_a_link(toy_corpus, tmp_path):
    (tmp_path / "link").symlink_to(toy_corpus)
    assert len(UtteranceDataset(tmp_path / "link", "test")) == 5


def test_only_stores_and_features_of_ours_are_deleted(corpus_writer, tmp_path):
    data = corpus_writer(tmp_path / "toy", {"train": 3, "test": 3})
    save_file({"weights": torch.ones(2)}, data / "store" / "mine.safetensors")
    begin_folder(data, data / "store" / "store.json", {"dialogue_train"})
    names = {path.name for path in (data / "store").iterdir()}
    assert names == {"mine.safetensors", "dialogue_train.safetensors", "dialogue_train.safetensors.sha256"}


def test_files_with_names_like_those_of_scores_stay(run):
    for name in ("metrics-notes.json", "robustness-ideas", "predictions of a friend.parquet"):
        (run / name).write_text("mine")
    (run / "metrics-toy-0123ab.json").write_text("{}")
    RunDir(run).reopen()
    left = {path.name for path in run.iterdir()}
    assert {"metrics-notes.json", "robustness-ideas", "predictions of a friend.parquet"} <= left
    assert not {"metrics.json", "thresholds.json", "predictions.parquet", "metrics-toy-0123ab.json"} & left


def test_a_temporary_name_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f".x.{os.getpid()}.tmp.json").symlink_to(tmp_path / "victim")
    write_json(tmp_path / "x.json", {"a": 1})
    assert (tmp_path / "victim").read_text() == "precious"
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_a_lock_that_is_a_link_empties_no_file(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "victim")
    try:
        with folder_lock(tmp_path / "run"):
            pass
    except DataError as error:
        check_sentence(error, 1000)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("name", ["x/../..", "../x", "/etc/x", "", ".", "a\x1b[2Jb", "a\nb", "x" * 300])
def test_a_name_of_a_data_set_that_leads_elsewhere_is_refused(run, corpus_writer, tmp_path, name):
    other = corpus_writer(tmp_path / "other", {"test": 3})
    write_json(other / "dataset.json", {"dataset": name})
    with pytest.raises(DataError, match=r"names its data set badly.*write another name"):
        dataset_name(other)
    with pytest.raises(DataError, match="names its data set badly"):
        evaluate(EvaluateSettings(run=run, data=other, device="cpu"), QUIET)
    assert not list(tmp_path.rglob("metrics-*"))


def write_one(folder, **changes):
    one = Clip("u", "d", "s", "1", "train", 0.0, 1.0, "words", "c.mp4", "c.wav", {"ang": 1.0}, None, "v", "a", 25.0)
    write_manifest(folder, [replace(one, **changes)], ["ang"])


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "a\\b", ".hidden", "", "a\x07b", "x" * 201])
@pytest.mark.parametrize("column", ["utterance_id", "dialogue_id"])
def test_an_id_in_a_manifest_that_is_no_file_s_name_is_refused(tmp_path, column, name):
    write_one(tmp_path, **{column: name})
    with pytest.raises(DataError, match=rf"utterances.parquet: {column}: the id .*pipeline reorganize"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("column", ["clip", "wav", "source_video", "source_audio"])
@pytest.mark.parametrize("path", ["../x.mp4", "/etc/passwd", "a/../../b", "a\0b"])
def test_a_path_in_a_manifest_that_leads_elsewhere_is_refused(tmp_path, column, path):
    write_one(tmp_path, **{column: path})
    with pytest.raises(DataError, match=f"has the {column} .*leads out of the folder"):
        read_manifest(tmp_path)


# Cost


def pickle_of_equal_hashes(count, key):
    """A dict whose keys all fall into one place: the square of their number in comparisons."""
    modulus = sys.hash_info.modulus
    return pickle.dumps({key(i, modulus): 0 for i in range(count)}, 2)


@pytest.mark.parametrize("key", [lambda i, m: i * m, lambda i, m: -i * m - 5, lambda i, m: 7 + i * m])
def test_numbers_of_one_hash_are_no_keys_of_a_pickle(tmp_path, key):
    (tmp_path / "file.pkl").write_bytes(pickle_of_equal_hashes(3, key))
    with pytest.raises(DataError, match="a dict with so large a number as key"):
        read_plain_pickle(tmp_path / "file.pkl")


def test_notes_of_one_hash_are_refused_too(tmp_path):
    notes = "".join(f"p{i * sys.hash_info.modulus}\n" for i in range(1, 4))
    (tmp_path / "file.pkl").write_bytes(b"N" + notes.encode() + b".")
    with pytest.raises(DataError, match="a note under so large a number"):
        read_plain_pickle(tmp_path / "file.pkl")


def bomb(levels=9, width=9):
    lines = ['a0: &a0 ["x"]']
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


HOSTILE_YAML = {
    "aliases": bomb(),
    "merges": "a0: &a0 {k: v}\n"
    + "\n".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)),
    "itself": "a: &a [*a]",
    "deep list": "a: " + "[" * 5000,
    "deep and closed": "a: " + "[" * 100 + "]" * 100,
    "deep mapping": "\n".join(" " * i + "a:" for i in range(2000)),
    "long number": "a: " + "1" * 100_000,
    "base 60": "a: " + ":".join(["59"] * 50_000),
    "no date": "a: 2024-99-99",
    "a tag": "a: !!python/object/apply:os.system [echo]",
    "NUL": 'a: "x\\0y"',
    "half a pair": 'a: "\\uD800"',
    "list as key": "? [1, 2]\n: 3",
    "no mapping": "- 1",
    "large": "a: " + "x" * 400_000,
    "bytes": b"\xff\xfe\x00",
    "empty": "",
}


@pytest.mark.parametrize("content", HOSTILE_YAML.values(), ids=HOSTILE_YAML.keys())
def test_a_hostile_config_is_one_sentence(tmp_path, content, capsys):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"settings.yaml (is not readable YAML|holds)") as caught:
        read_yaml(path)
    assert len(str(caught.value)) < 2000
    with pytest.raises(SystemExit) as stopped:
        main(["flops", "--config", str(path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


ODD_NAMES = ("1: 2", "model: {name: mesm, 1: 2}", "model: {name: [mesm]}", "model: {name: mesm, top_p: {a: [1]}}")


@pytest.mark.parametrize("text", [*ODD_NAMES, "model: {name: mesm}\ntrain: {1: 2}"])
def test_a_config_with_odd_names_is_one_sentence(tmp_path, text, capsys):
    (tmp_path / "c.yaml").write_text(text)
    for command in ("flops", "train") if text in ODD_NAMES else ("train",):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--config", str(tmp_path / "c.yaml")])
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_config_with_a_few_aliases_is_read(tmp_path):
    (tmp_path / "c.yaml").write_text("base: &b {epochs: 3, seed: 1}\ntrain: {<<: *b, seed: 2}\nagain: *b\n")
    assert read_yaml(tmp_path / "c.yaml")["train"] == {"epochs": 3, "seed": 2}


HOSTILE_JSON = {
    "deep": "[" * 100_000,
    "deep and closed": '{"a":' * 200 + "1" + "}" * 200,
    "not finite": '{"a": NaN}',
    "too large": '{"a": 1e999}',
    "a long number": '{"a": ' + "9" * 5000 + "}",
    "NUL": '{"a": "x\\u0000"}',
    "half a pair": '{"a": "\\ud800"}',
    "bytes": b"\xff\xfe",
    "a list": "[1]",
    "empty": "",
}


@pytest.mark.parametrize("content", HOSTILE_JSON.values(), ids=HOSTILE_JSON.keys())
def test_hostile_json_is_one_sentence(tmp_path, content):
    path = tmp_path / "data.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"data.json (cannot be read as JSON|holds list)") as caught:
        read_json(path)
    assert len(str(caught.value)) < 1000


def test_json_of_any_size_and_a_pipe_are_refused_at_once(tmp_path):
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match=f"more than the {MAX_BYTES}"):
        read_json(tmp_path / "large.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match="it is not a file"):
        read_json(tmp_path / "pipe.json")


ODD = [None, True, 3, -1, 1.5, "x", [], [1], {}, {"x": 1}, [[1]], {"x": {"y": []}}, 10**18, "\x1b[2J"]


def small_files(run, data):
    """Each small file of a run and a data folder, and what reads it."""
    of_run = RunDir(run)
    return {
        run / "data.json": [of_run.facts, of_run.read_preprocessing, lambda: evaluate(_asked(run), QUIET)],
        run / "splits.json": [of_run.learned_from],
        run / "thresholds.json": [of_run.read_thresholds],
        run / "environment.json": [of_run.read_starts],
        run / "metrics.json": [lambda: of_run.read_scores(data)],
        run / "model.json": [lambda: models.load(run)],
        data / "dataset.json": [lambda: stats(data), lambda: dataset_name(data)],
        data / "store" / "store.json": [lambda: UtteranceDataset(data, "test")],
    }


def _asked(run):
    return EvaluateSettings(run=run, device="cpu")


def places(value, path=()):
    """Every place in a JSON value, the whole of it first; of a long list two."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def with_value(value, path, new):
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = with_value(value[path[0]], path[1:], new)
    return copied


@pytest.mark.parametrize("name", ["data.json", "splits.json", "thresholds.json", "environment.json", "metrics.json"])
def test_wrong_types_in_a_run_are_answers_or_one_sentence(run, toy_corpus, name):
    path = run / name
    content = json.loads(path.read_text())
    readers = small_files(run, toy_corpus)[path]
    for place in places(content):
        if name == "metrics.json" and len(place) > 2:
            continue
        for new in ODD:
            write_json(path, with_value(content, place, new))
            for read in readers[:2]:
                try:
                    read()
                except (DataError, ConfigError, ModelError) as error:
                    check_sentence(error, 1500)


@pytest.mark.parametrize("name", ["dataset.json", "store/store.json"])
def test_wrong_types_in_a_data_folder_are_answers_or_one_sentence(run, corpus_writer, tmp_path, name):
    data = corpus_writer(tmp_path / "toy", {"test": 3})
    write_json(data / "dataset.json", {"dataset": "toy", "split": "x", "notes": ["n"], "merged_labels": {"a": "b"}})
    path = data / name
    content = json.loads(path.read_text())
    for place in places(content):
        for new in ODD:
            write_json(path, with_value(content, place, new))
            for read in small_files(run, data)[path]:
                try:
                    read()
                except (DataError, ConfigError) as error:
                    check_sentence(error, 1500)


def test_wrong_types_in_a_model_s_description_are_answers_or_one_sentence(tmp_path):
    run_with(tmp_path)
    path = tmp_path / "model.json"
    content = json.loads(path.read_text())
    cases = [(place, new) for place in places(content) for new in ODD]
    for place, new in random.Random(0).sample(cases, 30):
        path.write_text(json.dumps(with_value(content, place, new)))
        try:
            models.load(tmp_path)
        except ModelError as error:
            check_sentence(error, 2500)


HUGE = {
    "width": lambda v: v["settings"].update(width=2**40),
    "width beyond any number": lambda v: v["settings"].update(width=2**62),
    "layers": lambda v: v["settings"].update(layers=10**9),
    "tokens": lambda v: v["text_encoder"].update(vocab_size=10**10),
    "hidden": lambda v: v["text_encoder"].update(hidden_size=2**30, num_attention_heads=2),
    "encoder layers": lambda v: v["text_encoder"].update(num_hidden_layers=10**9),
    "positions": lambda v: v["text_encoder"].update(max_position_embeddings=10**11),
    "outputs": lambda v: v["settings"].update(outputs=10**12),
}


@pytest.mark.parametrize("change", HUGE.values(), ids=HUGE.keys())
def test_a_huge_model_is_refused_before_it_takes_any_memory(tmp_path, change):
    run_with(tmp_path)
    changed(tmp_path / "model.json", change)
    with pytest.raises(ModelError, match=r"more than|cannot be built|the limit is"):
        models.load(tmp_path)


def test_a_huge_model_is_not_built_anew_either():
    with pytest.raises(ModelError, match=r"mult describes a network of more than|cannot be built"):
        models.build("mult", size=2**30, heads=1)


@pytest.mark.parametrize("name", models.REGISTRY)
def test_looking_at_the_size_first_changes_no_weight(name, monkeypatch):
    def weights():
        torch.manual_seed(0)
        settings = {"size": "base", "width": 8, "heads": 2} if name == "cmt" else {}
        return models.build(name, text_encoder="tiny", **settings).state_dict()

    found = weights()
    monkeypatch.setattr(models, "check_size", lambda *_: None)
    for key, value in weights().items():
        assert torch.equal(found[key], value), key


def test_a_manifest_of_too_many_rows_is_refused_by_what_it_says_of_itself(tmp_path):
    schema = pa.schema([("x", pa.float32())])
    with pq.ParquetWriter(tmp_path / "utterances.parquet", schema) as writer:
        for _ in range(6):
            writer.write_table(pa.table({"x": pa.array(np.zeros(1_000_000, np.float32))}))
    assert (tmp_path / "utterances.parquet").stat().st_size < 2**17
    with pytest.raises(DataError, match="6000000 rows of 1 columns; the limits are"):
        read_manifest(tmp_path)


def test_a_manifest_that_unfolds_to_more_than_a_memory_is_refused(tmp_path):
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200_000, np.int32)), pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"text": column}), tmp_path / "utterances.parquet", store_schema=False)
    assert (tmp_path / "utterances.parquet").stat().st_size < 2**20
    with pytest.raises(DataError, match="unfolds to more than"):
        read_manifest(tmp_path)


def test_names_that_are_no_text_reach_no_file_of_an_import(tmp_path):
    values = np.ones((3, 2, 3), np.float32)
    names = ["v$_$1", "bad\ud800$_$2", "v$_$3"]
    part = {"id": names, "raw_text": ["ok", "x", "half \udfff"], "audio": values, "regression_labels": [1.0, 2.0, 3.0]}
    path = tmp_path / os.fsdecode(b"file \xff.pkl")
    path.write_bytes(pickle.dumps({"train": part}))
    summary = import_features(path, tmp_path / os.fsdecode(b"data \xfe"), QUIET)
    assert (summary["kept"], summary["rejected"]) == (2, 1)
    assert summary["source"] == "file \\xff.pkl"
    assert read_manifest(tmp_path / os.fsdecode(b"data \xfe"))["text"].tolist() == ["ok", "half \\udfff"]


@pytest.mark.parametrize(
    "content", [b"\xff", b"epoch\n\xb2\n", b"epoch,x\n1,y\n", b"epoch,x\n1,nan\n", b'epoch\n"1\n', b"epoch\n1,2,3\n"]
)
def test_a_damaged_log_is_one_sentence(tmp_path, content):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"log.csv (is damaged|cannot be read).*train again"):
        TrainLog.read(tmp_path / "log.csv")


# Terminal and pages


def test_a_terminal_obeys_nothing_that_a_name_says(tmp_path, capsys):
    name = "\x1b]0;owned\x07\x9b2J\u202egpj.mp4"
    with pytest.raises(SystemExit):
        main(["stats", "--data", str(tmp_path / name)])
    said = capsys.readouterr().err
    assert "\\x1b]0;owned\\x07\\x9b2J\\u202egpj.mp4" in said
    Reporter().say(f"reading {name}\nand more")
    said = capsys.readouterr().err
    assert said == "reading \\x1b]0;owned\\x07\\x9b2J\\u202egpj.mp4\nand more\n"


def test_what_is_shown_can_be_written_anywhere():
    text = os.fsdecode(b"a \xff") + "\ud800 \x7f 🙂 ё"
    assert for_terminal(text) == "a \\xff\\ud800 \\x7f 🙂 ё"
    for_terminal(text).encode()
    assert json.loads(for_json(json.dumps({"x": text}, ensure_ascii=False))) == {"x": text}
    assert for_json(json.dumps({"x": text}, ensure_ascii=False)).isprintable()


def test_markdown_holds_no_html_and_no_link_of_a_name():
    evil = '<img src=x onerror="alert(1)">\n# big [click](http://evil)|`'
    sheet = Sheet(
        evil, evil, evil, [Table(evil, evil, [evil], [[Cell(evil, True)]])], [evil], f"pipeline x '{evil}'", {}
    )
    lines = markdown(sheet).splitlines()
    assert not any("<" in line.rpartition("Written by")[0] or line.startswith("# big") for line in lines)
    assert "](" not in "".join(lines[:-1])
    assert sum(line.startswith("#") for line in lines) == 2
    assert lines[-1].startswith("Written by ``pipeline")
    assert lines[-1].endswith("``.")


def test_a_markdown_page_of_harmless_names_stays_as_it_was():
    sheet = Sheet("A [0, 1]", None, "b_c *d*", [Table("T", "n", ["x"], [[Cell("1.0", True)]])], ["r"], "pipeline x", {})
    assert markdown(sheet) == (
        "# A [0, 1]\n\nb_c *d*\n\n## T\n\nn\n\n| x |\n| --- |\n| **1.0** |\n\n- r\n\nWritten by `pipeline x`.\n"
    )


def test_an_emotion_with_a_name_of_ours_keeps_its_row(corpus_writer, tmp_path):
    emotions = ("no_label", "all", "positive")
    data = corpus_writer(tmp_path / "toy", {"train": 6}, emotions=emotions, sentiment=lambda _, i: float(i - 2))
    found = stats(data)
    labels = found["splits"]["train"]["labels"]
    assert {name: counts["utterances"] for name, counts in labels.items()} == {
        "no_label": 2, "all": 2, "positive": 2, "no_label*": 0,
    }  # fmt: skip
    assert found["splits"]["train"]["sentiment"]["positive*"]["utterances"] == 3
    assert {name: row["train"] for name, row in found["table"].items()} == {
        "no_label": 2, "all": 2, "positive": 2, "no_label*": 0, "negative": 2, "zero": 1, "positive*": 3, "all*": 6,
    }  # fmt: skip
    assert format_stats(found).count("positive*") == 3


# Damage is in test_damaged_folders.py


def test_check_wants_one_of_two_things(capsys):
    for arguments in (["check"], ["check", "--dataset", "iemocap", "--data", "x"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert "give either --dataset NAME" in capsys.readouterr().err
    assert CHECK.flags()["dataset"].default is None

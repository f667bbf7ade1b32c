"""Stores, features and weights with a bit changed, a part gone or values that are no numbers."""

import json
import pickle
import random
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from data_tools.checksums import SUFFIX, checksum_path
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.media.audio import write_wav
from data_tools.sequences.steps import untimed
from data_tools.sequences.store import DialogueFeatures, features_path
from data_tools.sequences.store import write_dialogue as write_features
from data_tools.store import DialogueStore, SampleTensors, read_fingerprint, store_path, write_dialogue
from models.checkpoint import write_weights
from models.errors import ModelError
from pipeline.cli import main
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.predict import predict
from pipeline.progress import Reporter
from pipeline.run import RunDir

QUIET = Reporter(quiet=True)


def check_sentence(error, most):
    assert 0 < len(str(error)) < most


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def make_store(folder):
    """Two utterances of random faces and sound, and one that was rejected."""
    noise = np.random.default_rng(0)

    def tensors(faces, rows):
        return SampleTensors(
            faces=torch.from_numpy(noise.integers(0, 256, (faces, 48, 48, 3), dtype=np.uint8)),
            face_time_s=torch.arange(faces) * 0.5,
            face_score=torch.ones(faces),
            face_landmarks=torch.zeros(faces, 5, 2),
            face_box=torch.zeros(faces, 4),
            logmel=torch.from_numpy(noise.normal(size=(rows, 128)).astype(np.float16)),
        )

    path = folder / "store" / "d.safetensors"
    path.parent.mkdir(parents=True)
    write_dialogue(path, {"a": tensors(2, 40), "b": tensors(1, 30)}, "print", {"c": ("clip:unreadable", "cut short")})
    return path


def make_features(folder):
    noise = np.random.default_rng(0)
    path = folder / "features" / "default" / "d.safetensors"
    path.parent.mkdir(parents=True)
    values = {
        name: {letter: untimed(noise.normal(size=(3, 4)).astype(np.float32)) for letter in "tav"} for name in ("a", "b")
    }
    write_features(path, values, {"t": 4, "a": 4, "v": 4}, "print")
    return path


MADE = {"store": (make_store, DialogueStore), "features": (make_features, DialogueFeatures)}


def body_start(path):
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize("kind", MADE)
def test_no_changed_bit_goes_unnoticed(tmp_path, kind):
    make, reader = MADE[kind]
    path = make(tmp_path)
    sound, header = path.read_bytes(), body_start(path)
    draw = random.Random(0)
    bits = [draw.randrange(8 * header) for _ in range(150)]
    bits += [draw.randrange(8 * header, 8 * (header + 48)) for _ in range(30)]
    bits += [draw.randrange(8 * header, 8 * len(sound)) for _ in range(60)]
    for bit in bits:
        flip(path, bit)
        with pytest.raises(DataError, match=r"d.safetensors is damaged: it is not what its checksum .* again"):
            reader(path)
        path.write_bytes(sound)
    assert reader(path).fingerprint == "print"


@pytest.mark.parametrize("kind", MADE)
def test_without_a_checksum_a_changed_bit_is_an_answer_or_one_sentence(tmp_path, kind):
    make, reader = MADE[kind]
    path = make(tmp_path)
    checksum_path(path).unlink()
    sound, header = path.read_bytes(), body_start(path)
    draw = random.Random(1)
    noticed = 0
    for bit in [draw.randrange(8 * (header + 64)) for _ in range(400)]:
        flip(path, bit)
        try:
            found = reader(path)
            for name in ("a", "b"):
                if name in found:
                    found[name]
        except DataError as error:
            noticed += 1
            check_sentence(error, 1000)
        path.write_bytes(sound)
    assert noticed > 200


@pytest.mark.parametrize("kind", MADE)
def test_a_file_of_an_earlier_version_has_no_checksum_and_is_read(tmp_path, kind):
    make, reader = MADE[kind]
    path = make(tmp_path)
    before = path.read_bytes()
    checksum_path(path).unlink()
    assert "a" in reader(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"not a checksum  d.safetensors\n", "0" * 64 + "  x\n"])
def test_a_damaged_checksum_is_said_to_be_one(tmp_path, kind, content):
    make, reader = MADE[kind]
    path = make(tmp_path)
    checksum_path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match="it is not what its checksum"):
        reader(path)


def test_a_checksum_is_that_of_sha256sum(tmp_path):
    import hashlib

    path = make_store(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert checksum_path(path).read_text() == f"{digest}  d.safetensors\n"
    assert read_fingerprint(path) == "print"


def test_offsets_that_lead_elsewhere_are_refused_without_a_checksum(tmp_path):
    path = make_store(tmp_path)
    checksum_path(path).unlink()
    content, start = path.read_bytes(), body_start(path)
    for place, value in ((0, 1), (8, 4), (8, -1), (16, 2**40), (24, 5)):
        at = start + place
        path.write_bytes(content[:at] + value.to_bytes(8, "little", signed=True) + content[at + 8 :])
        with pytest.raises(DataError, match="d.safetensors is damaged"):
            DialogueStore(path)


def test_a_worker_compares_nothing_again(corpus_writer, tmp_path, monkeypatch):
    from data_tools import checksums

    data = corpus_writer(tmp_path / "toy", {"test": 3})
    compared = []
    digest = checksums._digest
    monkeypatch.setattr(checksums, "_digest", lambda path: compared.append(path) or digest(path))
    dataset = UtteranceDataset(data, "test")
    assert compared == [store_path(data, "dialogue_test")]
    sent = pickle.dumps(dataset)
    checksums._sound.clear()  # as in a process that was not forked
    assert len(pickle.loads(sent)[0].faces) == 1
    assert len(compared) == 1


def test_a_damaged_store_names_the_command_wherever_it_is_met(corpus_writer, run, tmp_path):
    data = corpus_writer(tmp_path / "toy", {"train": 4, "valid": 3, "test": 3})
    path = store_path(data, "dialogue_test")
    flip(path, 8 * path.stat().st_size - 5)
    with pytest.raises(DataError, match="run `pipeline preprocess` again"):
        UtteranceDataset(data, "test")
    with pytest.raises(DataError, match="run `pipeline preprocess` again"):
        evaluate(EvaluateSettings(run=run, data=data, device="cpu"), QUIET)
    assert len(UtteranceDataset(data, "train")) == 4


def test_check_tells_which_files_of_a_data_folder_are_damaged(corpus_writer, tmp_path, capsys):
    data = corpus_writer(tmp_path / "toy", {"train": 4, "valid": 3, "test": 3})
    main(["check", "--data", str(data), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found == {"data": str(data), "files": 3, "without_checksum": 0, "problems": []}
    flip(store_path(data, "dialogue_valid"), 20_000)
    checksum_path(store_path(data, "dialogue_test")).unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["check", "--data", str(data)])
    assert stopped.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{data}: 3 files of stores and features"
    assert lines[1].startswith("  1 without a checksum")
    assert lines[2].startswith(f"problem: {store_path(data, 'dialogue_valid')} is damaged")
    assert lines[3:] == ["1 problem"]


def test_check_reads_features_too(tmp_path, corpus_writer):
    from data_tools.sequences.store import FeatureFacts, write_facts
    from pipeline.check_data import check_data

    data = corpus_writer(tmp_path / "toy", {"train": 2})
    path = features_path(data, "default", "dialogue_train")
    steps = {letter: untimed(np.zeros((2, 3), np.float32)) for letter in "tav"}
    write_features(path, {"train_00": steps, "train_01": steps}, dict.fromkeys("tav", 3), "f")
    write_facts(data, FeatureFacts("default", dict.fromkeys("tav", 3), {}, {"dialogue_train": "f"}, None, {}))
    assert check_data(data, QUIET)["files"] == 2
    path.write_bytes(path.read_bytes()[:-3])
    (problem,) = check_data(data, QUIET)["problems"]
    assert problem.startswith(f"{path} is damaged")


# Weights


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    models.save(models.build("fe2e", text_encoder="tiny", width=4, layers=1), tmp_path / "run")
    return tmp_path / "run" / "model.safetensors"


def test_no_changed_bit_of_the_weights_goes_unnoticed(saved):
    sound, header = saved.read_bytes(), body_start(saved)
    draw = random.Random(0)
    digest_key = sound.index(b'"sha256"'), sound.index(b'"sha256"') + 8
    bits = [draw.randrange(8 * header) for _ in range(60)] + [draw.randrange(8 * len(sound)) for _ in range(30)]
    for bit in bits:
        flip(saved, bit)
        if digest_key[0] <= bit // 8 < digest_key[1]:
            continue  # the weights are sound then, and taken for those of an earlier version
        with pytest.raises(ModelError, match=r"holds no readable model|don't fit"):
            models.load(saved.parent)
        saved.write_bytes(sound)


@pytest.mark.parametrize("size", [20, 10_000_000])
def test_zeros_in_place_of_the_weights_are_no_model(saved, size):
    saved.write_bytes(bytes(size))
    with pytest.raises(ModelError, match="holds no readable model"):
        models.load(saved.parent)


def test_weights_of_zeros_are_damaged_too(saved):
    from safetensors import safe_open

    with safe_open(saved, framework="pt") as file:
        about = file.metadata()
    save_file({name: torch.zeros_like(value) for name, value in load_file(saved).items()}, saved, metadata=about)
    with pytest.raises(ModelError, match="the weights are not those that were written"):
        models.load(saved.parent)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_an_error(saved, value):
    weights = load_file(saved)
    weights[max(weights)].flatten()[0] = value
    save_file(weights, saved)
    with pytest.raises(ModelError, match="has values that are not finite"):
        models.load(saved.parent)


def test_weights_of_an_earlier_version_are_read(saved, tiny_corpus_sample):
    before = models.load(saved.parent)
    save_file(load_file(saved), saved)
    after = models.load(saved.parent)
    assert torch.equal(after(tiny_corpus_sample(after)).logits, before(tiny_corpus_sample(before)).logits)


@pytest.fixture
def tiny_corpus_sample(toy_corpus):
    from data_tools.dataset import collate

    dataset = UtteranceDataset(toy_corpus, "test")
    return lambda model: collate([dataset[0]], models.tokenizer_for(model))


@pytest.fixture
def overflowing(run):
    """A run whose weights are numbers, and whose scores are none."""
    weights = {name: value * 1e30 if value.is_floating_point() else value for name, value in
               load_file(run / "model.safetensors").items()}  # fmt: skip
    write_weights(run / "model.safetensors", {name: value.contiguous() for name, value in weights.items()})
    return run


def test_scores_that_are_no_numbers_are_an_error(overflowing, toy_corpus, tmp_path):
    before = (overflowing / "metrics.json").read_bytes()
    with pytest.raises(Exception, match="not finite|the loss is") as caught:
        evaluate(EvaluateSettings(run=overflowing, device="cpu"), QUIET)
    assert type(caught.value).__name__ in ("DataError", "TrainingError")
    assert (overflowing / "metrics.json").read_bytes() == before
    write_wav(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))
    (answer,) = predict(overflowing, [tmp_path / "a.wav"], "word0", "cpu", QUIET)["files"]
    assert answer["error"] == "the scores are not finite: this model cannot answer for it"
    assert answer["scores"] == {}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["metrics"], []),
        (["metrics", "multi_label"], "f1"),
        (["metrics", "multi_label", "f1"], None),
        (["metrics", "multi_label", "f1", "value"], "high"),
        (["metrics", "multi_label", "f1", "per_emotion"], [1, 2]),
        (["notice"], 3),
        (["folder"], None),
    ],
)
def test_scores_of_another_type_are_one_sentence(run, toy_corpus, place, value):
    path = run / "metrics.json"
    saved = json.loads(path.read_text())
    part = next(iter(saved["splits"].values()))
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    path.write_text(json.dumps(saved))
    with pytest.raises(DataError, match=r"metrics\.json is damaged \(.+\); delete it and evaluate each split again"):
        RunDir(run).read_scores(toy_corpus)


def test_a_model_of_another_task_than_its_run_is_named(run, toy_corpus):
    torch.manual_seed(0)
    models.save(models.build("fe2e", outputs=5, text_encoder="tiny", width=4, layers=1), run)
    with pytest.raises(DataError, match="has 5 scores, its task 3"):
        evaluate(EvaluateSettings(run=run, device="cpu"), QUIET)


def test_a_checksum_goes_with_its_file(corpus_writer, tmp_path):
    data = corpus_writer(tmp_path / "toy", {"train": 2})
    shutil.copytree(data / "store", tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "dialogue_train.safetensors", f"dialogue_train.safetensors{SUFFIX}", "store.json",
    ]  # fmt: skip

import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import folder_lock, write_json
from data_tools.manifest import write_manifest
from data_tools.media.audio import read_audio, write_wav
from data_tools.records import Clip
from data_tools.sequences.audio import acoustic, mel_summary
from data_tools.sequences.store import DialogueFeatures, features_path
from data_tools.sequences.vision import FACE_SIZE, face
from data_tools.store import DialogueStore, SampleTensors, store_path, write_dialogue
from pipeline.extract import ExtractSettings, extract
from pipeline.extract_sequences import WordVectors, token_states
from pipeline.progress import Reporter
from pipeline.settings import ConfigError

QUIET = Reporter(quiet=True)
TEXTS = {"d0_u0": "I told you not to come back!", "d0_u1": "", "d1_u0": "well", "d1_u1": "so it is wonderful"}
REJECTED = "d1_gone"


def stored(seed, faces, found=True):
    random = np.random.default_rng(seed)
    picture = cv2.resize(skimage.data.astronaut()[0:200, 130:330], (48, 48))
    crops = [np.roll(picture, seed + i, axis=1) for i in range(faces)]
    landmarks = random.uniform(10, 38, (faces, 5, 2)) if found else np.full((faces, 5, 2), np.nan)
    return SampleTensors(
        faces=torch.from_numpy(np.stack(crops)),
        face_time_s=torch.arange(faces) * 0.5,
        face_score=torch.full((faces,), float(found)),
        face_landmarks=torch.from_numpy(landmarks.astype(np.float32)),
        face_box=torch.zeros(faces, 4),
        logmel=torch.from_numpy(random.normal(size=(80, 128)).astype(np.float16)),
    )


def make_data(folder, texts=TEXTS):
    """Four utterances of a second in two dialogues, and one that preprocessing rejected; one shows no face."""
    clips, fingerprints = [], {}
    for d in range(2):
        features = {}
        for u in range(2):
            name = f"d{d}_u{u}"
            features[name] = stored(2 * d + u, 2, found=name != "d0_u0")
            sound = np.random.default_rng(2 * d + u).normal(0, 0.1, 16_000).astype(np.float32)
            write_wav(folder / f"clips/d{d}/{name}.wav", sound)
        rejected = {REJECTED: ("clip:unreadable", "why")} if d else {}
        fingerprints[f"d{d}"] = f"made by a test {d}"
        write_dialogue(store_path(folder, f"d{d}"), features, fingerprints[f"d{d}"], rejected)
    for i, name in enumerate([*TEXTS, REJECTED]):
        dialogue, split = name[:2], ("train", "valid")[i % 2]
        paths = (f"clips/{dialogue}/{name}.mp4", f"clips/{dialogue}/{name}.wav")
        source = f"Session1/sentences/wav/{dialogue}/{name}.wav"
        labels = {"ang": float(i % 2), "sad": float(i < 2)}
        text = texts.get(name, "gone")
        clips.append(Clip(name, dialogue, "s", "1", split, 0.0, 1.0, text, *paths, labels, None, "v.avi", source, 25.0))
    write_manifest(folder, clips, ["ang", "sad"])
    settings = {"faces": {"sample_every_ms": 500}, "mel": {"n_fft": 1024}}
    write_json(folder / "store" / "store.json", {"settings": settings, "fingerprints": fingerprints})
    return folder


def settings(folder, **changes):
    values = {"data": folder, "workers": 1, "text_encoder": "tiny"} | changes
    return ExtractSettings.checked(values, "test")


def written(folder, name="default"):
    return {path.name: path.read_bytes() for path in sorted((folder / "features" / name).iterdir())}


def letters_done(monkeypatch):
    """Letters of every utterance whose features are computed from now on."""
    done = []
    module = importlib.import_module("pipeline.extract")

    def spy(source, recipe, text, letters):
        done.append("".join(letters))
        return original(source, recipe, text, letters)

    original = module.steps_of
    monkeypatch.setattr(module, "steps_of", spy)
    return done


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("data"))
    return folder, extract(settings(folder), QUIET)


def test_every_utterance_has_the_features_of_its_media(done):
    folder, summary = done
    assert (summary["utterances"], summary["rejected"], summary["dialogues"]) == (4, 1, 2)
    assert summary["sizes"] == {"t": 32, "a": 33, "v": FACE_SIZE}
    data = UtteranceDataset(folder, features="default")
    assert data.table["utterance_id"].tolist() == sorted(TEXTS)
    assert data.rejected == 1
    for i, name in enumerate(sorted(TEXTS)):
        features = data[i].features
        tensors = DialogueStore(store_path(folder, name[:2]))[name]
        sound = read_audio(folder / f"clips/{name[:2]}/{name}.wav")
        np.testing.assert_array_equal(features["a"], acoustic(sound, 32).values)
        np.testing.assert_array_equal(features["v"], face(tensors, 500).values)
    assert summary["steps"]["a"] == 4 * 32  # a second at 32 ms
    assert summary["steps"]["v"] == 3 * 2  # one utterance shows no face


def test_text_is_the_states_of_its_tokens(done):
    folder, _ = done
    data = UtteranceDataset(folder, features="default")
    encoder = token_states("tiny", 100).encoder
    tokens, mask = encoder.tokenizer([TEXTS["d0_u0"]])
    with torch.no_grad():
        states, _ = encoder.states(tokens, mask)
    torch.testing.assert_close(data[0].features["t"], states[0], rtol=1e-5, atol=1e-6)
    assert data[1].features["t"].shape == (0, 32)  # no words
    assert np.isnan(DialogueFeatures(features_path(folder, "default", "d0")).steps("d0_u0", "t").times).all()


def test_a_text_does_not_depend_on_its_neighbours():
    steps = token_states("minilm", 100)
    alone = steps.of_text("well, that is wonderful").values
    token_states("minilm", 100).of_text("another one that is much, much longer than the first one was")
    np.testing.assert_array_equal(steps.of_text("well, that is wonderful").values, alone)
    with torch.no_grad():
        tokens, mask = steps.encoder.tokenizer(["well, that is wonderful"])
        expected, _ = steps.encoder.states(tokens, mask)
    np.testing.assert_allclose(alone, expected[0], rtol=1e-4, atol=1e-5)
    assert alone.shape == (7, 384)  # [CLS] well , that is wonderful [SEP]


def test_without_a_face_in_any_frame_there_is_no_step(done):
    assert UtteranceDataset(done[0], features="default")[0].features["v"].shape == (0, FACE_SIZE)


@pytest.mark.slow
def test_processes_change_no_byte(done, tmp_path):
    extract(settings(make_data(tmp_path), workers=2), QUIET)
    assert written(tmp_path) == written(done[0])


def test_what_is_done_is_kept(tmp_path, monkeypatch):
    extract(settings(make_data(tmp_path)), QUIET)
    before, computed = written(tmp_path), letters_done(monkeypatch)
    summary = extract(settings(tmp_path), QUIET)
    assert (summary["dialogues_kept"], computed, written(tmp_path)) == (2, [], before)


def test_a_change_does_again_what_depends_on_it_and_no_more(tmp_path, monkeypatch):
    extract(settings(make_data(tmp_path)), QUIET)
    computed = letters_done(monkeypatch)
    extract(settings(tmp_path, audio_step_ms=64), QUIET)
    assert computed == ["a"] * 4
    computed.clear()
    make_data(tmp_path, TEXTS | {"d1_u0": "oh well"})
    extract(settings(tmp_path, audio_step_ms=64), QUIET)
    assert computed == ["t"] * 2  # one dialogue
    computed.clear()
    write_wav(tmp_path / "clips/d0/d0_u0.wav", np.zeros(8000, np.float32))
    summary = extract(settings(tmp_path, audio_step_ms=64), QUIET)
    assert computed == ["a"] * 2
    assert summary["steps"]["a"] == 8 + 3 * 16
    fresh = tmp_path / "fresh"
    make_data(fresh, TEXTS | {"d1_u0": "oh well"})
    write_wav(fresh / "clips/d0/d0_u0.wav", np.zeros(8000, np.float32))
    extract(settings(fresh, audio_step_ms=64), QUIET)
    assert written(fresh) == written(tmp_path)


def test_features_beside_each_other(tmp_path):
    make_data(tmp_path)
    extract(settings(tmp_path), QUIET)
    summary = extract(settings(tmp_path, features="mel", audio="mel", audio_step_ms=400, modalities="av"), QUIET)
    assert summary["sizes"] == {"a": 256, "v": FACE_SIZE}
    data = UtteranceDataset(tmp_path, features="mel")
    logmel = DialogueStore(store_path(tmp_path, "d0"))["d0_u0"].logmel
    np.testing.assert_array_equal(data[0].features["a"], mel_summary(logmel, 400).values)
    assert set(UtteranceDataset(tmp_path, features="default")[0].features) == set("tav")


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_bytes(done, tmp_path):
    make_data(tmp_path)
    command = [sys.executable, "-m", "pipeline.cli", "extract", "--data", str(tmp_path), "--workers", "1"]
    child = subprocess.Popen([*command, "--set", "text_encoder=tiny"], start_new_session=True)
    first = features_path(tmp_path, "default", "d0")
    try:
        while not first.exists():
            assert child.poll() is None, "it ended before it wrote anything"
            time.sleep(0.001)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if not (first.parent / "features.json").exists():
        with pytest.raises(DataError, match="pipeline extract"):  # half of it is not taken for the whole
            UtteranceDataset(tmp_path, features="default")
    (first.parent / ".left.1.tmp.safetensors").write_bytes(b"half")
    (first.parent / "gone_dialogue.safetensors").write_bytes(first.read_bytes())  # of another release
    extract(settings(tmp_path), QUIET)
    assert written(tmp_path) == written(done[0])


def test_damaged_features_are_made_again(done, tmp_path):
    extract(settings(make_data(tmp_path)), QUIET)
    features_path(tmp_path, "default", "d1").write_bytes(b"\x00" * 100)
    extract(settings(tmp_path), QUIET)
    assert written(tmp_path) == written(done[0])


def test_another_preprocessing_asks_for_extraction(tmp_path):
    extract(settings(make_data(tmp_path)), QUIET)
    path = tmp_path / "store" / "store.json"
    values = json.loads(path.read_text())
    write_json(path, values | {"settings": {"faces": {"sample_every_ms": 250}}})
    with pytest.raises(DataError, match="another preprocessing.*pipeline extract"):
        UtteranceDataset(tmp_path, features="default")


@pytest.mark.parametrize("damage", ["store.json", "store", "wav", "manifest"])
def test_what_is_missing_is_named_with_the_command(tmp_path, damage):
    make_data(tmp_path)
    name, command = {
        "store.json": ("store/store.json", "pipeline preprocess"),
        "store": ("store/d1.safetensors", "pipeline preprocess"),
        "wav": ("clips/d1/d1_u0.wav", "d1_u0.wav"),
        "manifest": ("utterances.parquet", "pipeline reorganize"),
    }[damage]
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=command):
        extract(settings(tmp_path), QUIET)
    assert not (tmp_path / "features" / "default" / "features.json").exists()


def test_word_vectors_of_a_glove_file(tmp_path):
    make_data(tmp_path)
    lines = ["i 1 0", "told 0.5 0.25", "well 7 8", "unused 9 9", "it 3 3"]
    (tmp_path / "glove.txt").write_text("\n".join(lines) + "\n")
    summary = extract(settings(tmp_path, glove=tmp_path / "glove.txt", features="glove"), QUIET)
    assert summary["sizes"]["t"] == 2
    data = UtteranceDataset(tmp_path, features="glove")
    # I told you not to come back !
    assert data[0].features["t"].tolist() == [[1, 0], [0.5, 0.25]] + [[0, 0]] * 6
    assert data[1].features["t"].shape == (0, 2)
    assert data[2].features["t"].tolist() == [[7, 8]]
    (tmp_path / "none.txt").write_text("unused 9 9\n")
    with pytest.raises(DataError, match="none of the words"):
        extract(settings(tmp_path, glove=tmp_path / "none.txt", features="glove"), QUIET)


def write_words(folder, name, words):
    with (folder / "clips" / name[:2] / f"{name}.words.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("word", "start_s", "end_s"), *words])


def test_aligned_features_have_one_step_a_word(tmp_path):
    make_data(tmp_path)
    write_words(tmp_path, "d0_u0", [("I", 0.0, 0.2), ("told", 0.2, 0.5), ("you", 0.6, 1.0)])
    release = tmp_path / "raw/Session1/sentences/ForcedAlignment/d1"
    release.mkdir(parents=True)
    (release / "d1_u0.wdseg").write_text(" SFrm EFrm SegAScr Word\n 10 49 -5 WELL\n")
    chosen = settings(tmp_path, align="words", features="words", root=tmp_path / "raw")
    summary = extract(chosen, QUIET)
    assert summary["without_word_times"] == 2
    data = UtteranceDataset(tmp_path, features="words")
    counts = [{letter: len(values) for letter, values in data[i].features.items()} for i in range(4)]
    # Without word times an utterance is one step; the first one has no face, the second one no text at all.
    assert counts == [
        {"t": 3, "a": 3, "v": 0},
        {"t": 0, "a": 1, "v": 1},
        dict.fromkeys("tav", 1),
        dict.fromkeys("tav", 1),
    ]
    store = DialogueFeatures(features_path(tmp_path, "words", "d0"))
    np.testing.assert_allclose(store.steps("d0_u0", "a").times, [[0, 0.2], [0.2, 0.5], [0.6, 1.0]], atol=1e-6)
    # The third word, 0.6 to 1 s, lies in the steps from 0.592 - 0.624 on: the first of them counts three quarters.
    steps = acoustic(read_audio(tmp_path / "clips/d0/d0_u0.wav"), 32)
    starts, ends = steps.times[:, 0], steps.times[:, 1]
    weights = np.clip(np.minimum(ends, 1.0) - np.maximum(starts, 0.6), 0, None)
    expected = (weights[:, None] * steps.values).sum(0) / weights.sum()
    np.testing.assert_allclose(store.steps("d0_u0", "a").values[2], expected, rtol=1e-4, atol=1e-4)
    # 0.1 to 0.5 s of IEMOCAP's alignment: the first frame's face alone.
    plain = face(DialogueStore(store_path(tmp_path, "d1"))["d1_u0"], 500).values
    np.testing.assert_allclose(data[2].features["v"][0], plain[0], rtol=1e-5, atol=1e-6)


def test_a_words_state_is_the_mean_of_its_tokens():
    from data_tools.sequences.align import Word

    words = [Word("unbelievably", 0, 1), Word("", 1, 2), Word("good", 2, 3)]
    steps = token_states("minilm", 100)
    found = steps.of_words(words)
    tokens, mask = steps.encoder.tokenizer(["unbelievably good"])
    with torch.no_grad():
        states, _ = steps.encoder.states(tokens, mask)
    torch.testing.assert_close(torch.from_numpy(found.values[0]), states[0, 1:-2].mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(found.values[2]), states[0, -2], rtol=1e-4, atol=1e-5)
    assert not found.values[1].any()
    assert found.times.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_words_beyond_the_longest_text_are_zero():
    from data_tools.sequences.align import Word

    steps = token_states("tiny", 5)
    values = steps.of_words([Word(text, 0, 1) for text in ("one", "two", "three", "four")]).values
    assert values[:3].any(axis=1).all()
    assert not values[3].any()


def test_alignment_without_any_word_times_says_where_they_come_from(tmp_path):
    make_data(tmp_path)
    with pytest.raises(DataError, match=r"words\.csv.*root=FOLDER"):
        extract(settings(tmp_path, align="words"), QUIET)
    assert not (tmp_path / "features" / "default" / "features.json").exists()


def test_the_digest_of_word_vectors_is_that_of_their_values():
    one = {"a": np.array([1, 2], np.float32), "b": np.array([3, 4], np.float32)}
    assert WordVectors(one, 2).digest == WordVectors(dict(reversed(one.items())), 2).digest
    assert WordVectors(one, 2).digest != WordVectors(one | {"b": np.array([3, 5], np.float32)}, 2).digest


@pytest.mark.parametrize(
    ("values", "part"),
    [({"modalities": "tt"}, "each letter once"), ({"modalities": "x"}, "modalities is 'x'"), ({"hop": 1}, "hop"),
     ({"audio_step_ms": 1}, "audio_step_ms is 1"), ({"align": "phones"}, "align is 'phones'")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(tmp_path, values, part):
    with pytest.raises(ConfigError, match=part):
        settings(tmp_path, **values)


def test_a_name_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="features are called"):
        extract(settings(make_data(tmp_path), features="../x"), QUIET)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    make_data(tmp_path)
    with folder_lock(tmp_path), pytest.raises(DataError, match="another run is at work"):
        extract(settings(tmp_path), QUIET)

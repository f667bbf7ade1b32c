import pickle

import numpy as np
import pytest
import torch

from data_tools.dataset import UtteranceDataset, collate
from data_tools.errors import DataError
from data_tools.files import write_json
from data_tools.manifest import write_manifest
from data_tools.records import Clip
from data_tools.sequences.scale import FeatureScale
from data_tools.sequences.steps import Steps, untimed
from data_tools.sequences.store import DialogueFeatures, FeatureFacts, features_path, write_facts
from data_tools.sequences.store import write_dialogue as write_features

SIZES = {"t": 3, "a": 2, "v": 1}


def steps(count, size, start):
    """`count` steps of half a second with the values start, start + 1, ..."""
    values = np.arange(start, start + count * size, dtype=np.float32).reshape(count, size)
    at = np.arange(count, dtype=np.float32) / 2
    return Steps(values, np.stack([at, at + 0.5], axis=1))


def features(t, a, v, start=0.0):
    return {"t": untimed(steps(t, 3, start).values), "a": steps(a, 2, start), "v": steps(v, 1, start)}


D1 = {"d1_a": features(2, 3, 0), "d1_b": features(0, 1, 2, start=100)}


def clip(utterance_id, split="train", media="x"):
    dialogue = utterance_id.rsplit("_", 1)[0]
    return Clip(
        utterance_id, dialogue, "s", "1", split, 0.0, 1.0, "so", media, media, {"ang": 1.0}, None, "v", "a", 25.0
    )


def write(folder, name="default", store=None, media="x"):
    write_manifest(
        folder, [clip("d1_a", media=media), clip("d1_b", "test", media), clip("d2_gone", media=media)], ["ang"]
    )
    write_features(features_path(folder, name, "d1"), D1, SIZES, "f1")
    write_features(features_path(folder, name, "d2"), {}, SIZES, "f2", rejected=("d2_gone",))
    write_facts(folder, FeatureFacts(name, SIZES, {"hop": 1}, {"d1": "f1", "d2": "f2"}, store, {}))
    return folder


def tokenize(texts):
    return torch.zeros(len(texts), 1, dtype=torch.int64), torch.zeros(len(texts), 1, dtype=torch.bool)


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "d.safetensors"
    write_features(path, D1, SIZES, "f", parts={"t": "1", "a": "2"}, rejected=("x",))
    store = DialogueFeatures(path)
    assert (store.fingerprint, store.parts, store.rejected, store.letters) == ("f", {"t": "1", "a": "2"}, {"x"}, "tav")
    for name, by_letter in D1.items():
        for letter, expected in by_letter.items():
            found = store.steps(name, letter)
            np.testing.assert_array_equal(found.values, expected.values)
            np.testing.assert_array_equal(found.times, expected.times)
            assert store[name][letter].shape == (len(expected), SIZES[letter])
    assert "d1_a" in store
    assert "x" not in store


def test_offsets_are_the_running_sum_of_the_counts(tmp_path):
    from safetensors.torch import load_file

    write_features(tmp_path / "d.safetensors", D1, SIZES, "f")
    tensors = load_file(tmp_path / "d.safetensors")
    assert {k: v.tolist() for k, v in tensors.items() if k.endswith("offsets")} == {
        "t.offsets": [0, 2, 2],
        "a.offsets": [0, 3, 4],
        "v.offsets": [0, 0, 2],
    }
    assert tensors["a.times"].tolist() == [[0.0, 0.5], [0.5, 1.0], [1.0, 1.5], [0.0, 0.5]]


def test_the_same_features_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_features(tmp_path / f"{name}.safetensors", D1, SIZES, "f", parts={"t": "1", "a": "2", "v": "3"})
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("values", "times"),
    [((2, 3), (1, 2)), ((2,), (2, 2)), ((2, 3), (2, 3))],
)
def test_steps_of_other_shapes_are_refused(values, times):
    with pytest.raises(ValueError, match="belong together"):
        Steps(np.zeros(values, np.float32), np.zeros(times, np.float32))


def test_values_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        untimed(np.full((1, 2), np.nan, np.float32))


def test_samples_have_features_and_neither_faces_nor_sound(tmp_path):
    data = UtteranceDataset(write(tmp_path), features="default")
    assert (len(data), data.rejected, data.features.sizes) == (2, 1, SIZES)
    sample = data[1]
    assert (sample.id, sample.text, sample.labels.tolist()) == ("d1_b", "so", [1.0])
    assert {letter: tuple(values.shape) for letter, values in sample.features.items()} == {
        "t": (0, 3),
        "a": (1, 2),
        "v": (2, 1),
    }
    assert sample.features["v"].tolist() == [[100.0], [101.0]]
    assert (sample.faces.shape, sample.chunks.shape) == ((0, 3, 48, 48), (0, 1, 128, 32))


def test_a_batch_of_features_is_packed_in_order(tmp_path):
    data = UtteranceDataset(write(tmp_path), features="default")
    batch = collate([data[1], data[0]], tokenize)
    assert {letter: packed.counts.tolist() for letter, packed in batch.features.items()} == {
        "t": [0, 2],
        "a": [1, 3],
        "v": [2, 0],
    }
    assert batch.features["a"].values.tolist() == [[100.0, 101.0], [0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert batch.face_counts.tolist() == batch.chunk_counts.tolist() == [0, 0]


def test_it_travels_to_a_worker(tmp_path):
    data = UtteranceDataset(write(tmp_path), features="default")
    data.scale = data.fit_scale()
    first = data[0]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[0].features["a"], first.features["a"])


def test_the_scale_is_that_of_all_steps_of_the_split(tmp_path):
    data = UtteranceDataset(write(tmp_path), features="default")
    data.scale = scale = data.fit_scale()
    together = {letter: torch.cat([data[i].features[letter] for i in range(2)]) for letter in SIZES}
    for values in together.values():
        deviation, mean = torch.std_mean(values, dim=0, correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-6, rtol=0)
        torch.testing.assert_close(deviation, torch.ones_like(deviation))
    assert scale.mean["a"].tolist() == [(0 + 2 + 4 + 100) / 4, (1 + 3 + 5 + 101) / 4]
    again = FeatureScale.from_lists(scale.lists())
    assert all(torch.equal(again.deviation[k], v) for k, v in scale.deviation.items())


def test_a_constant_feature_and_an_absent_modality_stay_finite():
    scale = FeatureScale.of([{"a": torch.full((3, 1), 7.25), "v": torch.zeros(0, 2)}])
    scaled = scale({"a": torch.tensor([[7.25], [8.25]]), "v": torch.zeros(0, 2)})
    assert scaled["a"].tolist() == [[0.0], [1.0]]
    assert scaled["v"].shape == (0, 2)


def test_missing_features_name_the_command_and_what_is_there(tmp_path):
    write(tmp_path, "mel")
    with pytest.raises(DataError, match=r"there are: mel.*pipeline extract --data .* --features default"):
        UtteranceDataset(tmp_path, features="default")


def test_features_of_another_run_are_refused(tmp_path):
    write(tmp_path)
    write_features(features_path(tmp_path, "default", "d1"), D1, SIZES, "of other settings")
    with pytest.raises(DataError, match=r"d1\.safetensors is not of the run.*pipeline extract"):
        UtteranceDataset(tmp_path, features="default")
    write_features(features_path(tmp_path, "default", "d1"), {"d1_a": D1["d1_a"]}, SIZES, "f1")
    with pytest.raises(DataError, match=r"'d1_b' is not in .*pipeline extract"):
        UtteranceDataset(tmp_path, features="default")


def test_features_of_another_preprocessing_are_refused(tmp_path):
    write(tmp_path, store="of a store that is gone")
    write_json(tmp_path / "store" / "store.json", {"fingerprints": {"d1": "new"}})
    with pytest.raises(DataError, match="made from another preprocessing.*pipeline extract"):
        UtteranceDataset(tmp_path, features="default")


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"version": 1, "more": 2}', '{"version": 0}'])
def test_damaged_facts_are_refused(tmp_path, content):
    write(tmp_path)
    (tmp_path / "features" / "default" / "features.json").write_text(content)
    with pytest.raises(DataError, match="pipeline extract"):
        UtteranceDataset(tmp_path, features="default")


@pytest.mark.parametrize("content", [b"", b"\x10" * 40])
def test_a_damaged_file_is_refused(tmp_path, content):
    write(tmp_path)
    features_path(tmp_path, "default", "d1").write_bytes(content)
    with pytest.raises(DataError, match="pipeline extract"):
        UtteranceDataset(tmp_path, features="default")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="features are called"):
        UtteranceDataset(write(tmp_path), features=name)


def test_without_clips_only_features_can_be_read(tmp_path):
    write(tmp_path, "imported", media="")
    assert len(UtteranceDataset(tmp_path, "test", features="imported")) == 1
    with pytest.raises(DataError, match="no clips, only imported features.*features=imported"):
        UtteranceDataset(tmp_path, "test")

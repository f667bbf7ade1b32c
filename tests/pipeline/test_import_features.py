import json
import os
import pickle

import numpy as np
import pytest

from data_tools.corpora.mmsa.features import span
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.manifest import read_manifest, read_rejects
from data_tools.sequences.store import DialogueFeatures, features_path
from pipeline.cli import main
from pipeline.import_features import import_features
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.settings import ConfigError
from pipeline.stats import format_stats, stats

QUIET = Reporter(quiet=True)


def split(ids, seed=0, **changes):
    """One split as MMSA has it: 6 steps at most, of 4 text, 3 audio and 2 vision values."""
    random = np.random.default_rng(seed)
    count = len(ids)
    audio = random.normal(size=(count, 6, 3)).astype(np.float32)
    masks = np.zeros((count, 3, 6), np.float32)
    for i in range(count):
        masks[i, 1, : 2 + i % 4] = 1
    return {
        "raw_text": np.array([f"text {i}" for i in range(count)]),
        "audio": audio,
        "vision": random.normal(size=(count, 5, 2)),
        "text": random.normal(size=(count, 6, 4)).astype(np.float32),
        "text_bert": masks,
        "audio_lengths": [1 + i % 6 for i in range(count)],
        "vision_lengths": np.arange(1, count + 1) % 6,
        "id": list(ids),
        "annotations": ["Positive"] * count,
        "classification_labels": np.ones(count),
        "regression_labels": np.linspace(-3, 3, count),
    } | changes


def content(**changes):
    train = split([f"v{i // 4}$_${i}" for i in range(8)], **changes)
    return {"train": train, "valid": split(["w$_$1", "w$_$2"], 1), "test": split(["x_y$_$10", "x_y$_$2"], 2)}


def write(folder, value, protocol=4, name="mosi.pkl"):
    path = folder / name
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    return folder / "data", import_features(write(folder, content()), folder / "data", QUIET)


@pytest.mark.parametrize(("flags", "folder"), [([], "data/unaligned_50"), (["--out", "own"], "own")])
def test_without_a_folder_the_command_names_one_after_the_file(tmp_path, monkeypatch, capsys, flags, folder):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, content(), name="unaligned_50.pkl")
    main(["import-features", str(file), *flags, "--json"])
    assert json.loads(capsys.readouterr().out)["kept"] == len(read_manifest(tmp_path / folder)) == 12


def test_splits_texts_and_sentiment_are_those_of_the_file(imported):
    folder, summary = imported
    assert (summary["kept"], summary["rejected"], summary["sizes"]) == (12, 0, {"t": 4, "a": 3, "v": 2})
    table = read_manifest(folder).set_index("utterance_id")
    assert table["split"].value_counts().to_dict() == {"train": 8, "valid": 2, "test": 2}
    assert table.loc["v0_1", ["dialogue_id", "text", "clip", "wav"]].tolist() == ["v0", "text 1", "", ""]
    assert table.loc["x_y_10", "dialogue_id"] == "x_y"
    np.testing.assert_allclose(
        table.loc[[f"v{i // 4}_{i}" for i in range(8)], "sentiment"], np.linspace(-3, 3, 8), 1e-6
    )


def test_steps_are_those_that_the_file_says_are_real(imported):
    folder, _ = imported
    train, data = content()["train"], UtteranceDataset(folder, "train", "imported")
    for i in range(8):
        sample = data[i]
        assert sample.id == f"v{i // 4}_{i}"
        np.testing.assert_array_equal(sample.features["a"], train["audio"][i, : 1 + i % 6])
        np.testing.assert_allclose(sample.features["v"], train["vision"][i, : (i + 1) % 6], rtol=1e-6)
        np.testing.assert_array_equal(sample.features["t"], train["text"][i, : 2 + i % 4])
        assert sample.sentiment == pytest.approx(np.linspace(-3, 3, 8)[i])
    steps = DialogueFeatures(features_path(folder, "imported", "w")).steps("w_1", "a")
    assert np.isnan(steps.times).all()


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_gives_the_same_bytes(imported, tmp_path, protocol):
    import_features(write(tmp_path, content(), protocol), tmp_path / "data", QUIET)
    names = [
        "utterances.parquet",
        "rejects.parquet",
        "dataset.json",
        *(f"features/imported/{n}.safetensors" for n in ("v0", "w")),
    ]
    for name in names:
        assert (tmp_path / "data" / name).read_bytes() == (imported[0] / name).read_bytes(), name


def test_without_lengths_zeros_at_both_ends_are_padding(tmp_path):
    audio = np.zeros((8, 6, 3), np.float32)
    audio[:, 2:4] = 1
    audio[3] = 0
    value = {"train": split([f"v$_${i}" for i in range(8)], audio=audio, audio_lengths=None)}
    import_features(write(tmp_path, value), tmp_path / "data", QUIET)
    data = UtteranceDataset(tmp_path / "data", features="imported")
    assert [len(data[i].features["a"]) for i in range(8)] == [2, 2, 2, 0, 2, 2, 2, 2]
    assert span(np.array([False, True, False, True, False])) == (1, 4)
    assert span(np.zeros(3, bool)) == (0, 0)


def test_aligned_files_stay_aligned(tmp_path):
    """Each modality has zero steps of its own at both ends; what is padding in all of them alone is cut."""
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(2, 50, size)) for name, size in (("text", 4), ("audio", 3), ("vision", 2))}
    for name, first, stop in (("text", 0, 30), ("audio", 1, 29), ("vision", 1, 30)):
        arrays[name][:, :first] = arrays[name][:, stop:] = 0
    arrays["audio"][1] = 0
    part = {"id": ["v$_$1", "v$_$2"], "regression_labels": np.ones(2), **arrays}
    summary = import_features(write(tmp_path, {"train": part}), tmp_path / "data", QUIET)
    assert "aligned: all modalities keep the same steps (train)" in summary["notes"]
    data = UtteranceDataset(tmp_path / "data", features="imported")
    for i in range(2):
        for letter, name in (("t", "text"), ("a", "audio"), ("v", "vision")):
            np.testing.assert_allclose(data[i].features[letter], arrays[name][i, :30], rtol=1e-6)
    # The mask of the text counts for it; lengths that differ say that a file is not aligned.
    masks = np.zeros((2, 3, 50))
    masks[:, 1, 2:32] = 1
    import_features(write(tmp_path, {"train": part | {"text_bert": masks}}), tmp_path / "data", QUIET)
    data = UtteranceDataset(tmp_path / "data", features="imported")
    assert [len(data[0].features[letter]) for letter in "tav"] == [31, 31, 31]
    assert [len(data[1].features[letter]) for letter in "tav"] == [31, 31, 31]
    lengths = {"audio_lengths": [29, 3], "vision_lengths": [30, 30]}
    import_features(write(tmp_path, {"train": part | lengths}), tmp_path / "data", QUIET)
    data = UtteranceDataset(tmp_path / "data", features="imported")
    assert [len(data[0].features[letter]) for letter in "tav"] == [30, 29, 30]


def test_padding_at_the_start_keeps_the_data(tmp_path):
    audio = np.zeros((8, 6, 3), np.float32)
    lengths = [2, 3, 6, 0, 1, 2, 3, 4]
    for i, length in enumerate(lengths):
        audio[i, 6 - length :] = i + 1
    value = {"train": split([f"v$_${i}" for i in range(8)], audio=audio, audio_lengths=lengths)}
    summary = import_features(write(tmp_path, value), tmp_path / "data", QUIET)
    data = UtteranceDataset(tmp_path / "data", features="imported")
    for i, length in enumerate(lengths):
        np.testing.assert_array_equal(data[i].features["a"], np.full((length, 3), i + 1))
    assert not any("audio" in note for note in summary["notes"])


def test_lengths_that_do_not_fit_are_counted(tmp_path):
    audio = np.ones((8, 6, 3), np.float32)
    value = {"train": split([f"v$_${i}" for i in range(8)], audio=audio, audio_lengths=[6] * 5 + [5, 9, -1])}
    notes = import_features(write(tmp_path, value), tmp_path / "data", QUIET)["notes"]
    assert "2 utterances have values of audio beyond their stated length, which are left out" in notes
    assert "2 utterances state a length that their audio does not have" in notes


@pytest.mark.parametrize("name", ["dev", "val", "validation", "Valid", " VAL "])
def test_the_names_of_splits(tmp_path, name):
    value = content()
    value[name] = value.pop("valid")
    summary = import_features(write(tmp_path, value), tmp_path / "data", QUIET)
    assert {split: part["utterances"] for split, part in summary["splits"].items()} == {
        "train": 8,
        "valid": 2,
        "test": 2,
    }
    assert (summary["kept"], summary["rejected"], summary["found"]) == (12, 0, 12)


def test_what_is_in_no_split_is_counted_and_named(tmp_path):
    value = content() | {"held_out": split(["z$_$1", "z$_$2", "z$_$3"]), "meta": {"a": 1}, "version": 2}
    summary = import_features(write(tmp_path, value), tmp_path / "data", QUIET)
    assert (summary["kept"], summary["rejected"], summary["found"]) == (12, 3, 15)
    assert summary["reasons"] == {"fold:unknown": 3}
    assert {r.utterance_id for r in read_rejects(tmp_path / "data")} == {"z_1", "z_2", "z_3"}
    (unused,) = (note for note in summary["notes"] if note.startswith("not used: "))
    assert unused == "not used: annotations, classification_labels, meta, version"


def test_many_parts_with_the_same_ids_are_refused(tmp_path):
    ids = [f"z$_${i}" for i in range(300)]
    value = content() | {f"part{i}": {"id": ids} for i in range(300)}
    with pytest.raises(DataError, match="the same ids in many parts"):
        import_features(write(tmp_path, value), tmp_path / "data", QUIET)


def test_lists_of_arrays_and_fewer_modalities(tmp_path):
    part = split(["v$_$1", "v$_$2"])
    value = {"train": {name: part[name] for name in ("id", "regression_labels")}}
    value["train"]["text"] = [np.ones((3, 4), np.float32), np.ones((1, 4), np.float32)]
    summary = import_features(write(tmp_path, value), tmp_path / "data", QUIET)
    assert summary["sizes"] == {"t": 4}
    data = UtteranceDataset(tmp_path / "data", features="imported")
    assert [(sample.text, len(sample.features["t"])) for sample in (data[0], data[1])] == [("", 3), ("", 1)]


def test_what_is_no_number_becomes_zero_and_is_said(tmp_path):
    audio = np.ones((8, 6, 3))
    audio[0, 0] = [-np.inf, np.nan, 1e300]
    summary = import_features(write(tmp_path, content(audio=audio)), tmp_path / "data", QUIET)
    assert summary["notes"][0] == "3 values of audio were no numbers and are 0 now"
    data = UtteranceDataset(tmp_path / "data", "train", "imported")
    assert data[0].features["a"].tolist() == [[0, 0, 0]]


def test_rejects_are_counted_with_reasons(tmp_path):
    ids = ["v$_$1", "v$_$1", "../../x$_$1", "v$_$\n3", ".h$_$1", "v$_$5", "v$_$6", "a/b$_$1"]
    labels = np.linspace(-1, 1, 8)
    labels[5] = np.nan
    summary = import_features(write(tmp_path, content(id=ids, regression_labels=labels)), tmp_path / "data", QUIET)
    assert summary["reasons"] == {"duplicate": 1, "id:unsafe": 4, "no_labels": 1}
    assert (summary["kept"], summary["found"]) == (6, 12)
    rejects = read_rejects(tmp_path / "data")
    assert len(rejects) == 6
    assert {r.stage for r in rejects} == {"import"}
    assert {path.name for path in tmp_path.iterdir()} == {"mosi.pkl", "data"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": None}, "no list or array 'id'"),
        ({"id": [1] * 8}, "id of entry 0 is a int"),
        ({"regression_labels": None}, "'regression_labels'"),
        ({"regression_labels": np.ones(3)}, "3 entries of 'regression_labels' for 8 ids"),
        ({"audio": np.ones((3, 6, 3))}, "3 entries of 'audio'"),
        ({"audio": np.ones((8, 6))}, r"'audio' of entry 0 is no \(steps, values\) array"),
        ({"audio": np.full((8, 6, 3), "a")}, "'audio' of entry 0"),
        ({"audio": [np.ones((2, 3))] * 7 + [np.ones((2, 4))]}, "entry 7 has 4 values a step, those before 3"),
        ({"audio": [[1.0]] * 8}, "'audio' of entry 0"),
        ({"audio_lengths": ["a"] * 8}, "length that is a str"),
        ({"audio_lengths": [1]}, "1 entries of 'audio_lengths'"),
        ({"audio": np.float64(1)}, "no list or array 'audio'"),
        ({"audio": np.ones((8, 6, 0))}, "'audio' of entry 0 is no"),
        ({"audio": [np.ones((500, 3))] * 8}, "same content for many utterances"),
        ({"raw_text": ["a" * 50_000] * 8}, "same content for many utterances"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, change, problem):
    with pytest.raises(DataError, match=problem):
        import_features(write(tmp_path, content(**change)), tmp_path / "data", QUIET)
    assert not (tmp_path / "data" / "utterances.parquet").exists()


@pytest.mark.parametrize("value", [[], {}, {"train": 1}, {"a": {}}, "text", None, {"train": {}}, {"train": {"id": []}}])
def test_a_pickle_of_something_else_is_refused(tmp_path, value):
    with pytest.raises(DataError):
        import_features(write(tmp_path, value), tmp_path / "data", QUIET)


def test_splits_of_different_modalities_are_refused(tmp_path):
    value = content()
    del value["test"]["audio"]
    with pytest.raises(DataError, match="other modalities than the splits before"):
        import_features(write(tmp_path, value), tmp_path / "data", QUIET)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def test_a_hostile_file_runs_nothing_and_leaves_what_was_there(tmp_path):
    import_features(write(tmp_path, content()), tmp_path / "data", QUIET)
    mark = tmp_path / "it ran"
    for protocol in range(6):
        with pytest.raises(DataError, match=r"holds the name \w+\.system"):
            import_features(write(tmp_path, content(id=Evil(mark)), protocol, "evil.pkl"), tmp_path / "data", QUIET)
    assert not mark.exists()
    assert len(UtteranceDataset(tmp_path / "data", features="imported")) == 12


def test_importing_again_replaces_the_older_one(tmp_path):
    import_features(write(tmp_path, content()), tmp_path / "data", QUIET)
    value = {"train": split(["new$_$1"])}
    import_features(write(tmp_path, value), tmp_path / "data", QUIET)
    assert read_manifest(tmp_path / "data")["utterance_id"].tolist() == ["new_1"]
    assert sorted(p.name for p in (tmp_path / "data/features/imported").iterdir()) == [
        "features.json",
        "new.safetensors",
        "new.safetensors.sha256",
    ]


def test_a_data_set_with_clips_is_not_overwritten(toy_corpus, tmp_path):
    before = (toy_corpus / "utterances.parquet").read_bytes()
    with pytest.raises(DataError, match="holds a data set with clips"):
        import_features(write(tmp_path, content()), toy_corpus, QUIET)
    assert (toy_corpus / "utterances.parquet").read_bytes() == before


def test_stats_know_the_splits_and_the_sentiment(imported):
    found = stats(imported[0])
    assert found["splits"]["train"]["utterances"] == 8
    assert found["splits"]["train"]["sentiment"]["negative"]["utterances"] == 4
    assert "train" in format_stats(found)
    assert json.dumps(found, allow_nan=False)


def test_preprocessing_has_nothing_to_do(imported):
    with pytest.raises(DataError, match="no clips, only imported features"):
        preprocess(PreprocessSettings(data=imported[0]), QUIET)


def test_features_are_added_to_a_folder_with_clips_for_the_utterances_of_both(corpus_writer, tmp_path):
    data = corpus_writer(tmp_path / "toy", {"train": 8, "valid": 6, "test": 5})
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.name != ".lock"}
    ids = [f"train$_${i:02d}" for i in range(8)]
    value = {"train": split(ids), "valid": split(["valid$_$00"], 1), "test": split(["test$_$00", "other$_$1"], 2)}
    summary = import_features(write(tmp_path, value), None, QUIET, add_to=data)
    assert (summary["added"], summary["without"], summary["not_here"]) == (10, 9, 1)
    assert all(path.read_bytes() == content for path, content in before.items())
    dataset = UtteranceDataset(data, "train", "imported")
    assert len(dataset) == 8
    np.testing.assert_array_equal(dataset[1].features["a"], value["train"]["audio"][1, :2])
    rest = UtteranceDataset(data, "valid", "imported")
    assert (len(rest), rest.rejected) == (1, 5)
    with pytest.raises(
        DataError, match=r"none of the 12 utterances of .*mosi.pkl is in .*, e.g. v0_0 there and test_00"
    ):
        import_features(write(tmp_path, content()), None, QUIET, add_to=data)
    with pytest.raises(ConfigError, match="give one of them"):
        import_features(write(tmp_path, value), tmp_path / "new", QUIET, add_to=data)

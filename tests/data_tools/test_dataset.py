import pickle

import pytest
import torch

from data_tools import dataset, mel
from data_tools.dataset import UtteranceDataset, collate
from data_tools.errors import DataError
from data_tools.files import write_json
from data_tools.manifest import write_manifest
from data_tools.records import Clip
from data_tools.store import DialogueStore, SampleTensors, store_path, write_dialogue
from data_tools.store_index import write_index


def clip(utterance_id, split="train", text="so", sentiment=None, **labels):
    dialogue = utterance_id.rsplit("_", 1)[0]
    return Clip(
        utterance_id, dialogue, "s", "1", split, 0.0, 1.0, text, "c.mp4", "c.wav", labels, sentiment, "v", "a", 25.0
    )


def features(faces, rows):
    return SampleTensors(
        faces=torch.full((faces, 48, 48, 3), rows, dtype=torch.uint8),
        face_time_s=torch.zeros(faces),
        face_score=torch.ones(faces),
        face_landmarks=torch.zeros(faces, 5, 2),
        face_box=torch.zeros(faces, 4),
        logmel=torch.randn(rows, 128, generator=torch.Generator().manual_seed(rows)).half(),
    )


@pytest.fixture
def data_dir(tmp_path):
    clips = [
        clip("d1_a", ang=1.0, sad=0.0),
        clip("d1_b", "test", sentiment=-2.0, ang=0.0, sad=1.0),
        clip("d2_c", ang=0.0, sad=1.0),
        clip("d2_gone", ang=0.0, sad=1.0),
    ]
    write_manifest(tmp_path, clips, ["ang", "sad"])
    write_dialogue(store_path(tmp_path, "d1"), {"d1_a": features(2, 40), "d1_b": features(1, 32)}, "f")
    write_dialogue(store_path(tmp_path, "d2"), {"d2_c": features(0, 0)}, "f", {"d2_gone": ("clip:unreadable", "why")})
    write_json(tmp_path / "store" / "store.json", {"fingerprints": {"d1": "f", "d2": "f"}})
    return tmp_path


def tokenize(texts):
    width = max(len(text) for text in texts)
    tokens = torch.tensor([[ord(c) for c in text.ljust(width, "\0")] for text in texts]).view(len(texts), width)
    return tokens, tokens > 0


def test_samples_have_the_stated_shapes(data_dir):
    data = UtteranceDataset(data_dir)
    assert (len(data), data.rejected, data.emotions) == (3, 1, ["ang", "sad"])
    sample = data[0]
    assert (sample.id, sample.text, sample.labels.tolist()) == ("d1_a", "so", [1.0, 0.0])
    assert (sample.faces.shape, sample.faces.dtype) == ((2, 3, 48, 48), torch.uint8)
    assert (sample.chunks.shape, sample.chunks.dtype) == ((2, 1, 128, 32), torch.float32)
    assert data[1].sentiment == -2.0
    assert data[2].faces.shape == (0, 3, 48, 48)


def test_a_split_is_a_part(data_dir):
    assert [UtteranceDataset(data_dir, "test")[0].id] == ["d1_b"]
    with pytest.raises(DataError, match="'dev'.*test, train"):
        UtteranceDataset(data_dir, "dev")


def test_a_batch_is_packed_in_order(data_dir):
    data = UtteranceDataset(data_dir)
    batch = collate([data[0], data[2], data[1]], tokenize)
    assert batch.ids == ("d1_a", "d2_c", "d1_b")
    assert batch.face_counts.tolist() == [2, 0, 1]
    assert batch.chunk_counts.tolist() == [2, 0, 1]
    assert batch.faces[:, 0, 0, 0].tolist() == [40, 40, 32]
    torch.testing.assert_close(batch.chunks[2:], data[1].chunks)
    assert batch.labels.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    assert batch.sentiment.isnan().tolist() == [True, True, False]


def test_missing_store_names_the_command(data_dir):
    store_path(data_dir, "d2").unlink()
    with pytest.raises(DataError, match="d2.*pipeline preprocess"):
        UtteranceDataset(data_dir)
    UtteranceDataset(data_dir, "test")  # needs only d1


def test_an_utterance_that_the_store_lacks_is_named(data_dir):
    write_dialogue(store_path(data_dir, "d1"), {"d1_a": features(1, 1)}, "f")
    with pytest.raises(DataError, match="'d1_b' is not in .*pipeline preprocess --data"):
        UtteranceDataset(data_dir)


def test_a_store_of_two_runs_is_refused(data_dir):
    write_dialogue(store_path(data_dir, "d2"), {"d2_c": features(1, 1)}, "of other settings")
    with pytest.raises(DataError, match=r"d2\.safetensors is not of the run"):
        UtteranceDataset(data_dir)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_an_unfinished_store_is_refused(data_dir, content):
    path = data_dir / "store" / "store.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match="preprocessing has not finished; run `pipeline preprocess --data"):
        UtteranceDataset(data_dir)


def test_it_travels_to_a_worker(data_dir):
    data = UtteranceDataset(data_dir)
    first = data[0]
    copy = pickle.loads(pickle.dumps(data))
    torch.testing.assert_close(copy[0].chunks, first.chunks)
    assert mel.CHUNK_FRAMES == first.chunks.shape[-1]


def test_no_more_files_are_open_than_allowed_and_every_sample_can_be_read(tmp_path, monkeypatch):
    names = [f"d{number}_a" for number in range(7)]
    write_manifest(tmp_path, [clip(name, ang=1.0) for name in names], ["ang"])
    for number, name in enumerate(names):
        write_dialogue(store_path(tmp_path, f"d{number}"), {name: features(number, 8 * number)}, "f")
    write_json(tmp_path / "store" / "store.json", {"fingerprints": {f"d{number}": "f" for number in range(7)}})
    opened = []
    monkeypatch.setattr(dataset, "OPEN_FILES", 3)
    real = DialogueStore.__init__
    monkeypatch.setattr(DialogueStore, "__init__", lambda self, path: opened.append(path.stem) or real(self, path))
    data = UtteranceDataset(tmp_path)
    assert opened == [f"d{number}" for number in range(7)]
    assert data.counts()["faces"].tolist() == list(range(7))
    assert data.only(data.counts()["faces"] > 4).counts()["chunks"].tolist() == [2, 2]
    assert opened == [f"d{number}" for number in range(7)]  # counting opens none again
    for index in (0, 1, 2, 1, 0, 6, 0, 3):
        assert len(data[index].faces) == index
        assert len(data._stores) <= 3
    # 4, 5 and 6 were open; after that the one that was not used for longest is closed.
    assert opened[7:] == ["d0", "d1", "d2", "d6", "d3"]


def test_a_store_that_was_made_anew_meanwhile_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "OPEN_FILES", 1)
    write_manifest(tmp_path, [clip("d1_a", ang=1.0), clip("d2_a", ang=1.0)], ["ang"])
    for name in ("d1", "d2"):
        write_dialogue(store_path(tmp_path, name), {f"{name}_a": features(1, 8)}, "f")
    write_json(tmp_path / "store" / "store.json", {"fingerprints": {"d1": "f", "d2": "f"}})
    data = UtteranceDataset(tmp_path)
    write_dialogue(store_path(tmp_path, "d1"), {"d1_a": features(2, 8)}, "g")
    with pytest.raises(DataError, match=r"d1\.safetensors is not of the run that store\.json speaks of"):
        data[0]


def test_samples_are_read_in_one_thread(data_dir, monkeypatch):
    threads = []
    real = mel.chunks
    monkeypatch.setattr(dataset.mel, "chunks", lambda rows: threads.append(torch.get_num_threads()) or real(rows))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        UtteranceDataset(data_dir)[0]
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_with_many_dialogues_nothing_is_opened_before_it_is_read(data_dir, monkeypatch):
    few = UtteranceDataset(data_dir)
    index = write_index(data_dir, {"d1_a": (2, 40), "d1_b": (1, 32), "d2_c": (0, 0)}, ["d2_gone"])
    write_json(data_dir / "store" / "store.json", {"index": index, "fingerprints": {"d1": "f", "d2": "f"}})
    monkeypatch.setattr(dataset, "OPEN_FILES", 1)
    many = UtteranceDataset(data_dir)
    assert many._stores == {}
    assert (many.table["utterance_id"].tolist(), many.rejected) == (few.table["utterance_id"].tolist(), 1)
    assert {name: counts.tolist() for name, counts in many.counts().items()} == {
        name: counts.tolist() for name, counts in few.counts().items()
    }
    for ours, theirs in zip(map(many.__getitem__, range(3)), map(few.__getitem__, range(3)), strict=True):
        assert ours.id == theirs.id
        assert torch.equal(ours.faces, theirs.faces)
        assert torch.equal(ours.chunks, theirs.chunks)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda store: (store / "d2.safetensors").unlink(), r"d2\.safetensors is not there"),
        (lambda store: (store / "index.parquet").unlink(), r"index\.parquet cannot be read"),
        (lambda store: write_index(store.parent, {"d1_a": (2, 40)}, []), "not the one that store.json speaks of"),
        (lambda store: restate(store, write_index(store.parent, {"d1_a": (2, 40)}, [])), r"'d1_b' is not in .*index"),
    ],
)
def test_a_store_that_is_not_whole_is_refused_by_its_index(data_dir, monkeypatch, spoil, message):
    restate(data_dir / "store", write_index(data_dir, {"d1_a": (2, 40), "d1_b": (1, 32), "d2_c": (0, 0)}, ["d2_gone"]))
    monkeypatch.setattr(dataset, "OPEN_FILES", 1)
    UtteranceDataset(data_dir)
    spoil(data_dir / "store")
    with pytest.raises(DataError, match=message + r".*run `pipeline preprocess --data"):
        UtteranceDataset(data_dir)


def restate(store, index):
    write_json(store / "store.json", {"index": index, "fingerprints": {"d1": "f", "d2": "f"}})

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from data_tools.checksums import checksum_path
from data_tools.errors import DataError
from data_tools.store import DialogueStore, SampleTensors, dialogue_writer, read_fingerprint, write_dialogue


def features(faces, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return SampleTensors(
        faces=torch.randint(0, 256, (faces, 48, 48, 3), generator=generator, dtype=torch.uint8),
        face_time_s=torch.arange(faces) * 0.5,
        face_score=torch.rand(faces, generator=generator),
        face_landmarks=torch.rand(faces, 5, 2, generator=generator),
        face_box=100 * torch.randn(faces, 4, generator=generator),
        logmel=torch.randn(rows, 128, generator=generator).half(),
    )


@pytest.mark.parametrize("sizes", [[(2, 10), (3, 70), (1, 1)], [(0, 0), (4, 0), (0, 5)]])
def test_what_is_written_is_read_back(tmp_path, sizes):
    written = {f"u{i}": features(*size, seed=i) for i, size in enumerate(sizes)}
    written["u0"] = replace(written["u0"], chosen_by="speaking")
    write_dialogue(tmp_path / "d.safetensors", written, "print", {"bad": ("clip:unreadable", "why")})
    store = DialogueStore(tmp_path / "d.safetensors")
    assert store.utterance_ids == list(written)
    assert store.rejected == {"bad": ("clip:unreadable", "why")}
    for name, size in zip(written, sizes, strict=True):
        assert (len(store[name].faces), len(store[name].logmel)) == size
        assert store[name].chosen_by == written[name].chosen_by
        for field, value in vars(written[name]).items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(getattr(store[name], field), value, rtol=0, atol=0)


def test_the_same_features_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_dialogue(tmp_path / f"{name}.safetensors", {"u": features(2, 40)}, "print")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_dialogue_of_rejects_alone_is_a_store_too(tmp_path):
    write_dialogue(tmp_path / "d.safetensors", {}, "print", {"bad": ("clip:unreadable", "why")})
    assert DialogueStore(tmp_path / "d.safetensors").utterance_ids == []


def test_fingerprint_and_broken_files(tmp_path):
    path = tmp_path / "d.safetensors"
    assert read_fingerprint(path) is None
    write_dialogue(path, {"u": features(1, 1)}, "print")
    assert read_fingerprint(path) == "print"
    path.write_bytes(path.read_bytes()[:100])
    assert read_fingerprint(path) is None
    with pytest.raises(DataError, match="pipeline preprocess"):
        DialogueStore(path)


def test_a_store_of_an_older_version_is_made_anew_and_not_misread(tmp_path, monkeypatch):
    path = tmp_path / "d.safetensors"
    monkeypatch.setattr("data_tools.store.STORE_VERSION", 1)
    write_dialogue(path, {"u": features(1, 1)}, "print")
    monkeypatch.undo()
    assert read_fingerprint(path) is None
    with pytest.raises(DataError, match="has store version 1.*pipeline preprocess"):
        DialogueStore(path)


def test_the_file_is_what_the_safetensors_library_reads(tmp_path):
    path = tmp_path / "d.safetensors"
    written = {"b": features(3, 40, seed=1), "a": features(0, 0), "c": features(2, 7, seed=2)}
    write_dialogue(path, written, "print")
    read = load_file(path)
    for name in ("faces", "face_time_s", "face_score", "face_landmarks", "face_box", "logmel"):
        expected = torch.cat([getattr(item, name) for item in written.values()])
        assert read.pop(name).equal(expected)
    assert {name: offsets.tolist() for name, offsets in read.items()} == {
        "face_offsets": [0, 3, 3, 5],
        "mel_offsets": [0, 40, 40, 47],
    }
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0, "the tensors are not aligned"


def test_utterances_are_written_one_by_one_and_nothing_is_left_behind(tmp_path):
    path = tmp_path / "d.safetensors"
    with dialogue_writer(path, "print") as writer:
        writer.add("u", features(2, 40))
        assert not path.exists()
        writer.add("v", features(1, 3))
    assert DialogueStore(path).utterance_ids == ["u", "v"]
    with pytest.raises(RuntimeError, match="on purpose"), dialogue_writer(tmp_path / "e.safetensors", "p") as writer:
        writer.add("u", features(2, 40))
        raise RuntimeError("on purpose")
    assert sorted(tmp_path.iterdir()) == [path, checksum_path(path)]

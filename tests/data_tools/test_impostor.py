"""Pointers and web pages in place of data are named as such wherever a file is opened."""

import struct

import pytest
import torch
from safetensors.torch import save_file

import models
from data_tools.corpora.csd import read_csd
from data_tools.corpora.mmsa.plain_pickle import read_plain_pickle
from data_tools.corpora.readers import read_release
from data_tools.corpora.tables import read_table
from data_tools.errors import DataError
from data_tools.impostor import find_impostor
from data_tools.manifest import read_manifest
from data_tools.media.source import probe
from data_tools.sequences.store import DialogueFeatures
from data_tools.speech.transcript import read_transcript
from data_tools.splits import _read_list
from data_tools.store import DialogueStore
from models.errors import ModelError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"\xef\xbb\xbf\n <!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
READERS = {
    "a.mp4": probe,
    "a.wav": probe,
    "a.pkl": read_plain_pickle,
    "a.csd": read_csd,
    "a.csv": read_table,
    "a.parquet": read_table,
    "a.srt": read_transcript,
    "b.safetensors": DialogueStore,
    "c.safetensors": DialogueFeatures,
    "labels.txt": _read_list,
    "utterances.parquet": lambda path: read_manifest(path.parent),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_them(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(POINTER)
    with pytest.raises(DataError, match=rf"{name}.* is a Git LFS pointer, not the file itself; run `git lfs pull`"):
        READERS[name](path)
    path.write_bytes(PAGE)
    with pytest.raises(DataError, match=rf"{name}.* is a saved web page, not the file itself; download again"):
        READERS[name](path)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"content")

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match=rf"{name}.* cannot be read.*Permission denied"):
        READERS[name](tmp_path / name)


def test_other_beginnings_are_none(tmp_path):
    path = tmp_path / "a"
    for content in (b"", b"version 1", b"<i>words</i>", b'<?xml version="1.0"?><tt/>', b"\0\0\0\x18ftyp"):
        path.write_bytes(content)
        assert find_impostor(path) is None
    path.write_bytes(b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>')
    assert find_impostor(path).reason == "file:web_page"
    path.write_bytes(b"/annex/objects/SHA256E-s1--abc.mp4\n")
    assert "git annex get" in find_impostor(path).remedy


def test_weights_that_git_lfs_has_not_fetched(tmp_path):
    (tmp_path / "model.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(ModelError, match=r"model\.safetensors is a Git LFS pointer: run `git lfs pull`"):
        models.load(tmp_path)


def test_a_release_names_all_of_them_once(tmp_path):
    contents = {"a.mp4": POINTER, "b.mp4": POINTER, "c.mp4": PAGE, "d.mp4": b"", "e.mp4": b"", "e.wav": POINTER}
    (tmp_path / "joy").mkdir()
    for name, content in contents.items():
        (tmp_path / "joy" / name).write_bytes(content)
    release = read_release("folder", tmp_path, [])
    assert [u.utterance_id for u in release.utterances] == ["joy__d"]
    assert [(r.utterance_id, r.reason, r.source) for r in release.rejects] == [
        ("joy__a", "file:pointer", "joy/a.mp4"),
        ("joy__b", "file:pointer", "joy/b.mp4"),
        ("joy__c", "file:web_page", "joy/c.mp4"),
        ("joy__e", "file:pointer", "joy/e.wav"),
    ]
    pointers = (
        "3 files are Git LFS pointers, not the files themselves, e.g. joy/a.mp4; run `git lfs pull` where it was cloned"
    )
    assert pointers in release.notes
    assert sum("web page" in note for note in release.notes) == 1


def box(kind, content=b""):
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize("end", [None, -5])
def test_an_mp4_that_was_cut_off_is_incomplete(tmp_path, end):
    path = tmp_path / "a.mp4"
    path.write_bytes((box(b"ftyp", b"isom" + bytes(8)) + box(b"free") + box(b"mdat", bytes(4000)))[:end])
    with pytest.raises(DataError, match=r"a\.mp4 is incomplete \(its index is missing\); copy or download it again"):
        probe(path)


def test_other_content_is_no_incomplete_mp4(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"plain words, no media")
    with pytest.raises(DataError, match="expected one of aac"):
        probe(tmp_path / "a.mp4")


def test_real_tensors_pass(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert find_impostor(tmp_path / "x.safetensors") is None

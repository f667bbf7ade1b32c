from dataclasses import replace

import pytest

from data_tools.errors import DataError
from data_tools.manifest import (
    emotions_of,
    read_manifest,
    read_rejects,
    rows_by_dialogue,
    write_manifest,
    write_rejects,
)
from data_tools.records import Clip, Reject


def clip(utterance_id, **labels):
    return Clip(utterance_id, "007", "s", "1", "train", 0.1, 1.5, "né", "c.mp4", "c.wav", labels, None, "v", "a", 29.97)


def test_rows_come_back_sorted_with_ids_as_text(tmp_path):
    write_manifest(tmp_path, [clip("2", ang=1.0, sad=0.0), clip("010", ang=0.0, sad=0.5)], ["ang", "sad"])
    table = read_manifest(tmp_path)
    assert table["utterance_id"].tolist() == ["010", "2"]
    assert table["dialogue_id"].tolist() == ["007", "007"]
    assert table["label_sad"].tolist() == [0.5, 0.0]
    assert str(table["label_ang"].dtype) == "float32"
    assert table["sentiment"].isna().all()
    assert emotions_of(table) == ["ang", "sad"]


def test_order_of_work_does_not_change_the_bytes(tmp_path):
    rows = [clip("a", ang=1.0), clip("b", ang=0.0)]
    for name, order in (("x", rows), ("y", rows[::-1])):
        write_manifest(tmp_path / name, order, ["ang"])
    assert (tmp_path / "x/utterances.parquet").read_bytes() == (tmp_path / "y/utterances.parquet").read_bytes()


def test_an_id_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match="'a' occurs twice"):
        write_manifest(tmp_path, [clip("a", ang=1.0), clip("a", ang=1.0)], ["ang"])


def test_missing_and_broken_manifests_name_the_command(tmp_path):
    with pytest.raises(DataError, match="pipeline reorganize --dataset"):
        read_manifest(tmp_path)
    (tmp_path / "utterances.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="pipeline reorganize"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("folder", "dataset"), [("mosei", "mosei"), ("holidays", "NAME"), ("folder", "folder")])
def test_the_command_names_only_a_data_set_that_there_is(tmp_path, folder, dataset):
    with pytest.raises(DataError, match=f"reorganize --dataset {dataset} --out .*{folder}`"):
        read_manifest(tmp_path / "data" / folder)


def test_rejects_come_back(tmp_path):
    assert read_rejects(tmp_path) == []
    rejects = [
        Reject(None, "b.avi", "reorganize", "video:unreadable", "x"),
        Reject("u", "a.txt", "reorganize", "label:xxx", "y"),
    ]
    write_rejects(tmp_path, rejects)
    assert read_rejects(tmp_path) == rejects[::-1]
    write_rejects(tmp_path, [])
    assert read_rejects(tmp_path) == []


def test_rows_come_by_dialogue(tmp_path):
    rows = [
        replace(clip(name, ang=1.0), dialogue_id=dialogue) for name, dialogue in (("a", "2"), ("b", "1"), ("c", "2"))
    ]
    write_manifest(tmp_path, rows, ["ang"])
    found = rows_by_dialogue(read_manifest(tmp_path), ("utterance_id", "start_s"))
    assert list(found.items()) == [("1", [("b", 0.1)]), ("2", [("a", 0.1), ("c", 0.1)])]


@pytest.mark.parametrize("name", ["../a", "a/b", ".a", "a\\b", "a\n", "a\x1b", "é" * 101, "a" * 201])
def test_an_id_that_is_no_name_of_a_file_is_refused(tmp_path, name):
    write_manifest(tmp_path, [clip("a", ang=1.0), clip(name, ang=1.0)], ["ang"])
    with pytest.raises(DataError, match="utterance_id"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["é", "a b.c-d_e", "日本", "a" * 200, "0001", "(x)"])
def test_other_ids_are_taken(tmp_path, name):
    write_manifest(tmp_path, [clip("a", ang=1.0), clip(name, ang=1.0)], ["ang"])
    assert name in read_manifest(tmp_path)["utterance_id"].tolist()


@pytest.mark.parametrize("path", ["../v.mp4", "/v.mp4", "a/../../v.mp4", "a/.."])
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path, path):
    write_manifest(tmp_path, [clip("a", ang=1.0), replace(clip("b", ang=1.0), source_video=path)], ["ang"])
    with pytest.raises(DataError, match="leads out of the folder"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["a..b/v.mp4", "day 2/é.mov", "./v", "v"])
def test_other_paths_are_taken(tmp_path, path):
    write_manifest(tmp_path, [clip("a", ang=1.0), replace(clip("b", ang=1.0), source_video=path)], ["ang"])
    assert path in read_manifest(tmp_path)["source_video"].tolist()

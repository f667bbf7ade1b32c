"""Simulated folders are what the stages themselves would make, and growth is what the seconds say."""

import pytest

from benchmarks import scale
from data_tools.dataset import UtteranceDataset
from data_tools.manifest import read_manifest


def row(utterances, seconds, **other):
    return {"work": "stats", "layout": "few", "code": "now", "utterances": utterances, "seconds": seconds, **other}


@pytest.mark.parametrize(("factor", "seconds"), [(1.0, 3.0), (2.0, 12.0), (4.0, 48.0)])
def test_growth_is_the_factor_of_one_doubling(factor, seconds):
    rows = [row(1000, 3.0), row(4000, seconds), row(1000, 99.0, layout="one each"), row(2000, 99.0, code="before")]
    assert scale.growth(rows, rows[1]) == pytest.approx(factor)
    assert scale.growth(rows, rows[0]) is None


def test_the_table_has_a_row_for_each_case():
    rows = [row(1000, 3.0, bytes=2**20), row(2000, 6.0, bytes=2**21), row(1000, 1.0, code="before", bytes=0)]
    page = scale.as_markdown(rows).splitlines()
    assert "| stats | few | now | 3.00 s | 6.00 s | 3000.0 | 2.00 | 2 MiB |" in page
    assert "| stats | few | before | 1.00 s | - | 1000.0 | - | 0 MiB |" in page


@pytest.mark.parametrize(("per_dialogue", "dialogues"), [(10, 10), (1, 30)])
def test_a_simulated_folder_is_one_that_the_stages_leave_as_it_is(tmp_path, per_dialogue, dialogues):
    made = scale.make_folders(tmp_path, per_dialogue * dialogues, per_dialogue)
    assert read_manifest(made.data)["dialogue_id"].nunique() == dialogues
    assert len(UtteranceDataset(made.data, "train")) == per_dialogue * dialogues * 8 // 10
    before = {path: path.stat().st_mtime_ns for path in (made.data / "clips").rglob("*") if path.is_file()}
    before |= {path: path.stat().st_mtime_ns for path in (made.data / "store").glob("*.safetensors")}
    for work in scale.WORK.values():  # the last ones run both stages again
        work(made)
    assert {path: path.stat().st_mtime_ns for path in before} == before
